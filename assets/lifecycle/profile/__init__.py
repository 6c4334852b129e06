"""The reference profile: what the rows of a model version looked like, as counts.

Belongs here: bins, counts, and how much rows of one entity hang together; pure functions without Dagster. Training
makes a profile and monitoring compares with it, so it lies below both.
"""
