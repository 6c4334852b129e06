"""The name that ``dry_run.py`` had. Generated tests of earlier templates import it from here."""

from assets.lifecycle.dry_run import dry_run as rehearse

__all__ = ["rehearse"]
