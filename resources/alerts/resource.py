"""The alerts as a Dagster resource: the store with the routes of the declared channels."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from resources.alerts.alert import UNTOLD, Addresses, Alert, Change
from resources.alerts.channels import Channel
from resources.alerts.channels.console import tell_console
from resources.alerts.config import ChannelsError, read_channels, with_secrets
from resources.alerts.delivery import Messenger
from resources.alerts.store import AlertStore
from resources.settings import Settings


class Alerts(dg.ConfigurableResource):
    """The alert store and its channels; each change goes into the outbox of the channels that receive it."""

    database_url: str = Field(description="SQLAlchemy URL of the database that holds the alerts.")
    channels_file: str = Field(
        default="", description="Path of channels.toml; empty: only the console receives alerts."
    )
    ui_url: str = Field(default="", description="Public address of the Dagster UI, for links.")
    watch_url: str = Field(default="", description="Public address of the alerts' page, for links.")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The resource on the database of ``settings``; a URL with a password is hidden from the UI."""
        secret = sa.make_url(settings.database_url).password is not None
        return cls(
            database_url=dg.EnvVar("ASSETLINE_DATABASE_URL") if secret else settings.database_url,
            channels_file=str(settings.channels), ui_url=settings.ui_link, watch_url=settings.watch_link,
        )  # fmt: skip

    @property
    def declared(self) -> dict[str, Channel]:
        """The channels in the file, by name; their secrets are not read."""
        return read_channels(Path(self.channels_file)) if self.channels_file else {}

    @property
    def addresses(self) -> Addresses:
        """Base addresses of the pages that messages link to."""
        return Addresses(ui=self.ui_url, watch=self.watch_url)

    @cached_property
    def store(self) -> AlertStore:
        """The alert store, with the routes of the declared channels."""
        return AlertStore(self.database_url, [channel.route(name) for name, channel in self.declared.items()])

    def channels(self) -> dict[str, Channel]:
        """The channels with their secrets, by name. Raises :class:`ChannelsError` if a secret is not set."""
        return {name: with_secrets(channel, name) for name, channel in self.declared.items()}

    def messengers(self) -> list[Messenger]:
        """One messenger for each channel. Raises :class:`ChannelsError` if a secret is not set."""
        return [Messenger(self.store, name, channel, self.addresses) for name, channel in self.channels().items()]

    def tell(self, changed: tuple[Alert, Change] | None) -> None:
        """Prints a change on the console at once; the outbox already holds it for the channels."""
        if changed is None or changed[1] in UNTOLD:
            return
        alert, change = changed
        message = alert.resolution if change == "resolved" else alert.summary
        tell_console(alert, change, message or "")


__all__ = ["Alerts", "ChannelsError"]
