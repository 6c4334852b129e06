#!/app/.venv/bin/python
"""The command ``assetline`` in an image, where the project is not installed as a package."""

from cli import main

main()
