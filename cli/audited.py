"""Asks whether a user may run a command, and records in the audit log what it does, before the command does it.

Belongs here: the right and the record of a command. Does not belong here: roles (``resources/access.py``), the log
(``resources/audit.py``) and its own commands (``audit.py``), and actions that record themselves in their own
transaction: promotions and approvals (``resources/ledger.py``), handling of alerts (``resources/alerts/store.py``).

The rights hold for the commands. A user who can write to the state folder can also change it without them, so they
guard against mistakes, and against users who reach the state folder only through ``sudo assetline``.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from cli.errors import read_settings, reported
from resources.access import Access, AccessDenied, Right
from resources.settings import Settings

_GROUPS = frozenset({"alerts", "audit", "keys", "pipeline", "token"})
"""Modules whose commands are typed after the name of their group."""

Command = TypeVar("Command", bound=Callable[..., None])


def needs(right: Right) -> Callable[[Command], Command]:
    """Decorates a command: a user who lacks the right is refused with code 1, which is recorded.

    The argument ``model`` of the command names the model or models that it concerns.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def checked(**given: Any) -> None:
            name = _typed(command)
            given_models = given.get("model")
            models = given_models if isinstance(given_models, list) else [given_models]
            check(name, right, models or [None], read_settings(name), who=given.get("who"))
            command(**given)

        checked.right = right  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorate


def audited(
    action: str | Callable[[Mapping[str, Any]], str], subject: str, *, details: Collection[str] = (),
    right: Right = "read",
) -> Callable[[Command], Command]:  # fmt: skip
    """Decorates a command: asks for the right, writes a line of the audit log, then calls the command.

    If the line cannot be written, the command ends with code 1 and has done nothing. A project without state has
    nothing to read, so there is no line then.

    Args:
        action: the action, or a function of the arguments that returns it.
        subject: what is read or changed. ``{model}`` stands for the value of the argument ``model``, or for ``*`` if it
            was not given.
        details: names of arguments whose values are recorded. They must hold no rows, statements or secrets.
        right: the right that the user needs.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def recorded(**given: Any) -> None:
            values = {key: value for key, value in given.items() if value not in (None, "")}
            record(
                _typed(command),
                action if isinstance(action, str) else action(given),
                subject.format_map({key: values.get(key, "*") for key in given}),
                {key: values[key] for key in details if key in values},
            )
            command(**given)

        recorded.audited = subject  # type: ignore[attr-defined]
        return needs(right)(recorded)  # type: ignore[return-value]

    return decorate


def check(
    command: str, right: Right, models: Sequence[str | None], settings: Settings, *, who: str | None = None
) -> None:
    """Ends a command with code 1 if the user lacks the right. Without people in the token file, everybody has it.

    Args:
        command: what was typed.
        right: the right.
        models: the models that it concerns; ``None``: all models, or none in particular.
        settings: the settings, with the token file.
        who: the person in whose name the user acts; only an admin may give the name of another.
    """
    with refusing(command, ", ".join(model or "*" for model in models), {"right": right}, settings):
        person = person_of(settings)
        if person is None:
            return
        for model in models:
            person.require(right, model)
        if who and who != person.name and person.role != "admin":
            raise AccessDenied(f"{person.name} may not act for {who}; leave --who out, or ask an admin")


def person_of(settings: Settings) -> Access | None:
    """What the user of the operating system may do; ``None``: everything, because the token file has no people.

    Raises:
        TokenError: the token file is damaged.
        AccessDenied: it has people, and the user is none of them.
    """
    from resources.service_tokens import TokenFile

    people = TokenFile(settings.service_tokens, settings.first_service_token).people()
    if not people:
        return None
    name = user()
    if name not in people:
        raise AccessDenied(
            f"the user {name} is none of the people in {settings.service_tokens}; an admin adds [people.{name}]"
        )
    return people[name]


@contextlib.contextmanager
def refusing(command: str, subject: str, details: Mapping[str, Any], settings: Settings) -> Iterator[None]:
    """Records the :class:`~resources.access.AccessDenied` of its block as `denied`, and ends the command."""
    from resources.service_tokens import TokenError

    with reported(command, TokenError, AccessDenied):
        try:
            yield
        except AccessDenied:
            record(command, "denied", subject, details, settings)
            raise


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


def _typed(command: Callable[..., None]) -> str:
    """What a person types, as far as the function's name and module say it."""
    group = command.__module__.removeprefix("cli.")
    prefix = f"{group} " if group in _GROUPS else ""
    return f"assetline {prefix}{command.__name__.replace('_', '-')}"


def user() -> str:
    """The user of the operating system; a container may have a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
