"""Records in the audit log what a command reads, exports, changes or deletes, before the command does it.

Belongs here: the record of a command. Does not belong here: the log (``resources/audit.py``), its own commands
(``audit.py``), and actions that record themselves in their own transaction: promotions and approvals
(``resources/ledger.py``), handling of alerts (``resources/alerts/store.py``).
"""

from __future__ import annotations

import functools
import getpass
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from cli.errors import read_settings, reported
from resources.settings import Settings

Command = TypeVar("Command", bound=Callable[..., None])


def audited(
    action: str | Callable[[Mapping[str, Any]], str], subject: str, *, details: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Decorates a command: writes a line of the audit log, then calls the command.

    If the line cannot be written, the command ends with code 1 and has done nothing. A project without state has
    nothing to read, so there is no line then.

    Args:
        action: the action, or a function of the arguments that returns it.
        subject: what is read or changed. ``{model}`` stands for the value of the argument ``model``, or for ``*`` if it
            was not given.
        details: names of arguments whose values are recorded. They must hold no rows, statements or secrets.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def recorded(**given: Any) -> None:
            name = f"assetline {command.__name__.replace('_', '-')}"
            values = {key: value for key, value in given.items() if value not in (None, "")}
            record(
                name,
                action if isinstance(action, str) else action(given),
                subject.format_map({key: values.get(key, "*") for key in given}),
                {key: values[key] for key in details if key in values},
            )
            command(**given)

        recorded.audited = True  # type: ignore[attr-defined]
        return recorded  # type: ignore[return-value]

    return decorate


def record(
    command: str, action: str, subject: str, details: Mapping[str, Any], settings: Settings | None = None
) -> None:
    """Writes one line of the audit log for a command; ends the command if that is not possible."""
    settings = settings or read_settings(command)
    if settings.database_url.startswith("sqlite") and not settings.home.is_dir():
        return
    from resources.audit import AuditError, AuditLog

    with reported(command, AuditError):
        AuditLog(settings.database_url).record(action, subject, who=user(), details={**details, "command": command})


def user() -> str:
    """The user of the operating system; a container may have a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
