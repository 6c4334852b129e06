import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.local_postgres import url
from resources.request_log import RequestLog
from resources.settings import Settings, SettingsError, one_thread_each, project_root, quiet_telemetry, read


def test_project_root_is_the_folder_of_the_code_location():
    assert (project_root() / "workspace.yaml").exists()


def test_without_variables_all_state_is_in_var():
    settings = Settings.from_env({"PATH": "/bin"})
    assert settings.home == project_root() / "var"
    assert settings.database_url == f"sqlite:///{project_root()}/var/assetline.db"
    assert settings.tracking_uri == f"sqlite:///{project_root()}/var/mlflow/mlflow.db"
    assert (settings.ui_port, settings.mlflow_port, settings.service_port) == (3000, 5000, 8000)
    assert settings.test_data is None


def test_each_variable_is_read(tmp_path):
    settings = Settings.from_env(
        {
            "ASSETLINE_HOME": str(tmp_path),
            "ASSETLINE_UI_PORT": "3100",
            "ASSETLINE_MLFLOW_PORT": " 5100 ",
            "ASSETLINE_SERVICE_PORT": "8100",
            "ASSETLINE_TEST_DATA": str(tmp_path),
            "ASSETLINE_SERVICE_TOKENS": str(tmp_path / "mounted.toml"),
            "ASSETLINE_SERVICE_AUTH": "off",
            "ASSETLINE_SERVICE_PROCESSES": "4",
            "ASSETLINE_RATE_LIMIT": "0",
            "ASSETLINE_ACCESS_LOG": "stdout",
        }
    )
    assert settings == Settings(
        home=tmp_path,
        database_url=f"sqlite:///{tmp_path}/assetline.db",
        ui_port=3100,
        mlflow_port=5100,
        service_port=8100,
        test_data=tmp_path,
        service_tokens=tmp_path / "mounted.toml",
        service_auth="off",
        service_processes=4,
        rate_limit=0,
        access_log="stdout",
    )
    assert settings.service_tokens == tmp_path / "mounted.toml"
    assert Settings.from_env({"ASSETLINE_HOME": str(tmp_path)}).service_tokens == tmp_path / "service-tokens.toml"
    assert settings.ui_url == settings.ui_link == "http://127.0.0.1:3100"


def test_the_stack_postgres_puts_all_databases_on_the_server_of_the_state_folder(tmp_path):
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_STACK": "postgres"})
    urls = (settings.database_url, settings.tracking_uri, settings.dagster_store)
    assert urls == tuple(url(tmp_path, name) for name in ("assetline", "mlflow", "dagster"))
    assert settings.runs_at_once > 1
    own = {"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_STACK": "postgres", "ASSETLINE_DATABASE_URL": "sqlite:////x.db",
           "ASSETLINE_RUNS_AT_ONCE": "1"}  # fmt: skip
    assert Settings.from_env(own).database_url == "sqlite:////x.db", "a URL that is given stays"


def test_a_state_folder_with_a_server_keeps_to_it(tmp_path):
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    found = read({"ASSETLINE_HOME": str(tmp_path)})
    assert (found.settings.stack, found.origins["stack"]) == ("postgres", "the state folder")
    assert found.settings.database_url == url(tmp_path, "assetline")
    given = Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_STACK": "sqlite"})
    assert given.database_url == f"sqlite:///{tmp_path}/assetline.db"


def test_links_for_people_lead_where_people_are():
    public = {"ASSETLINE_PUBLIC_UI_URL": "https://dagster.example.org/", "ASSETLINE_PUBLIC_WATCH_URL": "http://a:81/x"}
    settings = Settings.from_env(public)
    assert (settings.ui_link, settings.ui_url) == ("https://dagster.example.org", "http://127.0.0.1:3000")
    assert settings.watch_link == "http://a:81/x"
    with pytest.raises(SettingsError, match=r"ASSETLINE_PUBLIC_UI_URL='dagster\.example\.org' is not a web address"):
        Settings.from_env({"ASSETLINE_PUBLIC_UI_URL": "dagster.example.org"})


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.from_env({}).ui_port = 3001


def test_relative_paths_start_at_the_project_root_whatever_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"ASSETLINE_HOME": "elsewhere", "ASSETLINE_DATABASE_URL": "sqlite:///own.db"})
    assert settings.home == project_root() / "elsewhere"
    assert settings.database_url == f"sqlite:///{project_root()}/own.db"


def test_home_of_the_user_is_expanded():
    assert Settings.from_env({"ASSETLINE_HOME": "~/state"}).home == Path.home() / "state"


