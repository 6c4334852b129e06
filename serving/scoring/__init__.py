"""The scoring service: a raw row in; probability, decision and the model version that said so out.

Belongs here: everything that a request passes through. Does not belong here: features and networks, which are the
lifecycle's, and alerts (``watch``).
"""
