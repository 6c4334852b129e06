"""Release: stages a candidate that passed its gate, and promotes it to production.

Belongs here: the assets of the group `<model>/release`. Does not belong here: deployment targets and the ledger
(``resources/targets``, ``resources/ledger.py``).
"""
