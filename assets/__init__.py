"""What is made: the declared models and the lifecycle that turns a declaration into assets."""
