"""Tags of personal and sensitive columns, and how each one is protected before anything is stored.

    class Customers(pa.DataFrameModel):
        email: Series[str] = pa.Field(metadata=personal("email"))
        age: Series[int] = pa.Field(ge=0, metadata=personal("age", width=10))
        smokes: Series[bool] = pa.Field(metadata=sensitive(protect="keep", reason="the premium depends on it"))

    Table(…, raw_tags={
        "E-Mail": personal("email", column="email"),      # `clean` makes the column `email` of it
        "Notes": personal("text", protect="drop"),        # not in the contract
    })

Belongs here: the kinds and the protections that there are, the tags of a declaration, and refusing those that cannot
work. Does not belong here: what a protection does to a value (``protections.py``), where it is applied
(``assets/lifecycle/data/protection.py``).
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from assets.declaration import Model, Table

Protect = Literal["pseudonym", "mask", "band", "prefix", "region", "redact", "drop", "keep"]
PROTECTIONS: tuple[Protect, ...] = get_args(Protect)

KINDS: Mapping[str, Protect] = MappingProxyType({
    "id": "pseudonym",
    "name": "pseudonym",
    "email": "pseudonym",
    "phone": "pseudonym",
    "national_id": "pseudonym",
    "iban": "pseudonym",
    "card": "pseudonym",
    "ip": "pseudonym",
    "address": "drop",
    "postcode": "prefix",
    "birth_date": "band",
    "age": "band",
    "text": "redact",
})  # fmt: skip
"""Kinds of personal data, and the protection of each if none is given."""

SENSITIVE = "sensitive"
"""The kind of :func:`sensitive`."""

METADATA = "personal"
"""Key of a tag in pandera's metadata."""

WIDTH = 10
"""Width of a band if none is given: ten years of an age or of a birth date."""
PREFIX = 2
"""Length of a prefix if none is given."""

By = Literal["patterns", "presidio"]
"""What finds personal data in free text."""


class TagError(Exception):
    """A tag cannot work. The message is the fix."""


@dataclass(frozen=True)
class Tag:
    """What a column holds of a person, and how it is protected.

    Attributes:
        kind: one of :data:`KINDS`, or :data:`SENSITIVE`.
        sensitive: whether the value says something that is nobody's business, e.g. about health.
        protect: one of :data:`PROTECTIONS`.
        reason: why the column is kept as it is; needed with ``keep``.
        width: width of a band, in units of the number or in years.
        length: number of characters of a prefix.
        regions: region by beginning of the value, e.g. of a postcode.
        column: for a column of the raw table: the column of the contract that ``clean`` makes of it.
        by: what finds personal data in free text.
    """

    kind: str
    sensitive: bool = False
    protect: str = ""
    reason: str = ""
    width: float = WIDTH
    length: int = PREFIX
    regions: Mapping[str, str] = field(default_factory=dict)
    column: str = ""
    by: str = "patterns"

    @property
    def protects(self) -> bool:
        """Whether the stored value differs from the one that came."""
        return self.protect != "keep"

    @property
    def shown(self) -> Mapping[str, str]:
        """The tag as a catalogue and Dagster's column schema show it."""
        kind = {"sensitive": ""} if self.kind == SENSITIVE else {"personal": self.kind}
        return {**kind, **({"sensitive": "yes"} if self.sensitive else {}), "protection": self.protect}

    def __str__(self) -> str:
        marked = "sensitive " if self.sensitive and self.kind != SENSITIVE else ""
        return f"{marked}{self.kind.replace('_', ' ')}, {_DONE[self.protect]}"


_DONE = {
    "pseudonym": "pseudonymised",
    "mask": "masked",
    "band": "in bands",
    "prefix": "its beginning only",
    "region": "its region only",
    "redact": "redacted",
    "drop": "dropped",
    "keep": "kept",
}


def personal(
    kind: str, protect: Protect | None = None, *, sensitive: bool = False, reason: str = "", width: float = WIDTH,
    length: int = PREFIX, regions: Mapping[str, str] = MappingProxyType({}), column: str = "", by: By = "patterns",
) -> dict[str, Any]:  # fmt: skip
    """The metadata of a column that holds something of a person: ``pa.Field(metadata=personal("email"))``.

    Nothing is checked here; a tag that cannot work is refused when the declaration loads.

    Args:
        kind: one of :data:`KINDS`.
        protect: one of :data:`PROTECTIONS`; default: that of the kind.
        sensitive: whether the value is sensitive as well.
        reason: why it is kept as it is; needed with ``keep``.
        width: with ``band``: its width, in units of the number, or in years of a date.
        length: with ``prefix``: the number of characters that stay.
        regions: with ``region``: region by beginning of the value; the longest beginning counts.
        column: in ``Table(raw_tags=…)``: the column of the contract that ``clean`` makes of it, if there is one.
        by: with ``redact``: ``patterns`` (part of the project), or ``presidio`` as well (``.[presidio]``).
    """
    return {
        METADATA: {
            "kind": kind, "sensitive": sensitive, "protect": protect or KINDS.get(kind, ""), "reason": reason,
            "width": width, "length": length, "regions": dict(regions), "column": column, "by": by,
        }
    }  # fmt: skip


