"""The commands of the ledger: ``which``, ``history``, ``rollback``, ``approvals``, ``approve`` and ``reject``.

Belongs here: arguments, and text output. Does not belong here: the ledger (``resources/ledger.py``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import read_settings, reported

if TYPE_CHECKING:
    from resources.ledger import Entry, Ledger


class UnknownModelError(Exception):
    """The ledger has no entry of a model. The message gives the models that it has."""


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time; write it as 2026-10-03T12:00 (UTC)") from None
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextlib.contextmanager
def _ledger(command: str) -> Iterator[Ledger]:
    settings = read_settings(command)
    from resources.ledger import Ledger

    with reported(command, UnknownModelError):
        yield Ledger.from_settings(settings).process_config_and_initialize()


def which(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    at: Annotated[
        dt.datetime | None,
        typer.Option(
            parser=_moment, metavar="TIME", help="A time, e.g. 2026-10-03T12:00; UTC unless it has an offset."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which version of a model is in production, or was at a time, and why."""
    with _ledger("assetline which") as ledger:
        entries = _entries(ledger, model)
        entry = ledger.champion(model) if at is None else ledger.at(model, at)
    if as_json:
        print(json.dumps(entry.to_json() if entry else None, indent=1))
    elif entry is None:
        when = "yet" if at is None else f"at {at:%Y-%m-%d %H:%M:%S} UTC"
        print(f"no version of {model} was in production {when}")
    else:
        print(format_promotion(entry, entries, at))
    if entry is None:
        raise typer.Exit(1)


def history(
    model: Annotated[str | None, typer.Argument(help="Name of the model (default: all models).")] = None,
    as_json: AsJson = False,
) -> None:
    """List the promotions, refusals and approvals of one model or of all models, oldest first."""
    with _ledger("assetline history") as ledger:
        entries = _entries(ledger, model)
    print(json.dumps([entry.to_json() for entry in entries], indent=1) if as_json else format_history(entries))


def rollback(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    why: Annotated[str, typer.Option(help="Reason, for the ledger.")],
    who: Annotated[
        str, typer.Option(default_factory=getpass.getuser, show_default=False, help="Name (default: your user).")
    ],
    to: Annotated[
        str, typer.Option(metavar="VERSION", help="Version to promote (default: the one before the current).")
    ] = "",
) -> None:
    """Put an earlier version back into production, after it has answered in a process of its own."""
    settings = read_settings("assetline rollback")
    import dagster as dg

    from assets.lifecycle.release.rollback import RollbackError, roll_back
    from assets.models import declared_models
    from resources.defaults import default_resources
    from resources.targets.base import resource_key

    resources = default_resources(settings, {})
    names = next((one.targets for one in declared_models() if one.name == model), ("local",))
    wanted = {key: resources[key] for key in ("mlflow", "ledger", *map(resource_key, names))}
    with reported("assetline rollback", RollbackError), dg.build_resources(wanted) as ready:
        targets = {name: getattr(ready, resource_key(name)) for name in names}
        entry = roll_back(model, to=to, why=why, who=who, mlflow=ready.mlflow, ledger=ready.ledger, targets=targets)
    print(f"version {entry.version} of {model} is in production, in place of version {entry.previous}")


Comment = Annotated[str, typer.Option(help="Reason, for the ledger.")]
Who = Annotated[
    str, typer.Option(default_factory=getpass.getuser, show_default=False, help="Name (default: your user).")
]
Version = Annotated[str, typer.Option(help="Version to decide on (default: the one that waits).")]


def approvals(as_json: AsJson = False) -> None:
    """List the versions that were put up for approval, and what became of them."""
    settings = read_settings("assetline approvals")
    from assets.lifecycle.release.approval import waiting_states
    from assets.models import declared_models
    from resources.ledger import Ledger

    ledger = Ledger.from_settings(settings).process_config_and_initialize()
    states = waiting_states(ledger, declared_models(), dt.datetime.now(dt.UTC))
    if as_json:
        found = {
            name: {"version": s.request.version, "status": s.status, "until": s.until.isoformat(), "message": s.message}
            for name, s in states.items()
        }
        print(json.dumps(found, indent=1))
    else:
        lines = [f"{name}: {state.message}" for name, state in states.items()]
        print("\n".join(lines) or "no version was put up for approval")


def approve(
    model: Annotated[str, typer.Argument(help="Name of the model.")], comment: Comment, who: Who, version: Version = ""
) -> None:
    """Approve the version of a model that waits, so that it goes live."""
    _decide(model, approving=True, comment=comment, who=who, version=version)
    print("The daemon deploys it within a minute; without the daemon, materialise approval and deployment.")


def reject(
    model: Annotated[str, typer.Argument(help="Name of the model.")], comment: Comment, who: Who, version: Version = ""
) -> None:
    """Reject the version of a model that waits for approval."""
    _decide(model, approving=False, comment=comment, who=who, version=version)


def _decide(name: str, *, approving: bool, comment: str, who: str, version: str) -> None:
    command = f"assetline {'approve' if approving else 'reject'}"
    settings = read_settings(command)
    from assets.lifecycle.release.approval import ApprovalError, decide
    from assets.models import declared_models
    from resources.ledger import Ledger

    models = {model.name: model for model in declared_models()}
    with reported(command, ApprovalError, UnknownModelError):
        if name not in models:
            raise UnknownModelError(f"no model '{name}' is declared; there are: {', '.join(models) or 'none'}")
        ledger = Ledger.from_settings(settings).process_config_and_initialize()
        entry = decide(ledger, models[name], approve=approving, who=who, comment=comment, version=version)
    print(f"version {entry.version} of {name} is {'approved' if approving else 'rejected'} by {entry.who}")


def _entries(ledger: Ledger, model: str | None) -> list[Entry]:
    entries = ledger.history()
    known = sorted({entry.model for entry in entries})
    if model is not None and model not in known:
        raise UnknownModelError(f"the ledger has no entry of a model '{model}'; it has: {', '.join(known) or 'none'}")
    return [entry for entry in entries if model in (None, entry.model)]


def format_promotion(entry: Entry, entries: Sequence[Entry], at: dt.datetime | None) -> str:
    """A promotion as text: the version, from when to when it was in production, and why."""
    later = (e for e in entries if e.model == entry.model and e.number > entry.number)
    until = next((e.at for e in later if e.action in ("promote", "withdraw")), None)
    if at is None:
        first = f"version {entry.version} of {entry.model} is in production since {entry.at:%Y-%m-%d %H:%M:%S} UTC"
    else:
        ended = f"until {until:%Y-%m-%d %H:%M:%S} UTC" if until else "and still is"
        first = (
            f"version {entry.version} of {entry.model} was in production at {at:%Y-%m-%d %H:%M:%S} UTC, "
            f"since {entry.at:%Y-%m-%d %H:%M:%S} UTC {ended}"
        )
    facts = {"previous": f"version {entry.previous}" if entry.previous else "none", "promoted by": entry.who,
             "run": entry.dagster_run, "reason": entry.reason}  # fmt: skip
    return "\n".join([first, *(f"  {name:12} {value}" for name, value in facts.items())])


def format_history(entries: Sequence[Entry]) -> str:
    """Ledger entries as a text table."""
    if not entries:
        return "the ledger is empty"
    rows = [("time (UTC)", "model", "no.", "action", "version", "previous", "by", "reason")]
    for e in entries:
        time, number = f"{e.at:%Y-%m-%d %H:%M:%S}", str(e.number)
        rows.append((time, e.model, number, e.action, e.version, e.previous or "", e.who, e.reason[:100]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    )
