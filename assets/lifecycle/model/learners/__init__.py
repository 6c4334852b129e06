"""The learners of a candidate, each as a torch module that maps raw features to outputs.

Belongs here: networks, the linear model, boosted trees, and the preprocessing that networks and the linear model share.
Does not belong here: the ensemble weights (``fitting.py``).
"""
