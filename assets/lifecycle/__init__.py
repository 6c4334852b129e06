"""What every declared model gets: one room per stage, in the order in which data flows. No module here names a model.

The rooms are those of the groups in the Dagster UI: ``data``, ``model``, ``release``, ``monitoring``. Below them are
``stage.py`` (how a function becomes an asset), ``answers.py`` and ``profile``. Above them are ``factory.py``,
``jobs.py`` and ``rehearsal.py``, which turn a declaration into assets and jobs or try it on a few rows.
"""