def sensitive(protect: Protect, **given: Any) -> dict[str, Any]:
    """The metadata of a sensitive column that identifies nobody by itself, e.g. a diagnosis or a religion.

    The arguments are those of :func:`personal`. The protection has no default, because none suits all.
    """
    return personal(SENSITIVE, protect, sensitive=True, **given)


def tag_of(metadata: Mapping[str, Any] | None) -> Tag | None:
    """The tag in a column's metadata; ``None`` if it has none."""
    given = (metadata or {}).get(METADATA)
    if given is None:
        return None
    known = {one.name for one in fields(Tag)}
    if not isinstance(given, Mapping) or not set(given) <= known:
        raise TagError("write it with personal(…) or sensitive(…) of assets/personal.py")
    return Tag(**given)


def tags_of(model: Model) -> Mapping[str, Tag]:
    """The tags by column of the contract: those of the contract, and of raw columns that ``clean`` makes them of."""
    found = _of_contract(model.table)
    for tag in _of_raw(model.table).values():
        if tag.column:
            found.setdefault(tag.column, tag)
    return found


def raw_tags_of(model: Model) -> Mapping[str, Tag]:
    """The tags by column of the raw table."""
    return {**_of_contract(model.table), **_of_raw(model.table)}


def lineage_tags(model: Model) -> Mapping[str, Tag]:
    """The tags by column of any table of the lifecycle: raw, contract, and features by their origin.

    A feature of a function of one's own has the tag of its origin, if ``Features(origins=…)`` names it.
    """
    found = {**raw_tags_of(model), **tags_of(model)}
    if model.features is not None:
        origins = zip(model.features.names, model.features.explained, strict=True)
        found |= {name: found[origin] for name, origin in origins if origin in found}
    return found


def tag_of_column(name: str, tags: Mapping[str, Tag]) -> Tag | None:
    """The tag of a column of any table of the lifecycle, by its name; ``None`` if it has none.

    ``x_age`` is the feature ``age`` of a training set, ``row_age`` the column ``age`` of a request. ``plan=basic``,
    ``born.month`` and ``notes#3`` are default features of the columns before the sign.
    """
    for prefix in ("", "x_", "row_"):
        if name.startswith(prefix):
            inner = name.removeprefix(prefix)
            tag = tags.get(inner) or tags.get(re.split(r"[=.#]", inner, maxsplit=1)[0])
            if tag is not None:
                return tag
    return None


def is_protected(model: Model) -> bool:
    """Whether any column of a model's table is stored in another form than it comes in."""
    return any(tag.protects for tag in raw_tags_of(model).values())


def made_of(model: Model, raw: str) -> str | None:
    """The column of the contract that a tagged raw column becomes; ``None`` if there is none that is known."""
    columns = model.table.contract.to_schema().columns
    if raw in columns:
        return raw
    return _of_raw(model.table)[raw].column or None


def not_landed(model: Model, landed: Iterator[str] | list[str]) -> str | None:
    """A tagged column that did not land, and that no landed column stands for; ``None`` if there is none.

    Such a column may have landed under another name, and would then be stored as it came.
    """
    there = set(landed)
    raw_tags = _of_raw(model.table)
    stand_ins = {made_of(model, raw) for raw in raw_tags if raw in there}
    missing = (
        name for name, tag in _of_contract(model.table).items()
        if tag.protects and name not in there and name not in stand_ins
    )  # fmt: skip
    unseen = (name for name, tag in raw_tags.items() if tag.protects and name not in there)
    return next(itertools.chain(missing, unseen), None)


def _of_contract(table: Table) -> dict[str, Tag]:
    columns = table.contract.to_schema().columns
    found = {name: tag_of(column.metadata) for name, column in columns.items()}
    return {name: tag for name, tag in found.items() if tag is not None}


def _of_raw(table: Table) -> dict[str, Tag]:
    found = {name: tag_of(metadata) for name, metadata in table.raw_tags.items()}
    return {name: tag for name, tag in found.items() if tag is not None}


