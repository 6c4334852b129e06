"""Commands of a fork: add a model folder, remove one, and update to a newer template.

Belongs here: inspecting a table, guessing its structure, writing and removing folders. Does not belong here: anything
that a declared model needs when it runs.
"""
