"""E-mail over SMTP (RFC 5321), with the standard library."""

from __future__ import annotations

import datetime as dt
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import ClassVar

from pydantic import Field

from resources.alerts.alert import Alert, Delivery
from resources.alerts.channels.base import HEARTBEAT_WORDS, Channel, headline_of, line_of, more_of


class EmailChannel(Channel):
    """Sends e-mails to a list of addresses."""

    SECRETS: ClassVar[tuple[str, ...]] = ("password",)

    host: str = Field(description="Name of the SMTP server.")
    port: int = Field(default=587, description="Port of the SMTP server.")
    security: str = Field(
        default="starttls", description="'starttls', 'tls' or 'none'.", pattern="^(starttls|tls|none)$"
    )
    user: str = Field(default="", description="User name for the login; empty: no login.")
    password: str = Field(default="", description="Password for the login; it is a secret.")
    sender: str = Field(description="Sender address.")
    to: list[str] = Field(description="Recipient addresses.", min_length=1)
    group_seconds: float = Field(
        default=30.0, ge=0, description="Seconds that a change waits for others, so that they share one e-mail."
    )

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`."""
        parts = ["\n".join([line_of(change), *(f"  {line}" for line in more_of(change.alert))]) for change in changes]
        # A message that is sent again after a kill has the same Message-ID, so mail programs show it once.
        self._mail(headline_of(changes), "\n\n".join(parts), f"{changes[0].id}-{changes[-1].id}", changes[-1].at)

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        self._mail(HEARTBEAT_WORDS, f"{len(open_alerts)} alerts are open.", f"heartbeat-{at:%Y%m%dT%H%M}", at)

    def _mail(self, subject: str, text: str, number: str, at: dt.datetime) -> None:
        message = EmailMessage()
        message["Subject"] = " ".join(subject.split())  # a header must be one line, but a summary may have several
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message["Date"] = format_datetime(at)
        domain = self.sender.rpartition("@")[2]
        message["Message-ID"] = f"<assetline-{number}@{domain}>" if domain else make_msgid()
        message.set_content(text)
        kind = smtplib.SMTP_SSL if self.security == "tls" else smtplib.SMTP
        with kind(self.host, self.port, timeout=self.timeout_seconds) as server:
            if self.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self.user:
                server.login(self.user, self.password)
            if refused := server.send_message(message):
                raise smtplib.SMTPRecipientsRefused(refused)
