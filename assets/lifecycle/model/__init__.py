"""The model stage: training set, leakage check, fit, bundle, evaluation, report and gate.

Belongs here: the assets of the group `<model>/model`, the contents of a version (``bundle.py``) and the version in
production (``champion.py``). Does not belong here: promotion (``release``), daily scoring by a version
(``monitoring``).
"""
