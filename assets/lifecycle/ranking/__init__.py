"""Ranked lists of items for users: how they are learnt, measured and made.

Belongs here: everything that only a model with ``Model.ranking`` needs. Does not belong here: landing, cleaning, the
gate, releases and alerts, which are those of every model.
"""
