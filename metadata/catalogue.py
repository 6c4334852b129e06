"""The catalogue: every table with its description, owner, columns, checks, source, freshness and size.

Belongs here: joining what the declarations say with what the files say. Does not belong here: the page
(``serving/watch/catalogue_page.py``), text output (``cli/catalogue.py``).

Nothing is typed twice. Description, owner, checks, kinds and tags are those of the Dagster asset. What a column means
and which values it may have is in the contract. Types are those in the latest file, and days, rows and times are those
of the files and their stamps.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID
from assets.lifecycle.factory import lifecycle_assets
from assets.personal import lineage_tags, tag_of_column
from metadata.table_sql import name_of
from resources.access import Access
from resources.tables import WHOLE, ParquetTables

MOST_VALUES = 8
"""Number of allowed values that a rule lists; of more it gives the number."""
_KIND = "dagster/kind/"


@dataclass(frozen=True, kw_only=True)
class CatalogueColumn:
    """A column: its name, its type in the latest file (empty without one), its meaning, and what the contract asks.

    ``personal`` says what it holds of a person and how that is protected; empty without a tag.
    """

    name: str
    type: str = ""
    meaning: str = ""
    rules: str = ""
    personal: str = ""


@dataclass(frozen=True, kw_only=True)
class CatalogueCheck:
    """A check of a table; ``blocking`` says whether it holds back the tables that are made from it."""

    name: str
    description: str
    blocking: bool


@dataclass(frozen=True, kw_only=True)
class CatalogueTable:
    """A table as it is declared, and as its files are now.

    Args:
        name: name in SQL, e.g. ``fraud.payments``.
        model: name of the model; empty for a table that no declared model has.
        declared: whether a declaration has it; if not, its files were left by an earlier one or by another project.
        description: what it holds.
        owner: who answers for it.
        group: group in the Dagster UI, e.g. ``fraud/data``.
        kinds, tags: kinds and tags of the asset.
        source: where landed rows come from; empty for a table that is made from others.
        reads: names of the tables that it is made from.
        checks: its checks.
        columns: its columns, in the order of the latest file.
        daily: whether it has a file for each day.
        expected: how old the latest day may be, if it is declared.
        days: number of days that have a file; for a table without days 1 or 0.
        first_day, latest_day: ISO days; ``None`` without files or without days.
        rows, bytes: sum over all files.
        written_at: time at which the latest of its files was written, UTC.
        data_version: hash of the rows of the latest day.
    """

    name: str
    model: str = ""
    declared: bool = False
    description: str = ""
    owner: str = ""
    group: str = ""
    kinds: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    reads: tuple[str, ...] = ()
    checks: tuple[CatalogueCheck, ...] = ()
    columns: tuple[CatalogueColumn, ...] = ()
    daily: bool = False
    expected: str = ""
    days: int = 0
    first_day: str | None = None
    latest_day: str | None = None
    rows: int = 0
    bytes: int = 0
    written_at: dt.datetime | None = None
    data_version: str = ""

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values."""
        return {**asdict(self), "written_at": self.written_at.isoformat() if self.written_at else None}


class Catalogue:
    """The catalogue of some tables. The declarations are read once, the files for each question.

    Args:
        tables: the tables.
        models: the declared models.
    """

    def __init__(self, tables: ParquetTables, models: Sequence[Model]) -> None:
        self._tables = tables
        self._models = models
        self._declared: dict[str, CatalogueTable] | None = None
        self._tags = {model.name: lineage_tags(model) for model in models}
        self._contracts = {model.name: _contract_columns(model) for model in models}

    def listing(self, access: Access | None = None) -> list[CatalogueTable]:
        """All declared tables in the order of the lifecycle, then tables that only have files.

        Args:
            access: whose view it is: tables and columns that are kept from that person are left out; ``None``: all.

        Raises:
            TableError: a file is damaged, or the tables cannot be read.
        """
        if self._declared is None:
            self._declared = {key: table for model in self._models for key, table in _declared_tables(model).items()}
        there = self._tables.names()
        without = {name: CatalogueTable(name=name_of(name)) for name in there if name not in self._declared}
        every = {**self._declared, **without}
        if access is None:
            return [self._with_files(key, table, key in there) for key, table in every.items()]
        kept = {name_of(key) for key in every if not access.sees(key)}
        return [
            _shown(self._with_files(key, table, key in there), key, kept, access)
            for key, table in every.items()
            if access.sees(key)
        ]

    def _with_files(self, table_key: str, table: CatalogueTable, has_files: bool) -> CatalogueTable:
        key = dg.AssetKey(table_key.split("/"))
        states = self._tables.states(key) if has_files else {}
        stamps = self._tables.stamps(key, states) if states else {}
        if not stamps:
            return replace(table, columns=self._columns(table, {}))
        latest = max(stamps)
        days = [day for day in stamps if day != WHOLE]
        return replace(
            table,
            columns=self._columns(table, self._tables.types(key, latest)),
            days=len(stamps),
            first_day=min(days, default=None),
            latest_day=max(days, default=None),
            rows=sum(stamp.rows for stamp in stamps.values()),
            bytes=sum(states[day].size for day in stamps),
            written_at=max(states[day].written_at for day in stamps),
            data_version=stamps[latest].data_version,
        )

    def _columns(self, table: CatalogueTable, types: Mapping[str, str]) -> tuple[CatalogueColumn, ...]:
        """The columns of a file with what the contract says of them; of the cleaned table without a file, its own."""
        contract = self._contracts.get(table.model, {})
        is_cleaned = any(table.name == f"{m.name}.{m.table.name}" for m in self._models)
        names = list(types) or ([name for name in contract if name not in _OWN] if is_cleaned else [])
        return tuple(
            replace(
                contract.get(name, CatalogueColumn(name=name)),
                type=types.get(name, ""),
                personal=str(tag_of_column(name, self._tags.get(table.model, {})) or ""),
                **({} if is_cleaned else {"rules": ""}),  # the contract is asked of the cleaned rows only
            )
            for name in names
        )


