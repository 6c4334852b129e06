"""What the project knows of the questions of GDPR, art. 30(1), and of the EU AI Act, annex IV, for one model.

Belongs here: the questions in our own words, the facts that they need, and the pure function from facts to rows. Does
not belong here: text and files (``cli/compliance.py``), the page (``serving/watch/compliance_page.py``), and any
judgement of whether an answer suffices.

Each answer is a fact of the state or of the declaration, with the place where it is. What nothing says is not known,
and the answer then names the field or the command that would say it. No answer is a default text.
"""

from __future__ import annotations

import datetime as dt
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg

from assets.declaration import Compliance, Model
from assets.metrics import METRICS
from assets.personal import Tag, raw_tags_of
from metadata.facts import Metadata, MetadataError
from metadata.views import (
    AlertRow,
    CheckRow,
    DataVersionRow,
    DeploymentRow,
    MetricRow,
    ParamRow,
    VerdictRow,
    VersionRow,
)
from metadata.wording import days_in_words, figure_in_words
from resources.audit import AuditLog
from resources.ledger import action_in_words
from resources.retention import Retention
from resources.service_tokens import TokenError, TokenFile
from resources.tables import TableError
from resources.tombstones import Tombstone, TombstoneError, Tombstones

GDPR = "GDPR, Art. 30(1)"
AI_ACT = "EU AI Act, Annex IV"
MONITORING = ("drift", "performance", "estimated_performance", "requests")
"""Assets whose checks watch a version in use."""
MOST_EXPORTS = 1_000
"""Exports that are counted; more are "1,000 or more"."""


@dataclass(frozen=True)
class Answer:
    """A part of an answer.

    Attributes:
        about: what it is about.
        text: what is known; empty: not known.
        source: the field, command or file that says it, or that would say it.
        link: path of the page of the watch that shows it; empty: none.
    """

    about: str
    text: str
    source: str
    link: str = ""

    @property
    def known(self) -> bool:
        """Whether anything says it."""
        return bool(self.text)


