"""The commands of ``assetline``; ``assetline --help`` lists them.

Heavy imports are inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import datetime as dt
import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.alerts import alerts_app
from cli.audit import audit_app
from cli.audited import audited, needs
from cli.card import card
from cli.catalogue import catalogue
from cli.compliance import compliance
from cli.deployment import deployments, undeploy
from cli.errors import read_settings, reported
from cli.forget import forget
from cli.keys import keys_app
from cli.ledger import approvals, approve, history, reject, rollback, which
from cli.metadata import compare, lineage, models, query, rows, runs, versions
from cli.pipeline import pipeline_app
from cli.rekey import rekey
from cli.reproduce import reproduce
from cli.rollout import rollout
from cli.settings import settings as show_settings
from cli.sql import sql
from cli.state import backup, prune, restore
from cli.token import token_app
from resources.settings import Settings

if TYPE_CHECKING:
    from assets.declaration import Model

app = typer.Typer(
    help="The lifecycle of a model, from the command line.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # its tracebacks are longer, and may show secrets in local variables
)
app.add_typer(alerts_app, name="alerts")
app.add_typer(audit_app, name="audit")
app.add_typer(keys_app, name="keys")
app.add_typer(pipeline_app, name="pipeline")
app.add_typer(token_app, name="token")
app.command(epilog="Example: `assetline models --json`")(audited("read", "*")(models))
app.command(epilog="Example: `assetline versions fraud`")(audited("read", "{model}/versions")(versions))
app.command(epilog="Example: `assetline runs fraud --last 10`")(
    audited("read", "{model}/runs", details=("last",))(runs)
)
app.command(epilog="Example: `assetline compare 1 3 --model fraud`")(
    audited("read", "{model}/versions", details=("a", "b"))(compare)
)
app.command(epilog="Example: `assetline lineage --version 3`")(
    audited("read", "{model}/versions", details=("version",))(lineage)
)
app.command(epilog="Example: `assetline rows --version 3 --out rows.parquet`")(
    audited("export", "{model}/training_set", details=("version", "out"), right="administer")(rows)
)
app.command(epilog="Example: `assetline reproduce fraud --version 3`")(
    audited("read", "{model}/training_set", details=("version",))(reproduce)
)
app.command(epilog='Example: `assetline query "SELECT version, status FROM versions"`')(
    audited("read", "metadata", details=("limit",))(query)
)
app.command(epilog='Example: `assetline sql "SELECT count(*) FROM fraud.payments"`')(needs("read")(sql))
app.command(epilog="Example: `assetline catalogue --out tables.html`")(
    audited("read", "tables", details=("table", "out"))(catalogue)
)
app.command(epilog="Example: `assetline which fraud --at 2026-10-03T12:00`")(audited("read", "{model}/ledger")(which))
app.command(epilog="Example: `assetline history fraud --json`")(audited("read", "{model}/ledger")(history))
app.command(epilog="Example: `assetline card fraud --version 3 --out card.html`")(
    audited("read", "{model}/versions", details=("version", "out"))(card)
)
app.command(epilog="Example: `assetline compliance fraud --out compliance.html`")(
    audited("read", "{model}/compliance", details=("out",))(compliance)
)
app.command(epilog='Example: `assetline rollback fraud --why "alerts doubled"`')(needs("operate")(rollback))
app.command(epilog="Example: `assetline deployments fraud`")(audited("read", "{model}/deployments")(deployments))
app.command(epilog='Example: `assetline undeploy fraud --why "replaced by fraud_v2"`')(needs("operate")(undeploy))
app.command()(audited("read", "*/ledger")(approvals))
app.command(epilog='Example: `assetline approve fraud --comment "better in every region"`')(needs("approve")(approve))
app.command(epilog='Example: `assetline reject fraud --comment "too few rows of the new product"`')(
    needs("approve")(reject)
)
app.command(epilog='Example: `assetline rollout fraud abort --why "two complaints"`')(needs("operate")(rollout))
app.command(epilog="Example: `assetline backup /backups/assetline-2026-10-03.tar.gz`")(
    audited("export", "state folder", details=("file",), right="administer")(backup)
)
app.command(epilog="Example: `assetline restore /backups/assetline-2026-10-03.tar.gz`")(needs("administer")(restore))
app.command(epilog="Example: `assetline prune --list`")(
    audited(lambda given: "delete" if given["yes"] else "read", "state folder", right="administer")(prune)
)
app.command(epilog="Example: `assetline rekey`")(audited("rekey", "pseudonyms", right="administer")(rekey))
app.command(epilog='Example: `assetline forget --entity customer_id=42 --why "request of 2 December"`')(forget)
app.command("settings", epilog="Example: `ASSETLINE_ENV=staging assetline settings`")(show_settings)


@app.command(epilog="Example: `assetline run --model news --until 2026-10-03`")
@needs("operate")
def run(
    model: Annotated[str, typer.Option(help="Example whose story is played (default: fraud).")] = "",
    until: Annotated[
        dt.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], metavar="DAY", help="Last day to play, e.g. 2026-10-03 (default: yesterday)."
        ),
    ] = None,
    size: Annotated[
        Literal["small", "published"] | None,
        typer.Option(help="Size of the simulated world (default: small, or that of the existing world)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the simulated world (default: 0, or that of the existing world).")
    ] = None,
) -> None:
    """Play the whole lifecycle of an example, from raw rows to a resolved alert."""
    settings = read_settings()
    from runner import RunError

    with reported("assetline run", RunError):
        _play(settings, model, until=until.date() if until else None, size=size or "", seed=seed)


@app.command()
@needs("operate")
def dev() -> None:
    """Start the Dagster UI, the MLflow UI, the scoring service and the alerts under one supervisor."""
    settings = read_settings()
    from serving.supervisor import SupervisorError, supervise

    with reported("assetline dev", SupervisorError):
        status = supervise(settings)
    raise typer.Exit(status)


@app.command(epilog="Example: `assetline materialize --model churn`")
@needs("operate")
def materialize(model: Annotated[str, typer.Option(help="Name of a declared model.")]) -> None:
    """Bring one model up to date: to a champion and its scores."""
    settings = read_settings()
    from runner import RunError

    with reported("assetline materialize", RunError):
        _materialize(settings, model)


@app.command(epilog="Example: `assetline tune churn --trials 50 --minutes 20`")
@needs("operate")
def tune(
    model: Annotated[str, typer.Argument(help="Name of a declared model.")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Recipes to try, those of earlier runs included (default: as declared).")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="No trial begins later than this (default: as declared).")
    ] = None,
) -> None:
    """Search a better recipe for a model; the next training uses it."""
    settings = read_settings()
    from runner import RunError

    with reported("assetline tune", RunError):
        if minutes is not None and minutes <= 0:
            raise RunError(f"--minutes {minutes:g} is too few; give more than 0")
        budget = {"trials": trials, "minutes": minutes}
        _tune(settings, model, {name: value for name, value in budget.items() if value is not None})


@app.command(epilog="Example: `assetline new-model --name churn --table customers.csv --target Churn`")
def new_model(
    name: Annotated[str, typer.Option(help="Name of the model: lower-case letters, digits and _.")],
    table: Annotated[
        str, typer.Option(help="Path, pattern or URL of files, or postgresql://user@host/shop#payments (no password).")
    ],
    target: Annotated[str, typer.Option(help="Column that holds the true value.")],
    time: Annotated[str, typer.Option(help="Column of the event time; without it the table is a snapshot.")] = "",
    key: Annotated[str, typer.Option(help="Column that identifies a row (default: guessed).")] = "",
    task: Annotated[
        Literal["binary", "multiclass", "regression"] | None, typer.Option(help="Kind of target (default: guessed).")
    ] = None,
    header: Annotated[
        int, typer.Option(show_default=False, help="Line of the column names, from 1 (default: guessed).")
    ] = 0,
    forecast: Annotated[str, typer.Option(help="Forecast the target so far ahead, e.g. 24h or 7d.")] = "",
    series: Annotated[
        str, typer.Option(help="Column that tells the series of a forecast apart (default: guessed).")
    ] = "",
) -> None:
    """Write a model folder from a table."""
    from resources.settings import project_root
    from scaffold.new_model import new_model as write_folder
    from scaffold.report import format_report
    from scaffold.tables import ScaffoldError

    root = project_root()
    with reported("assetline new-model", ScaffoldError):
        written = write_folder(
            root, name, table, target, time=time, key=key, task=task or "", header=header, forecast=forecast,
            series=series,
        )  # fmt: skip
        print(format_report(written, root))


@app.command(epilog="Example: `assetline remove-model --name fraud`")
def remove_model(
    name: Annotated[str, typer.Option(help="Name of the model folder.")],
    force: Annotated[bool, typer.Option("--force", help="Remove it even if git could not restore it.")] = False,
) -> None:
    """Remove a model folder and the tests that depend on it."""
    from resources.settings import project_root
    from scaffold.remove_model import remove_model as remove_folder
    from scaffold.tables import ScaffoldError

    with reported("assetline remove-model", ScaffoldError):
        for path in remove_folder(project_root(), name, force=force):
            print(f"removed {path}")
    print("Its data in the state folder (tables, versions, ledger) stays.")


@app.command(epilog="Example: `assetline update --from https://git.example.org/assetline.git --ref v2`")
def update(
    source: Annotated[
        str, typer.Option("--from", help="Address or path of the template (default: that of the last update).")
    ] = "",
    ref: Annotated[str, typer.Option(help="Branch, tag or commit of the template.")] = "main",
    base: Annotated[
        str, typer.Option(help="Commit of the template that this fork was made from, if git cannot find it.")
    ] = "",
) -> None:
    """Bring a newer template into this fork."""
    from resources.settings import project_root
    from scaffold.update import UpdateError, format_update
    from scaffold.update import update as merge_template

    with reported("assetline update", UpdateError):
        result = merge_template(project_root(), source, ref, base)
    print(format_update(result))
    raise typer.Exit(1 if result.conflicts else 0)


def _play(settings: Settings, name: str, *, until: dt.date | None, size: str, seed: int | None) -> None:
    """Plays the story of an example; default: the first. Raises ``RunError`` if there is none of that name."""
    import story
    from runner import RunError

    names = sorted(found for _, found, _ in pkgutil.iter_modules(story.__path__) if found != "playing")
    if not names:
        raise RunError("there is no story to play in story/; bring a model up to date with `assetline materialize`")
    name = name or ("fraud" if "fraud" in names else names[0])
    if name not in names:
        raise RunError(f"--model {name} has no story; these have one: {', '.join(names)}")
    importlib.import_module(f"story.{name}").play(settings, until=until, size=size, seed=seed)


def _materialize(settings: Settings, name: str) -> None:
    from runner import alone

    model = _declared(name)
    with alone(settings, lambda: model) as runner:
        runner.live(print)


def _tune(settings: Settings, name: str, budget: dict[str, Any]) -> None:
    """Runs the search with its log on the terminal, and prints the result as the UI shows it."""
    from assets.lifecycle.jobs import TUNE
    from runner import RunError, alone

    model = _declared(name)
    if model.ranking is not None:
        raise RunError(f"{name} is a ranking, which has no search; change width or epochs in its declaration")
    with alone(settings, lambda: model) as runner:
        if runner.tables.stamp(model.key("training_set")) is None:
            raise RunError(f"{name} has no training set yet; bring it up to date with `assetline materialize`")
        ops = {f"{name}__tuning": {"config": budget}}
        runner.run(TUNE, config={"ops": ops, "loggers": {"console": {"config": {"log_level": "INFO"}}}})
        event = runner.instance.get_latest_materialization_event(model.key("tuning"))
        assert event is not None
        assert event.asset_materialization is not None
        shown = event.asset_materialization.metadata
        print(f"\n{shown['best_trials'].value}\n\n{shown['result'].value}")


def _declared(name: str) -> Model:
    """Returns a declaration. Raises ``RunError`` if there is no such model or it is broken."""
    from assets.build import build
    from assets.models import read_folders
    from runner import RunError

    found, broken = read_folders()
    built, unbuildable = build(found)
    models = {one.model.name: one.model for one in built}
    reasons = {one.name: one.reason for one in (*broken, *unbuildable)}
    if name in reasons and name not in models:
        raise RunError(f"the model '{name}' is broken: {reasons[name]}")
    if name not in models:
        raise RunError(f"no model '{name}' is declared; the declared models are: {', '.join(models) or 'none'}")
    return models[name]
