"""Builds the assets of a declaration, in data-flow order.

Belongs here: the list of assets, and the replacement of an asset by a model's own. Does not belong here: any asset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.data.cleaning import cleaned_asset
from assets.lifecycle.data.features import features_asset
from assets.lifecycle.data.labels import labels_asset
from assets.lifecycle.data.landing import raw_labels_asset, raw_table_asset
from assets.lifecycle.data.quarantine import quarantine_asset
from assets.lifecycle.model.backtest import backtest_asset
from assets.lifecycle.model.evaluation import evaluation_asset
from assets.lifecycle.model.trained_model import trained_model_asset
from assets.lifecycle.model.training_set import training_set_asset
from assets.lifecycle.model.tuning import tuning_asset
from assets.lifecycle.monitoring.drift import drift_asset
from assets.lifecycle.monitoring.estimated_performance import estimated_performance_asset
from assets.lifecycle.monitoring.forecasts import forecasts_asset
from assets.lifecycle.monitoring.performance import performance_asset
from assets.lifecycle.monitoring.predictions import predictions_asset
from assets.lifecycle.monitoring.requests import requests_asset
from assets.lifecycle.monitoring.topics_by_day import topics_asset
from assets.lifecycle.monitoring.unknown_intents import unknown_intents_asset
from assets.lifecycle.ranking.assets import (
    ranked_days_asset,
    ranking_evaluation_asset,
    ranking_performance_asset,
    trained_ranking_asset,
)
from assets.lifecycle.ranking.off_policy import off_policy_asset
from assets.lifecycle.release.approval import approval_asset
from assets.lifecycle.release.deployment import deployment_asset
from assets.lifecycle.release.model_card import model_card_asset
from assets.lifecycle.release.rollout import rollout_asset
from assets.lifecycle.release.staging import staged_asset
from assets.lifecycle.retrieval.answering import answering_asset
from assets.lifecycle.retrieval.knowledge import knowledge_asset

AssetFactory = Callable[[Model], dg.AssetsDefinition | None]
"""Builds one asset of a model; ``None`` if the model has no such asset."""

TABLE_FACTORIES: tuple[AssetFactory, ...] = (
    raw_table_asset,
    raw_labels_asset,
    cleaned_asset,
    quarantine_asset,
)
"""The assets of a table; a model on the table of another model has none of them."""

MODEL_FACTORIES: tuple[AssetFactory, ...] = (
    labels_asset,
    features_asset,
    training_set_asset,
    tuning_asset,
    trained_model_asset,
    evaluation_asset,
    backtest_asset,
    knowledge_asset,
    answering_asset,
    staged_asset,
    approval_asset,
    rollout_asset,
    deployment_asset,
    model_card_asset,
    predictions_asset,
    forecasts_asset,
    estimated_performance_asset,
    performance_asset,
    requests_asset,
    drift_asset,
    unknown_intents_asset,
    topics_asset,
)

RANKING_FACTORIES: tuple[AssetFactory, ...] = (
    labels_asset,
    features_asset,
    training_set_asset,
    trained_ranking_asset,
    ranking_evaluation_asset,
    staged_asset,
    approval_asset,
    deployment_asset,
    model_card_asset,
    ranked_days_asset,
    ranking_performance_asset,
    requests_asset,
    off_policy_asset,
    drift_asset,
)
"""The assets of a ranking: it is not searched, explained, backtested or rolled out by steps."""


def lifecycle_assets(model: Model) -> Sequence[dg.AssetsDefinition]:
    """Returns all assets of a model; the declaration's own assets replace the lifecycle's assets with the same key."""
    own = {asset.key: asset for asset in model.assets}
    of_model = RANKING_FACTORIES if model.ranking else MODEL_FACTORIES
    factories = of_model if model.table.of else (*TABLE_FACTORIES, *of_model)
    built = [asset for factory in factories if (asset := factory(model)) is not None]
    return [*(asset for asset in built if asset.key not in own), *own.values()]
