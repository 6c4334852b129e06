"""The reference profile: the distribution of a model version's rows, stored as counts.

Belongs here: bins, counts, and the correlation of rows of one entity (design effects); pure functions without Dagster.
Training builds a profile and monitoring compares with it, so both import this package.
"""
