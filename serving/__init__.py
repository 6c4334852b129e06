"""What runs as a process of its own: the scoring service, the watch, and the supervisor of `make dev`."""
