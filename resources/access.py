"""Who may do what: five roles, and the models that a token or a person is limited to.

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
    """

    name: str
    role: Role
    models: tuple[str, ...] | None = None

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


def role_of(name: str) -> Role:
    """The role of this name. Raises :class:`ValueError` if there is none."""
    if name not in ROLES:
        raise ValueError(f"there is no role {name!r}; the roles are {', '.join(ROLES)}")
    return name