@dataclass(frozen=True)
class Row:
    """An item of one of the two lists, with its question and the parts of the answer."""

    law: str
    item: str
    question: str
    answers: tuple[Answer, ...]

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values; what is not known is null."""
        parts = [{**asdict(one), "text": one.text or None} for one in self.answers]
        return {"law": self.law, "item": self.item, "question": self.question, "answers": parts}


@dataclass(frozen=True, kw_only=True)
class ComplianceFacts:
    """What the answers are made of.

    Attributes:
        model: name of the model.
        declared: its declaration; ``None`` if no folder declares it.
        tags: the tags by column, without columns that are kept from the person.
        kept_tags: number of tagged columns that are kept from the person.
        version: the version in production, else the latest; ``None`` without a version.
        versions: number of versions.
        runtime: packages, Python and processor of its training; empty without a record.
        params, verdicts, figures, data: of this version.
        privacy: what its training spent of differential privacy, by metric; empty without.
        gaps: the largest differences between groups, as in ``evaluation.json``.
        entries: the ledger's entries of the model, oldest first.
        checks: results of the checks of :data:`MONITORING`, oldest first.
        alerts: the alerts of the model.
        encrypted: by table with files, whether its latest file is encrypted.
        encrypt, secure: the settings.
        store: where tables are kept.
        retention: the periods.
        pruned_at: time of the last removal by ``assetline prune``; ``None`` if none is recorded.
        audit_lines: number of lines of the audit log; ``None`` without a log.
        audit_until: time of its last line.
        exports: times of the recorded exports of the model's rows, oldest first.
        holders: number of tokens and people who may do something with the model, by role.
        people_listed: whether the token file has people; without, every user of the machine may run every command.
        forgotten: tombstones of people whose rows the model's table had.
    """

    model: str
    declared: Model | None = None
    tags: Mapping[str, Tag] = field(default_factory=dict)
    kept_tags: int = 0
    version: VersionRow | None = None
    versions: int = 0
    runtime: Mapping[str, Any] = field(default_factory=dict)
    params: Sequence[ParamRow] = ()
    verdicts: Sequence[VerdictRow] = ()
    figures: Sequence[MetricRow] = ()
    privacy: Mapping[str, float] = field(default_factory=dict)
    data: Sequence[DataVersionRow] = ()
    gaps: Sequence[Mapping[str, Any]] = ()
    entries: Sequence[DeploymentRow] = ()
    checks: Sequence[CheckRow] = ()
    alerts: Sequence[AlertRow] = ()
    encrypted: Mapping[str, bool] = field(default_factory=dict)
    encrypt: bool = False
    secure: bool = False
    store: str = ""
    retention: Retention
    pruned_at: str | None = None
    audit_lines: int | None = None
    audit_until: str = ""
    exports: Sequence[str] = ()
    holders: Mapping[str, int] = field(default_factory=dict)
    people_listed: bool = False
    forgotten: Sequence[Tombstone] = ()


# -- the rows ---------------------------------------------------------------------------------------------------------

Answers = Iterator[Answer]

PRIVACY = "privacy."
"""Prefix of the metrics of a training run that say what it spent of differential privacy."""


def compliance_rows(facts: ComplianceFacts) -> list[Row]:
    """One row for each item of the two lists, in their order."""
    return [Row(law, item, question, tuple(answer(facts))) for law, item, question, answer in ITEMS]


def _declared(facts: ComplianceFacts, about: str, name: str) -> Answer:
    """What only people know."""
    compliance = facts.declared.compliance if facts.declared else Compliance()
    return _field(facts, about, getattr(compliance, name), f"compliance=Compliance({name}=…)")


def _field(facts: ComplianceFacts, about: str, text: str, name: str, link: str = "") -> Answer:
    """What a field of the declaration says."""
    source = f"Model({name})" if facts.declared else f"no declaration: write assets/models/{facts.model}"
    return Answer(about, text.strip(), source, link)


def _responsible(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "controller", "controller")
    yield _declared(facts, "contact", "contact")
    yield _field(facts, "owner of the model", facts.declared.owner if facts.declared else "", "owner=…")


def _purpose(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "purpose", "purpose")
    yield _declared(facts, "legal basis (Art. 6)", "legal_basis")
    yield _field(
        facts, "model", facts.declared.description if facts.declared else "", "description=…", _versions(facts)
    )


def _categories(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "people", "people")
    tagged = "; ".join(f"{name}: {tag}" for name, tag in sorted(facts.tags.items()))
    if facts.kept_tags:
        tagged = f"{tagged}{'; ' if tagged else ''}{facts.kept_tags} more, kept from you"
    yield Answer("columns with a tag", tagged, "personal(…) in the contract", _catalogue(facts))


def _recipients(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "recipients", "recipients")
    yield _holders(facts)
    targets = ", ".join(facts.declared.targets) if facts.declared else ""
    yield _field(facts, "versions go to", targets, "targets=…")
    exports = ""
    if facts.audit_lines is not None:
        count = f"{len(facts.exports):,}{' or more' if len(facts.exports) >= MOST_EXPORTS else ''}"
        exports = f"{count}, the last on {facts.exports[-1]} UTC" if facts.exports else "none is recorded"
    yield Answer(
        "commands that export its rows", exports, "assetline audit list --action export", "/audit?action=export"
    )


def _transfers(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "transfers", "transfers")
    yield Answer("tables are kept in", facts.store, "ASSETLINE_TABLES")


def _time_limits(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "time limits", "time_limits")
    keep = facts.retention
    periods = (
        f"log of requests {_days(keep.request_days)}, resolved alerts {_days(keep.alert_days)}, versions that the "
        f"ledger does not name {_days(keep.version_days)}, runs {_days(keep.run_days)}"
    )
    yield Answer("periods of assetline prune", periods, "RETENTION in resources/defaults.py")
    limited = {name: days for name, days in keep.table_days.items() if name in facts.encrypted}
    parts = [f"{name} {_days(days)}" for name, days in sorted(limited.items())]
    if others := sorted(set(facts.encrypted) - set(limited)):
        parts.append(f"without a period: {', '.join(others)}")
    yield Answer("tables", "; ".join(parts), "Retention(table_days=…) in resources/defaults.py", _catalogue(facts))
    pruned = ""
    if facts.audit_lines is not None:
        pruned = f"{facts.pruned_at} UTC" if facts.pruned_at else "none is recorded"
    yield Answer("last removal by assetline prune", pruned, "assetline prune --yes", "/audit?action=delete")
    yield _forgotten(facts)


def _measures(facts: ComplianceFacts) -> Answers:
    changed = [name for name, tag in facts.tags.items() if tag.protects]
    protected = (
        f"{len(changed)} of {len(facts.tags)} columns with a tag are stored in another form" if facts.tags else ""
    )
    yield Answer("personal columns", protected, "personal(…) in the contract", _catalogue(facts))
    files = sum(facts.encrypted.values())
    stored = f"; of {len(facts.encrypted)} tables, {files} have an encrypted latest file" if facts.encrypted else ""
    setting = f"{'on' if facts.encrypt else 'off'} for new files{stored}"
    yield Answer("encryption at rest", setting, "ASSETLINE_ENCRYPT of this process")
    login = "on" if facts.secure else "off"
    yield Answer("login before Dagster's and MLflow's UI", login, "ASSETLINE_SECURE of this process")
    yield _holders(facts)
    lines = "" if facts.audit_lines is None else f"{_count(facts.audit_lines, 'line')} to {facts.audit_until} UTC"
    yield Answer("audit log", lines, "assetline audit verify", "/audit")
    yield _forgotten(facts)


def _general(facts: ComplianceFacts) -> Answers:
    model, version = facts.declared, facts.version
    yield _field(facts, "intended purpose", model.card.intended_use if model else "", "card=Card(intended_use=…)")
    yield _declared(facts, "provider", "provider")
    yield _version(facts)
    software = hardware = ""
    if version and facts.runtime:
        packages = facts.runtime.get("packages", {})
        named = [f"{name} {packages[name]}" for name in ("torch", "xgboost-cpu", "pandas") if packages.get(name)]
        commit = version.git_commit  # or the reason why it is not known
        commit = commit[:8] if set(commit) <= set(string.hexdigits) else commit
        changed = ", with uncommitted changes" if version.git_dirty else ""
        software = f"Python {facts.runtime['python']}, {', '.join(named)}; commit {commit}{changed}"
        threads = _count(facts.runtime["threads"], "thread")
        hardware = f"trained on {facts.runtime['machine']}, {facts.runtime['cpu']}, {threads}"
    yield Answer("software", software, "runtime.json of the version", _page(facts))
    yield Answer("hardware", hardware, "runtime.json of the version", _page(facts))
    yield _field(facts, "runs as", ", ".join(model.targets) if model else "", "targets=…")
    yield _limits(facts)


def _development(facts: ComplianceFacts) -> Answers:
    model, version, data = facts.declared, facts.version, ""
    recipe = f"{_count(len(facts.params), 'parameter')}; code {version.code}" if version and facts.params else ""
    yield _of_version(facts, "recipe", recipe, "lineage", f"/views/params?model={facts.model}")
    if version and version.data_version:
        of_rows = "" if version.rows is None else f"{version.rows:,} rows, "
        fit = f", fit {version.fit_days}" if version.fit_days else ""
        data = f"{of_rows}data version {version.data_version}{fit}"
    yield _of_version(facts, "training data", data, "lineage", _page(facts))
    days: dict[str, list[str]] = {}
    for one in facts.data:
        days.setdefault(one.table_name, []).append(one.day)
    origin = "; ".join(f"{name} of {days_in_words(sorted(of))}" for name, of in sorted(days.items()))
    if origin:
        changed = sum(one.changed for one in facts.data)
        origin += f"; {changed} of {len(facts.data)} days have changed since" if changed else "; none has changed since"
    yield _of_version(facts, "its tables and days", origin, "lineage", _page(facts))
    contract = labels = ""
    if model:
        contract = f"{len(model.table.columns)} columns in the contract; rows that break it are kept apart"
        labels = f"column {model.target}, "
        labels += f"known after {_days(model.label_delay_days)}" if model.label_delay_days else "in the table"
    yield _field(facts, "cleaning", contract, "table=Table(contract=…)", _catalogue(facts))
    yield _field(facts, "labels", labels, "target=…, label_delay_days=…")
    yield _privacy(facts)
    yield _oversight(facts)
    yield _tests(facts)


def _control(facts: ComplianceFacts) -> Answers:
    yield _accuracy(facts)
    slices = {one.slice: "not measured" for one in facts.figures if one.slice}
    slices |= {one.slice: _estimate(one) for one in facts.figures if one.slice and one.metric == _metric(facts)}
    parts = "; ".join(f"{name}: {figure}" for name, figure in slices.items())
    if facts.declared and facts.declared.evaluation.slices is not None:
        yield _of_version(facts, "by slice", parts, "card", _page(facts))
    else:
        yield _field(facts, "by slice", parts, "evaluation=Evaluation(slices=…)", _page(facts))
    gaps = "; ".join(
        f"{gap['column']}, {gap['figure'].replace('_', ' ')}: {figure_in_words(gap['gap'])} "
        f"({figure_in_words(gap['low'])} to {figure_in_words(gap['high'])}) between {gap['worst_group']} and "
        f"{gap['best_group']}"
        for gap in facts.gaps
        if gap["gap"] is not None
    )
    if facts.declared and facts.declared.evaluation.groups:
        yield _of_version(facts, "by group", gaps, "card", _page(facts))
    else:
        yield _field(facts, "by group", gaps, "evaluation=Evaluation(groups=…)", _page(facts))
    yield _limits(facts)
    yield _oversight(facts)


def _metrics(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "why these metrics", "metrics")
    metric = _metric(facts)
    asked = ""
    if facts.declared:
        gate = facts.declared.gate
        worst = "at most" if METRICS[metric].lower_is_better else "at least"
        asked = f"{METRICS[metric].label}, {worst} {figure_in_words(gate.floor)}; "
        asked += f"at most {figure_in_words(-gate.margin)} worse than" if gate.margin else "better than"
        asked += " the version in production"
        asked += "; it only advises" if gate.mode == "advise" else ""
    yield _field(facts, "the gate asks for", asked, "gate=Gate(metric=…, floor=…, margin=…)")
    yield _accuracy(facts)


def _risks(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "risk management (Art. 9)", "risks")


def _changes(facts: ComplianceFacts) -> Answers:
    counts = Counter(action_in_words(one.action) for one in facts.entries)
    said = ", ".join(f"{n} {name}" for name, n in counts.items())
    last = f"; the last: version {facts.entries[-1].version}, {facts.entries[-1].at} UTC" if facts.entries else ""
    yield Answer(
        "decisions", said + last, f"assetline history {facts.model}", f"/views/deployments?model={facts.model}"
    )
    versions = f"{facts.versions} registered" if facts.versions else ""
    yield Answer("versions", versions, f"assetline versions {facts.model}", _versions(facts))


def _standards(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "standards", "standards")


def _conformity(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "EU declaration of conformity (Art. 47)", "declaration")


def _in_use(facts: ComplianceFacts) -> Answers:
    yield _declared(facts, "plan (Art. 72)", "monitoring")
    results: dict[str, list[CheckRow]] = {}
    for one in facts.checks:
        results.setdefault(f"{one.asset}/{one.check_name}", []).append(one)
    link = f"/views/checks?model={facts.model}"
    said = "; ".join(
        f"{name}: {_count(len(of), 'result')}, {sum(not one.passed for one in of):,} failed, the last "
        f"{'passed' if of[-1].passed else 'failed'}{f' for {of[-1].day}' if of[-1].day else ''}"
        for name, of in sorted(results.items())
    )
    yield Answer("checks", said, f"assetline materialize --model {facts.model}", link)
    unresolved = sum(one.state != "resolved" for one in facts.alerts)
    alerts = f"{len(facts.alerts):,}, {unresolved:,} not resolved" if facts.alerts else "none is recorded"
    yield Answer("alerts", alerts, "assetline alerts list", f"/?model={facts.model}&state=all")
    schedule = facts.declared.retrain if facts.declared else None
    retrain = f"by the schedule {schedule}, UTC" if schedule else "without a schedule" if facts.declared else ""
    yield _field(facts, "training again", retrain, "retrain=…")


ITEMS: tuple[tuple[str, str, str, Callable[[ComplianceFacts], Answers]], ...] = (
    (GDPR, "(a)", "Who is responsible, and how can they be reached?", _responsible),
    (GDPR, "(b)", "What are the data processed for?", _purpose),
    (GDPR, "(c)", "Whose data are they, and of which kinds?", _categories),
    (GDPR, "(d)", "Who receives them?", _recipients),
    (GDPR, "(e)", "Do they go to third countries or international organisations, with which safeguards?", _transfers),
    (GDPR, "(f)", "When are they erased?", _time_limits),
    (GDPR, "(g)", "How are they protected?", _measures),
    (AI_ACT, "1", "What is the system, who provides it, and what does it need?", _general),
    (AI_ACT, "2", "How was it made, from which data, and how was it tested?", _development),
    (AI_ACT, "3", "How well does it work, for whom less well, and who controls it?", _control),
    (AI_ACT, "4", "Why do the performance metrics suit it?", _metrics),
    (AI_ACT, "5", "How are risks managed?", _risks),
    (AI_ACT, "6", "What was changed over its life?", _changes),
    (AI_ACT, "7", "Which harmonised standards were applied, or what instead?", _standards),
    (AI_ACT, "8", "Where is the EU declaration of conformity?", _conformity),
    (AI_ACT, "9", "How is it watched in use?", _in_use),
)
"""Law, item, question, and what answers it."""


# -- parts that several items have ------------------------------------------------------------------------------------


def _privacy(facts: ComplianceFacts) -> Answer:
    """A version without it was trained without noise, which is a fact; no version, and nothing is known."""
    said = "not used" if facts.version else ""
    if facts.privacy:
        epsilon, delta = (facts.privacy[f"{PRIVACY}{name}"] for name in ("epsilon", "delta"))
        said = f"epsilon {epsilon:.4g} spent on the weights, delta {delta:g}"
    return _of_version(facts, "differential privacy", said, "card", _page(facts))


def _holders(facts: ComplianceFacts) -> Answer:
    said = ", ".join(_count(n, role) for role, n in facts.holders.items()) or "none"
    said += "" if facts.people_listed else "; every user of the machine may run every command"
    return Answer("named tokens and people", said, "assetline token list")


def _forgotten(facts: ComplianceFacts) -> Answer:
    if facts.declared is None:  # the tables of the model are not known
        return _field(facts, "removed on request", "", "")
    done = [one for one in facts.forgotten if one.state == "done"]
    begun = len(facts.forgotten) - len(done)
    said = "nobody"
    if done:
        said = (
            f"{len(done):,} {'person' if len(done) == 1 else 'people'}, the last on {max(one.at for one in done)[:10]}"
        )
    said += f"; {begun} begun and not finished" if begun else ""
    return Answer("removed on request", said, "assetline forget --entity COLUMN=VALUE")


def _version(facts: ComplianceFacts) -> Answer:
    said = ""
    if facts.version:
        promoted = [one for one in facts.entries if one.action == "promote" and one.version == facts.version.version]
        said = f"version {facts.version.version}, {facts.version.status}"
        if facts.version.status == "production":
            before = f", after version {promoted[-1].previous}" if promoted[-1].previous else ""
            said = f"version {facts.version.version}, in production since {promoted[-1].at} UTC{before}"
    return Answer("version", said, f"assetline versions {facts.model}", _page(facts))


def _limits(facts: ComplianceFacts) -> Answer:
    limits = " ".join(facts.declared.card.limits) if facts.declared else ""
    return _field(facts, "limits", limits, "card=Card(limits=…)")


def _oversight(facts: ComplianceFacts) -> Answer:
    model, said = facts.declared, ""
    if model:
        said = "no person has to approve a version"
        if model.approval:
            other = ", not who trained it" if model.approval.four_eyes else ""
            said = f"{model.approval.by} approves each version{other}"
    return _field(facts, "decision by people", said, "approval=…", f"/views/deployments?model={facts.model}")


def _tests(facts: ComplianceFacts) -> Answer:
    parts = [f"{one.rule or one.verdict} {'passed' if one.passed else 'failed'}" for one in facts.verdicts]
    return _of_version(facts, "tests before use", ", ".join(parts), "lineage", f"/views/verdicts?model={facts.model}")


def _accuracy(facts: ComplianceFacts) -> Answer:
    metric, said = _metric(facts), ""
    own = [one for one in facts.figures if one.score == "torch" and not one.slice and one.metric == metric]
    if own:
        said = f"{METRICS[metric].label} {_estimate(own[0])} on {own[0].rows:,} test rows"
    return _of_version(facts, "accuracy", said, "card", _page(facts))


def _metric(facts: ComplianceFacts) -> str:
    """The metric of the gate; of a model without a declaration the first one that was measured."""
    if facts.declared:
        return facts.declared.gate.metric
    there = {one.metric for one in facts.figures}
    return next((name for name in METRICS if name in there), "")


def _estimate(one: MetricRow) -> str:
    between = (
        "" if one.low is None or one.high is None else f" ({figure_in_words(one.low)} to {figure_in_words(one.high)})"
    )
    return f"{figure_in_words(one.value)}{between}"


def _of_version(facts: ComplianceFacts, about: str, text: str, command: str, link: str) -> Answer:
    """What is stored of the version; if nothing is, a run of the lifecycle stores it."""
    if facts.version is None or not text:
        return Answer(about, "", f"assetline materialize --model {facts.model}")
    model = facts.model if command == "card" else f"--model {facts.model}"
    return Answer(about, text, f"assetline {command} {model} --version {facts.version.version}", link)


def _page(facts: ComplianceFacts) -> str:
    return f"/versions/{facts.model}/{facts.version.version}" if facts.version else _versions(facts)


def _versions(facts: ComplianceFacts) -> str:
    return f"/versions?model={facts.model}"


def _catalogue(facts: ComplianceFacts) -> str:
    return f"/catalogue?model={facts.declared.lander if facts.declared else facts.model}"


def _days(n: int) -> str:
    return _count(n, "day")


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


# -- the facts --------------------------------------------------------------------------------------------------------


def read_compliance(metadata: Metadata, model: str, retention: Retention) -> ComplianceFacts:
    """Reads the facts of a model, without what is kept from the person of ``metadata``.

    Args:
        metadata: the facts of the state folder.
        model: name of the model.
        retention: the periods of ``assetline prune``.

    Raises:
        UnknownError: there is no such model.
        MetadataError: a file that the answers need cannot be read.
    """
    declared, settings = metadata.declared.get(model), metadata.settings
    versions = metadata.rows("versions", model)
    version = next((one for one in versions if one.status == "production"), versions[-1] if versions else None)
    tags = raw_tags_of(declared) if declared else {}
    kept = _kept_from_person(metadata, declared, tags)
    report = metadata.evaluation_of(model, version.version) if version else {}
    gaps = report.get("details", {}).get("fairness", [])
    kept_groups = _kept_from_person(metadata, declared, [gap["column"] for gap in gaps])
    try:
        tables = metadata.tables_of(model)
        encrypted = {name: _is_encrypted(metadata, name) for name in tables}
        forgotten = [one for one in Tombstones.read(metadata.tables.files).people if set(one.keys) & _cleaned(declared)]
        holders, people = _holders_of(metadata, model)
    except (TableError, TombstoneError, TokenError) as error:
        raise MetadataError(str(error)) from error
    kind, is_url, _ = settings.tables.partition("://")
    of_version = _of(metadata.rows("metrics", model), version)
    return ComplianceFacts(
        model=model, declared=declared, tags={name: tag for name, tag in tags.items() if name not in kept},
        kept_tags=len(kept), version=version, versions=len(versions),
        runtime=metadata.runtime_of(version) if version else {},
        params=_of(metadata.rows("params", model), version), verdicts=_of(metadata.rows("verdicts", model), version),
        figures=[one for one in of_version if one.measured_on == "test"],
        privacy={one.metric: one.value for one in of_version if one.metric.startswith(PRIVACY)},
        data=_of(metadata.rows("data_versions", model), version),
        gaps=[gap for gap in gaps if gap["column"] not in kept_groups],
        entries=metadata.rows("deployments", model),
        checks=[one for one in metadata.rows("checks", model) if one.asset in MONITORING],
        alerts=metadata.rows("alerts", model), encrypted=encrypted, encrypt=settings.encrypt, secure=settings.secure,
        store=f"a bucket ({kind})" if is_url else "a folder of this machine", retention=retention, holders=holders,
        people_listed=people, forgotten=forgotten, **_of_audit_log(metadata, model),
    )  # fmt: skip


def _of(rows: Iterable[Any], version: VersionRow | None) -> list[Any]:
    return [row for row in rows if version is not None and row.version == version.version]


def _kept_from_person(metadata: Metadata, declared: Model | None, columns: Iterable[str]) -> set[str]:
    """The columns of the raw or the cleaned table that the person may not see."""
    if declared is None:
        return set()
    names = list(columns)
    tables = [f"{declared.lander}/{name}" for name in (declared.table.name, f"raw_{declared.table.name}")]
    return {name for table in tables for name in metadata.hidden_among(table, names)}


def _cleaned(declared: Model | None) -> set[str]:
    return {f"{declared.lander}/{declared.table.name}"} if declared else set()


def _is_encrypted(metadata: Metadata, table: str) -> bool:
    key = dg.AssetKey(table.split("/"))
    return bool(metadata.tables.keys_of(key, metadata.tables.days(key)[-1]))


def _holders_of(metadata: Metadata, model: str) -> tuple[dict[str, int], bool]:
    file = TokenFile(metadata.settings.service_tokens, metadata.settings.first_service_token)
    if not file.path.exists():
        return {}, False
    now, people = dt.datetime.now(dt.UTC), file.people()
    everyone = [*people.values(), *(one.access for one in file.read().values() if not one.has_expired(now))]
    counts = Counter(one.role for one in everyone if one.models is None or model in one.models)
    return dict(sorted(counts.items())), bool(people)


def _of_audit_log(metadata: Metadata, model: str) -> dict[str, Any]:
    if not metadata.has_database():
        return {}
    log = AuditLog(metadata.settings.database_url)
    last = log.latest(1)
    if not last:
        return {}
    pruned = log.latest(1, action="delete", subject="state folder")
    # A command without the name of the model is recorded as `*`: it may have been this one.
    exports = [*log.latest(MOST_EXPORTS, action="export", subject=model),
               *log.latest(MOST_EXPORTS, action="export", subject="*")]  # fmt: skip
    return {
        "audit_lines": last[0].number, "audit_until": _moment(last[0].at),
        "pruned_at": _moment(pruned[0].at) if pruned else None, "exports": sorted(_moment(one.at) for one in exports),
    }  # fmt: skip


def _moment(at: str) -> str:
    return at[:19].replace("T", " ")
