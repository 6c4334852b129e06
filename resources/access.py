"""Who may do what: five roles, and the models, tables and columns that a token or a person is limited to.

| role | score | read | operate | approve | administer |
|---|---|---|---|---|---|
| scorer | yes | | | | |
| reader | | yes | | | |
| operator | yes | yes | yes | | |
| approver | | yes | | yes | |
| admin | yes | yes | yes | yes | yes |

- score: ask the scoring service.
- read: alerts, versions, figures, reports, tables.
- operate: handle alerts, run, tune, roll out, roll back, withdraw.
- approve: approve or reject a version.
- administer: tokens, the audit log, export, deletion, backup.

Belongs here: the roles and the question. Does not belong here: the file of tokens and people (``service_tokens.py``),
and who asks it: the service (``serving/scoring/access.py``), the watch (``serving/watch/login.py``), and the commands
(``cli/audited.py``).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["scorer", "reader", "operator", "approver", "admin"]
Right = Literal["score", "read", "operate", "approve", "administer"]
ROLES: tuple[Role, ...] = get_args(Role)
RIGHTS: tuple[Right, ...] = get_args(Right)

_RIGHTS_OF: dict[Role, frozenset[Right]] = {
    "scorer": frozenset({"score"}),
    "reader": frozenset({"read"}),
    "operator": frozenset({"score", "read", "operate"}),
    "approver": frozenset({"read", "approve"}),
    "admin": frozenset(RIGHTS),
}


class AccessDenied(Exception):
    """A token or a person may not do this. The message names the right that is missing and who can give it."""


@dataclass(frozen=True)
class Access:
    """What one token or person may do.

    Attributes:
        name: its name, for the audit log.
        role: its role.
        models: names of the models that it is limited to; ``None``: all models.
        tables: patterns of the tables that it may see, such as ``fraud/payments`` or ``fraud/*``; ``None``: all.
        hidden_columns: patterns of columns that it may not see, each a pattern of tables, a dot, and a pattern of
            columns, such as ``fraud/payments.customer_id`` or ``*.customer_id``.
    """

    name: str
    role: Role
    models: tuple[str, ...] | None = None
    tables: tuple[str, ...] | None = None
    hidden_columns: tuple[str, ...] = ()

    def may(self, right: Right, model: str | None) -> bool:
        """Whether it may do something.

        Args:
            right: what.
            model: name of the model that it concerns; ``None``: it concerns all models, or none in particular.
        """
        return right in _RIGHTS_OF[self.role] and (self.models is None or model in self.models)

    def require(self, right: Right, model: str | None) -> None:
        """Raises :class:`AccessDenied` if it may not do something; see :meth:`may`."""
        if right not in _RIGHTS_OF[self.role]:
            can = ", ".join(role for role in ROLES if right in _RIGHTS_OF[role])
            raise AccessDenied(f"{self.name} has the role {self.role}, which may not {right}; roles that may: {can}")
        if not self.may(right, model):
            only = ", ".join(self.models or ()) or "no model"
            asked = f"not {model}" if model else "so name one of them"
            raise AccessDenied(f"{self.name} is limited to {only}, {asked}")

    @property
    def sees_all_rows(self) -> bool:
        """Whether no table and no column is kept from it."""
        return self.models is None and self.tables is None and not self.hidden_columns

    def sees(self, table: str) -> bool:
        """Whether it may see a table, e.g. ``fraud/payments``: of its models, and of its tables."""
        if self.models is not None and table.partition("/")[0] not in self.models:
            return False
        return self.tables is None or _fits(table, self.tables)

    def require_table(self, table: str) -> None:
        """Raises :class:`AccessDenied` if it may not see a table."""
        if not self.sees(table):
            only = ", ".join(self.models or ()) if self.tables is None else ", ".join(self.tables)
            raise AccessDenied(f"{self.name} may not see the table {table}, only {only}; an admin can change that")

    def hidden_among(self, table: str, columns: Iterable[str]) -> list[str]:
        """The columns of a table that it may not see."""
        mine = [parts_of(one)[1] for one in self.hidden_columns if _fits(table, [parts_of(one)[0]])]
        return [name for name in columns if _fits(name, mine)]

    def require_rows(self, table: str, columns: Iterable[str]) -> None:
        """Raises :class:`AccessDenied` if it may not see all of these columns of a table."""
        self.require_table(table)
        if hidden := self.hidden_among(table, columns):
            raise AccessDenied(f"{self.name} may not see {', '.join(hidden)} of {table}; an admin can change that")


def role_of(name: str) -> Role:
    """The role of this name. Raises :class:`ValueError` if there is none."""
    if name not in ROLES:
        raise ValueError(f"there is no role {name!r}; the roles are {', '.join(ROLES)}")
    return name


def parts_of(column: str) -> tuple[str, str]:
    """The patterns of table and column in a pattern like ``fraud/payments.customer_id``.

    Raises:
        ValueError: it has no dot, or nothing before or after it.
    """
    table, _, name = column.partition(".")
    if not table or not name:
        raise ValueError(f"{column!r} is not a table, a dot and a column, like fraud/payments.customer_id or *.iban")
    return table, name


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
