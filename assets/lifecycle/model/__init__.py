"""From frozen rows to a version that passed its gate: training set, leakage, fit, bundle, evaluation, report, gate.

Belongs here: the assets of the group `<model>/model`, what a version is (``bundle.py``) and which one is in production
(``champion.py``). Does not belong here: promotion (``release``), the days that a version scores (``monitoring``).
"""
