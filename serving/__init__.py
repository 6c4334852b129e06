"""Programs that run as separate processes: the scoring service, the watch, and the supervisor of `make dev`."""
