"""Studies of Optuna in the project's database: the trials of each search, which survive a kill.

Belongs here: opening a study, and ending the trials that a killed process left. Does not belong here: what a trial
does (``assets/lifecycle/model/search.py``).
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.schema import CreateSchema

from resources.append_only import lock_schema
from resources.processes import still_runs
from resources.settings import Settings

if TYPE_CHECKING:
    import optuna

DECLARED = "declared"
"""Attribute of the trial of the declared recipe."""

SCHEMA = "optuna"
"""Schema of the tables on PostgreSQL. Like other programs, Optuna keeps its version in a table `alembic_version`, so it
could not share a schema with one of them."""

_PROCESS = "process"


class Studies(dg.ConfigurableResource):
    """Optuna's studies."""

    database_url: str = Field(description="SQLAlchemy URL of the database that holds the studies.")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The studies in the database of ``settings``; a URL with a password is hidden from the UI."""
        if sa.make_url(settings.database_url).password is not None:
            return cls(database_url=dg.EnvVar("ASSETLINE_DATABASE_URL"))
        return cls(database_url=settings.database_url)

    def open(self, name: str) -> optuna.Study:
        """Opens a study, or begins one whose values are to be maximised.

        Trials that a process left unfinished when it was killed are marked as failed, and their settings are tried
        next. Trials of a process on another machine are assumed to be alive.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the search logs its own lines
        url = sa.make_url(self.database_url)
        arguments: dict[str, Any] = {}
        if url.get_backend_name() == "sqlite":
            Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            arguments = {"timeout": 60}
        elif url.get_backend_name() == "postgresql":
            arguments = {"options": f"-c search_path={SCHEMA}"}
            with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
                lock_schema(connection)
                connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
        # Without a pool, no connection stays open between transactions, so forks and moved files are safe.
        options = {"poolclass": sa.NullPool, "connect_args": arguments}
        with sa.create_engine(url, **options).begin() as connection:
            lock_schema(connection)
            storage = optuna.storages.RDBStorage(self.database_url, engine_kwargs=options)
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
        self._end_dead_trials(study)
        return study

    def ask(self, study: optuna.Study) -> optuna.Trial:
        """Begins a trial, which :meth:`open` ends if this process is killed."""
        trial = study.ask()
        trial.set_user_attr(_PROCESS, f"{socket.gethostname()} {os.getpid()} {time.time():.0f}")
        return trial

    def _end_dead_trials(self, study: optuna.Study) -> None:
        from optuna.trial import TrialState

        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            # Without the mark, the process was killed between the two writes of `ask`.
            host, pid, began = trial.user_attrs.get(_PROCESS, f"{socket.gethostname()} 0 0").rsplit(" ", 2)
            if host != socket.gethostname() or still_runs(int(pid), float(began)):
                continue
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={k: v for k, v in trial.user_attrs.items() if k == DECLARED})
