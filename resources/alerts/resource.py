"""The alerts as a Dagster resource: the store with the routes of the declared channels."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from resources.alerts.alert import UNTOLD, Alert, Change
from resources.alerts.channels import Channel
from resources.alerts.channels.console import tell_console
from resources.alerts.config import ChannelsError, read_channels, with_secrets
from resources.alerts.store import AlertStore
from resources.settings import Settings


class Alerts(dg.ConfigurableResource):
    """The alert store; what changes in it goes into the outbox of each channel that is told of it."""

    database_url: str = Field(description="SQLAlchemy URL of the database that holds the alerts.")
    channels_file: str = Field(default="", description="Path of channels.toml; empty: the console alone is told.")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The alerts in the database of ``settings``; a URL with a password stays out of the UI."""
        path = str(settings.channels)
        if sa.make_url(settings.database_url).password is not None:
            return cls(database_url=dg.EnvVar("ASSETLINE_DATABASE_URL"), channels_file=path)
        return cls(database_url=settings.database_url, channels_file=path)

    @property
    def declared(self) -> dict[str, Channel]:
        """The channels of the file by name, their secrets unread."""
        return read_channels(Path(self.channels_file)) if self.channels_file else {}

    @cached_property
    def store(self) -> AlertStore:
        """The store."""
        return AlertStore(self.database_url, [channel.route(name) for name, channel in self.declared.items()])

    def channels(self) -> dict[str, Channel]:
        """The channels, ready to send. Raises :class:`ChannelsError` for a secret that is not set."""
        return {name: with_secrets(channel, name) for name, channel in self.declared.items()}

    def tell(self, changed: tuple[Alert, Change] | None) -> None:
        """Says a change on the console at once; the channels have it in their outbox already."""
        if changed is None or changed[1] in UNTOLD:
            return
        alert, change = changed
        words = alert.resolution if change == "resolved" else alert.summary
        tell_console(alert, change, words or "")


__all__ = ["Alerts", "ChannelsError"]
