"""What a candidate is made of: each learner as a torch module from raw features to outputs.

Belongs here: networks, the linear model, boosted trees, and what all of them do first. Does not belong here: choosing
among them (``fitting.py``).
"""
