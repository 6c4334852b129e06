"""The scoring service: takes raw rows and returns scores, decisions and the model version that produced them.

Belongs here: all steps of a request. Does not belong here: features and networks, which belong to the lifecycle, and
alerts (``watch``).
"""
