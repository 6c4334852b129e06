"""The lifecycle that every declared model gets, one package per stage in data-flow order. No module here names a model.

The packages match the groups in the Dagster UI: ``data``, ``model``, ``release``, ``monitoring``. They build on
``stage.py`` (how a function becomes an asset), ``prediction_format.py`` and ``profile``. On top of them are
``factory.py``, ``jobs.py`` and ``dry_run.py``, which turn a declaration into assets and jobs or try it on a few rows.
"""
