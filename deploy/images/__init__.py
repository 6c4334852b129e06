"""Container images: their Dockerfiles, and the commands that build and try them."""
