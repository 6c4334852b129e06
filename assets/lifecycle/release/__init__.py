"""From a candidate that passed its gate to the version in production.

Belongs here: the assets of the group `<model>/release`. Does not belong here: deployment targets and the ledger
(``resources/deployment.py``).
"""
