"""What the version in production says each day, how well it does, and whether its world still looks the same.

Belongs here: the assets of the group `<model>/monitoring` and the rules behind their checks. Does not belong here: who
is told (``sensors``, ``resources/alerts``).
"""
