"""What the tests of pipelines share with those of the resources."""

from tests.resources.conftest import postgres

__all__ = ["postgres"]
