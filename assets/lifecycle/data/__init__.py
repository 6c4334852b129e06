"""From what a source holds to features by day: landing, cleaning, labels, features.

Belongs here: the assets of the group `<model>/data` and what they are made with. Does not belong here: anything that
knows of a model version.
"""
