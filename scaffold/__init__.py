"""What adds a model folder to a project, takes one away, and brings a newer template: the commands of a fork.

Belongs here: looking at a table, guessing what it is, writing and removing folders. Does not belong here: anything that
a declared model needs when it runs.
"""