def _shown(table: CatalogueTable, key: str, kept: set[str], access: Access) -> CatalogueTable:
    """A table without the columns that are kept from a person, and without the names of tables that are."""
    hidden = set(access.hidden_among(key, [column.name for column in table.columns]))
    return replace(
        table,
        columns=tuple(column for column in table.columns if column.name not in hidden),
        reads=tuple(name for name in table.reads if name not in kept),
    )


def _declared_tables(model: Model) -> dict[str, CatalogueTable]:
    """The tables of a model by key, as they are declared."""
    found: dict[str, CatalogueTable] = {}
    landed = set() if model.table.of else {model.key(f"raw_{model.table.name}"), model.key("raw_labels")}
    for asset in lifecycle_assets(model):
        for spec in asset.specs:
            checks = [one for one in asset.check_specs if one.asset_key == spec.key]
            key = spec.key.to_user_string()
            found[key] = CatalogueTable(
                name=name_of(key),
                model=model.name,
                declared=True,
                description=spec.description or "",
                owner=", ".join(spec.owners),
                group=spec.group_name or "",
                kinds=tuple(sorted(spec.kinds)),
                tags={name: value for name, value in spec.tags.items() if not name.startswith(_KIND)},
                source=_source(model) if spec.key in landed else "",
                reads=tuple(name_of(one.asset_key.to_user_string()) for one in spec.deps),
                checks=tuple(
                    CatalogueCheck(name=one.name, description=one.description or "", blocking=one.blocking)
                    for one in checks
                ),
                daily=spec.partitions_def is not None,
                expected=_expected(spec.freshness_policy),
            )
    return found


def _source(model: Model) -> str:
    """The class of a source and the first line of its description. Its fields are left out, some hold secrets."""
    source = model.table.source
    if isinstance(source, dg.AssetKey):
        return f"the asset {source.to_user_string()}"
    about = (type(source).__doc__ or "").strip().splitlines()
    return f"{type(source).__name__}: {about[0].replace('``', '')}" if about else type(source).__name__


def _expected(policy: Any) -> str:
    window = getattr(policy, "fail_window", None)
    hours = window.to_timedelta().total_seconds() / 3600 if window is not None else 0
    return f"made again within {hours:g} hours" if hours else ""


def _contract_columns(model: Model) -> dict[str, CatalogueColumn]:
    """What the contract says of each column."""
    found = {name: CatalogueColumn(name=name, meaning=meaning) for name, meaning in _OWN.items()}
    for name, column in model.table.contract.to_schema().columns.items():
        rules = ["the key"] if name == model.table.key else []
        rules += ["may be missing"] if column.nullable else []
        rules += ["unique"] if column.unique and name != model.table.key else []
        rules += [_rule(check) for check in column.checks]
        found[name] = CatalogueColumn(name=name, meaning=column.description or "", rules=", ".join(rules))
    if model.target not in found:
        found[model.target] = CatalogueColumn(name=model.target, meaning="The target.")
    elif not found[model.target].meaning:
        found[model.target] = replace(found[model.target], meaning="The target.")
    return found


_OWN = {
    ROW_ID: "Identifies the landed row.",
    LANDING_DAY: "The day on which the row landed.",
    "version": "The version of the model that scored the row.",
}
"""Columns that the lifecycle adds, and what they mean."""

_SIGNS = {
    "greater_than": (">", "min_value"), "greater_than_or_equal_to": ("≥", "min_value"),
    "less_than": ("<", "max_value"), "less_than_or_equal_to": ("≤", "max_value"), "equal_to": ("=", "value"),
    "not_equal_to": ("≠", "value"),
}  # fmt: skip


def _rule(check: Any) -> str:
    """A check of pandera as text."""
    values = check.statistics or {}
    if check.name in _SIGNS:
        sign, of = _SIGNS[check.name]
        return f"{sign} {_number(values[of])}"
    if check.name == "isin":
        allowed = [str(value) for value in values["allowed_values"]]
        return f"one of {', '.join(allowed)}" if len(allowed) <= MOST_VALUES else f"one of {len(allowed):,} values"
    if check.name == "in_range":
        return f"from {_number(values['min_value'])} to {_number(values['max_value'])}"
    return str(check.description or check.error or check.name)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
