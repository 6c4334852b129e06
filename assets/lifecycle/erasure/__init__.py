"""Removing a person from everything that is stored: who they are, what is theirs, removing it, and proving it.

Belongs here: finding and removing one person's rows. Does not belong here: tombstones (``resources/tombstones.py``),
landings (``assets/lifecycle/data/forgotten.py``), old state that nobody asked to remove (``resources/retention``).
"""
