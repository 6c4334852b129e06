"""The declared models, and the lifecycle that turns a declaration into assets."""