Wrong = Iterator[tuple[str, object, str]]
"""Field, value, and the fix."""


def wrong_tags(model: Model) -> Wrong:
    """What cannot work of the tags of a declaration: the field, its value, and the fix."""
    table = model.table
    schema = table.contract.to_schema()
    given: dict[str, tuple[str, Mapping[str, Any] | None]] = {
        name: (f"table.contract, column '{name}'", column.metadata) for name, column in schema.columns.items()
    }
    for name, metadata in table.raw_tags.items():
        where = f"table.raw_tags['{name}']"
        if name in schema.columns:
            yield where, name, "it is a column of the contract; tag it there"
        if not isinstance(metadata, Mapping) or METADATA not in metadata:
            yield where, metadata, 'give personal("…") or sensitive(…)'
        given[name] = (where, metadata)
    for name, (where, stated) in given.items():
        try:
            tag = tag_of(stated)
        except TagError as error:
            yield where, stated, str(error)
            return
        if tag is None:
            continue
        yield from ((where, value, mend) for value, mend in _wrong_tag(tag))
        if tag.column and (name in schema.columns or tag.column not in schema.columns):
            yield where, tag.column, f"`column` is for raw_tags, and names one of {', '.join(schema.columns)}"
        becomes = made_of(model, name)
        own = _of_contract(table).get(becomes or "")
        if becomes != name and own is not None and own.protect != tag.protect:
            yield where, tag.protect, f"its column '{becomes}' of the contract has {own.protect}; give both the same"
        if becomes is not None:
            yield from ((where, value, mend) for value, mend in _wrong_place(tag, becomes, model))
            from assets.protections import misfit

            if (hindrance := misfit(tag, schema.columns[becomes])) is not None:
                yield where, tag.protect, hindrance
    if tags := {name for name, tag in raw_tags_of(model).items() if tag.protects}:
        yield from _wrong_source(model, tags)


def _wrong_tag(tag: Tag) -> Iterator[tuple[object, str]]:
    if tag.kind not in (*KINDS, SENSITIVE):
        close = difflib.get_close_matches(str(tag.kind), KINDS, n=1)
        yield tag.kind, f"did you mean '{close[0]}'?" if close else f"the kinds are {', '.join(KINDS)}"
        return
    if tag.protect not in PROTECTIONS:
        close = difflib.get_close_matches(str(tag.protect), PROTECTIONS, n=1)
        known = f"the protections are {', '.join(PROTECTIONS)}"
        yield tag.protect, f"did you mean '{close[0]}'? {known}" if close else known
        return
    if tag.protect == "keep" and not tag.reason.strip():
        yield tag.protect, "give the reason why the column is kept as it is: reason=…"
    if not tag.width > 0:
        yield tag.width, "give a width above 0"
    if not (isinstance(tag.length, int) and tag.length >= 1):
        yield tag.length, "give a length of at least 1 character"
    if tag.protect == "region" and not tag.regions:
        yield tag.regions, 'give the regions by beginning of the value: regions={"10": "Berlin"}'
    if tag.by not in get_args(By):
        yield tag.by, f"give one of {', '.join(get_args(By))}"
    elif tag.by == "presidio" and tag.protect == "redact":
        import importlib.util

        if importlib.util.find_spec("presidio_analyzer") is None:
            yield tag.by, "it needs the package presidio-analyzer; pip install 'assetline[presidio]'"


def _wrong_place(tag: Tag, column: str, model: Model) -> Iterator[tuple[object, str]]:
    table = model.table
    if not tag.protects:
        return
    if column == table.time:
        yield tag.protect, "it is the event time, which decides the day of a row; tag it with keep and a reason"
    if column == model.target:
        yield tag.protect, "it is the target, which must stay what is learnt; tag it with keep and a reason"
    if model.ranking is not None and column == model.ranking.item:
        yield tag.protect, "it is the item, which requests and lists name as it is; tag it with keep and a reason"
    entities = (model.evaluation.entity, *(model.features.entities if model.features else ()))
    if column in (table.key, *entities) and tag.protect != "pseudonym":
        yield tag.protect, "it identifies rows, so that different values must stay different: use pseudonym"


def _wrong_source(model: Model, tagged: set[str]) -> Wrong:
    from resources.sources import Stream

    source = model.table.source
    if not isinstance(source, Stream):
        return
    try:
        growing = source.growing_column()
    except Exception:  # a source that cannot say it yet is asked again when it lands
        return
    if growing in tagged:
        yield (
            "table.source",
            growing,
            "its rows land in the order of this column, which a protection would change; tag it with keep and a reason",
        )
