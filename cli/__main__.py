"""``python -m cli`` is ``assetline`` for a copy of the project that is not installed."""

import sys

from cli import main

sys.exit(main())
