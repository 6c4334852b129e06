"""Data stages, from source rows to daily features: landing, cleaning, labels, features.

Belongs here: the assets of the group `<model>/data` and their helpers. Does not belong here: anything that depends on a
model version.
"""
