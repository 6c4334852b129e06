"""Builds the assets of a declaration, in data-flow order.

Belongs here: the list of stages, and the replacement of a stage's asset by a model's own. Does not belong here: any
stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.data.cleaning import cleaning_assets
from assets.lifecycle.data.features import feature_assets
from assets.lifecycle.data.landing import landing_assets
from assets.lifecycle.model.backtest import backtest_assets
from assets.lifecycle.model.evaluation import evaluation_assets
from assets.lifecycle.model.training import training_assets
from assets.lifecycle.monitoring.drift_days import drift_assets
from assets.lifecycle.monitoring.monitoring import monitoring_assets
from assets.lifecycle.release.deployment import deployment_assets

STAGES = (
    landing_assets,
    cleaning_assets,
    feature_assets,
    training_assets,
    evaluation_assets,
    backtest_assets,
    deployment_assets,
    monitoring_assets,
    drift_assets,
)


def lifecycle_assets(model: Model) -> Sequence[dg.AssetsDefinition]:
    """Returns all assets of a model; the declaration's own assets replace stage assets with the same key."""
    own = {asset.key: asset for asset in model.assets}
    made = [asset for stage in STAGES for asset in stage(model) if asset.key not in own]
    return [*made, *own.values()]