FILE = str(Path(__file__).resolve())


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("ASSETLINE_HOEM", "/tmp", "did you mean ASSETLINE_HOME"),
        ("ASSETLINE_QQJJQXYZ", "1", "the settings are ASSETLINE_HOME, "),
        ("ASSETLINE_HOME", FILE, "give a folder"),
        ("ASSETLINE_HOME", "s3://bucket/state", "need a folder on this machine"),
        ("ASSETLINE_HOME", " ", "unset it"),
        ("ASSETLINE_UI_PORT", "three", "whole number from 1 to 65535"),
        ("ASSETLINE_UI_PORT", "70000", "whole number from 1 to 65535"),
        ("ASSETLINE_UI_PORT", "-1", "whole number from 1 to 65535"),
        ("ASSETLINE_MLFLOW_PORT", "²", "whole number from 1 to 65535"),
        ("ASSETLINE_MLFLOW_PORT", "8000", "its own port"),
        ("ASSETLINE_TEST_DATA", "/no/such/folder", "does not exist"),
        ("ASSETLINE_SERVICE_TOKENS", "tests", "is a folder; give the path of a file"),
        ("ASSETLINE_SERVICE_AUTH", "none", "set it to one of token, off"),
        ("ASSETLINE_RATE_LIMIT", "-5", "whole number from 0 to 999999999"),
        ("ASSETLINE_SERVICE_PROCESSES", "0", "give 1 to 64, one for each core"),
        ("ASSETLINE_SERVICE_PROCESSES", "65", "give 1 to 64, one for each core"),
        ("ASSETLINE_SERVICE_PROCESSES", "two", "give 1 to 64, one for each core"),
        ("ASSETLINE_RATE_LIMIT", "many", "whole number from 0 to 999999999"),
        ("ASSETLINE_ACCESS_LOG", "syslog", "set it to one of file, stdout, off"),
        ("ASSETLINE_STACK", "mysql", "set it to one of sqlite, postgres"),
        ("ASSETLINE_RUNS_AT_ONCE", "2", "needs PostgreSQL, because SQLite locks when runs write at the same time"),
        ("ASSETLINE_RUNS_AT_ONCE", "0", "runs nothing; give 1 or more"),
        ("ASSETLINE_DATABASE_URL", "assetline.db", "write one like sqlite:///"),
        ("ASSETLINE_DATABASE_URL", "nosql://host/name", "write one like sqlite:///"),
        ("ASSETLINE_DATABASE_URL", "sqlite://", "stores nothing on disk"),
        ("ASSETLINE_HISTORY_URL", "sqlite:////tmp/requests.db", "is not a PostgreSQL; write one like postgresql+psyc"),
        ("ASSETLINE_HISTORY_URL", "here", "is not a database URL"),
        ("ASSETLINE_DATABASE_URL", "oracle+cx_oracle://host/name", "pip install cx_Oracle"),
    ],
)
def test_what_cannot_work_is_refused_with_the_variable_the_value_and_the_mend(name, value, mend):
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({name: value})
    message = str(refused.value)
    assert name in message
    assert value.strip() in message
    assert mend in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "url", ["nosql://me:hush@host/name", "postgres//me:hush:@u@host", "oracle+cx_oracle://me:hush@h/n"]
)
def test_a_refusal_shows_no_password(url):
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"ASSETLINE_DATABASE_URL": url})
    assert "hush" not in str(refused.value)


def test_settings_print_no_password():
    url = "postgresql+psycopg://me:hush@host/name"
    settings = Settings(home=Path("/x"), database_url=url, history_url=url)
    assert "hush" not in repr(settings)
    assert "hush" not in repr(RequestLog.from_settings(settings)), "the UI shows the fields of resources"


def test_libraries_compute_with_one_thread_unless_the_operator_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    one_thread_each()
    try:
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert os.environ["OPENBLAS_NUM_THREADS"] == "4"
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize(
    "program", ["import definitions", "import serving.scoring.service", "import cli; cli.main(['alerts'])"]
)
def test_a_program_says_how_many_threads_before_a_library_counts_the_cores(program):
    code = f"""
try:
    {program}
except SystemExit:
    pass
import numpy, threadpoolctl, torch
found = threadpoolctl.threadpool_info()
assert found and all(one["num_threads"] == 1 for one in found), found
"""
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root(), env=clean, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_quiet_telemetry_leaves_what_the_operator_set(monkeypatch):
    for name in ("DAGSTER_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "yes")
    quiet_telemetry()
    try:
        assert os.environ["DAGSTER_DISABLE_TELEMETRY"] == "1"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert os.environ["DO_NOT_TRACK"] == "yes"
    finally:
        monkeypatch.undo()


def test_images_and_clusters_are_described_by_settings(tmp_path):
    (tmp_path / "config").write_text("")
    given = {"IMAGE_TOOL": "buildah", "IMAGE_BASE": "registry.example.org:5000/team/service:1.2",
             "IMAGE_REPOSITORY": "registry.example.org/team", "NAMESPACE": "models",
             "KUBECONFIG": str(tmp_path / "config")}  # fmt: skip
    settings = Settings.from_env({f"ASSETLINE_{name}": value for name, value in given.items()})
    assert (settings.image_tool, settings.image_base) == ("buildah", "registry.example.org:5000/team/service:1.2")
    assert (settings.image_repository, settings.namespace) == ("registry.example.org/team", "models")
    assert settings.kubeconfig == tmp_path / "config"


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("IMAGE_TOOL", "podman", "give docker or buildah"),
        ("IMAGE_BASE", "https://registry.example.org/x", "write one like registry.example.org/team"),
        ("IMAGE_REPOSITORY", "Team Images", "write one like registry.example.org/team"),
        ("NAMESPACE", "My_Models", "use lower-case letters, digits and hyphens"),
        ("KUBECONFIG", "/nowhere/config", "give the path of a kubeconfig"),
    ],
)
def test_wrong_images_and_clusters_are_refused(name, value, mend):
    with pytest.raises(SettingsError, match=f"ASSETLINE_{name}='{value}' is not .*{mend}"):
        Settings.from_env({f"ASSETLINE_{name}": value})
