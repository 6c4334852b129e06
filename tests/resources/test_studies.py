"""Studies lie in the project's database, beside the ledger; what a killed process left is tried again."""

import socket

import pytest
import sqlalchemy as sa

from resources.ledger import Ledger
from resources.settings import Settings
from resources.studies import DECLARED, SCHEMA, Studies
from tests.resources.conftest import POSTGRES


def trials(study):
    return [(trial.state.name, dict(trial.params)) for trial in study.trials]


def beside_the_ledger(url, schema=None):
    """A study and a ledger in one database."""
    Ledger(database_url=url).promote("toy", "1", reason="r", verdicts={}, dagster_run="d", who="w")
    studies = Studies(database_url=url)
    study = studies.open("toy-1")
    trial = studies.ask(study)
    study.tell(trial, trial.suggest_float("rate", 0, 1))
    again = Studies(database_url=url).open("toy-1")
    assert again.direction.name == "MAXIMIZE"
    assert trials(again) == [("COMPLETE", {"rate": again.best_value})]
    assert trials(Studies(database_url=url).open("toy-2")) == []
    assert Ledger(database_url=url).champion("toy").version == "1"
    there = sa.inspect(sa.create_engine(url))
    assert "promotions" in there.get_table_names()
    assert {"studies", "trials"} <= set(there.get_table_names(schema))


def test_a_study_lies_beside_the_ledger(tmp_path):
    beside_the_ledger(f"sqlite:///{tmp_path}/below/assetline.db")


@pytest.mark.slow
@pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql")
def test_a_study_lies_beside_the_ledger_on_postgres(postgres):
    url = postgres("studies")
    with sa.create_engine(url).begin() as connection:  # as another program that uses alembic leaves it
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('another')")
    beside_the_ledger(url, SCHEMA)


def test_a_trial_whose_process_is_gone_is_tried_again(tmp_path):
    studies = Studies(database_url=f"sqlite:///{tmp_path}/s.db")
    study = studies.open("s")
    study.enqueue_trial({"rate": 0.25}, user_attrs={DECLARED: True})
    trial = studies.ask(study)
    trial.suggest_float("rate", 0, 1)
    trial.set_user_attr("process", f"{socket.gethostname()} 999999999 0")
    again = studies.open("s")
    assert [state for state, _ in trials(again)] == ["FAIL", "WAITING"]
    retried = studies.ask(again)
    assert retried.suggest_float("rate", 0, 1) == 0.25
    assert retried.user_attrs[DECLARED]


@pytest.mark.parametrize("host", [socket.gethostname(), "another"])
def test_a_trial_that_may_still_run_is_left_alone(tmp_path, host):
    studies = Studies(database_url=f"sqlite:///{tmp_path}/s.db")
    trial = studies.ask(studies.open("s"))
    if host == "another":
        trial.set_user_attr("process", "another 999999999 0")
    assert [state for state, _ in trials(studies.open("s"))] == ["RUNNING"]


def test_a_password_is_not_shown(tmp_path):
    url = "postgresql+psycopg://me:secret@db/assetline"
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_DATABASE_URL": url})
    assert "secret" not in str(Studies.from_settings(settings).__dict__)
    plain = Settings.from_env({"ASSETLINE_HOME": str(tmp_path)})
    assert Studies.from_settings(plain).database_url == plain.database_url
