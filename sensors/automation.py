"""The sensor of each model that evaluates the automation conditions of its assets, which ``assets/lifecycle`` declares.

Belongs here: when they are evaluated. Does not belong here: the conditions (``assets/lifecycle/stage.py``).

Evaluating the conditions of one model takes a sixth of a second. Their result changes only with events about the
model's assets and what these are made from, or when a day begins, so a tick without either costs one query.
"""

from __future__ import annotations

import datetime as dt

import dagster as dg

from assets.declaration import Model
from resources.dagster_internals import QuietAutomation
from resources.git import BRANCH_OF_RUN, branch_of
from resources.settings import project_root

_BRANCH = branch_of(project_root())

AT_LEAST_EVERY = dt.timedelta(hours=1)
"""Time after which the conditions are evaluated although no event concerns them."""


def automation_sensor(model: Model) -> QuietAutomation:
    """The sensor of one model. Its runs hold assets of this model only, so that models do not wait for one another."""
    own = [key for asset in model.assets for key in asset.keys if key.path[0] != model.name]
    return QuietAutomation(
        f"{model.name}_automation",
        target=dg.AssetSelection.key_prefixes([model.name]) | dg.AssetSelection.assets(*own),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        run_tags={BRANCH_OF_RUN: _BRANCH} if _BRANCH else None,
        description=f"Materialises each asset of {model.name}, from rows to drift checks, when its inputs are new and "
        "passed their checks.",
        at_least_every=AT_LEAST_EVERY,
    )
