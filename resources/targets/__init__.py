"""Deployment targets: places where model versions run, one class per module.

Belongs here: targets, and what they share. Does not belong here: the record of promotions (``resources/ledger.py``),
the decision to promote and the order of several targets (``assets/lifecycle/release``), the service (``serving/``).
"""
