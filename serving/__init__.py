"""What runs as a process of its own: the scoring service and the supervisor of `make dev`."""
