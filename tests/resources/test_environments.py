"""The files of the environments, and what production refuses."""

import json
import shutil
import subprocess
import sys

import pytest

from cli import main
from resources import settings as module
from resources.backup import default_archive
from resources.production import open_bind
from resources.settings import ENVIRONMENTS, Settings, SettingsError, environment_file, project_name, project_root, read

PASSWORD = "hushhushhush"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Replaces the file of an environment by other text."""

    def write(environment: str, text: str) -> None:
        folder = tmp_path / "deploy" / "environments"
        if not folder.exists():
            shutil.copytree(project_root() / "deploy" / "environments", folder)
            (tmp_path / "deploy" / "channels.toml").touch()
        (folder / f"{environment}.toml").write_text(text, encoding="utf-8")
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)

    return write


@pytest.fixture
def production(tmp_path) -> dict[str, str]:
    """Variables with which production starts."""
    (tmp_path / "backups").mkdir()
    (tmp_path / "tokens.toml").touch()
    return {
        "ASSETLINE_ENV": "prod",
        "ASSETLINE_HOME": str(tmp_path / "home"),
        "ASSETLINE_DATABASE_URL": f"postgresql+psycopg://me:{PASSWORD}@db/assetline",
        "ASSETLINE_MLFLOW_STORE": f"postgresql+psycopg://me:{PASSWORD}@db/mlflow",
        "ASSETLINE_DAGSTER_STORE": f"postgresql://me:{PASSWORD}@db/dagster",
        "ASSETLINE_TOKEN": "0123456789abcdef",
        "ASSETLINE_SERVICE_TOKENS": str(tmp_path / "tokens.toml"),
        "ASSETLINE_BACKUP": str(tmp_path / "backups"),
    }


def refused(env: dict[str, str], **kwargs) -> list[str]:
    with pytest.raises(SettingsError) as error:
        Settings.from_env(env, **kwargs)
    assert PASSWORD not in str(error.value)
    assert all(problem in str(error.value) for problem in error.value.problems)
    return error.value.problems


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_environment_has_a_file_that_can_be_read(environment):
    assert environment_file(environment).is_file()
    found = read({"ASSETLINE_ENV": environment})
    assert found.settings is not None
    assert found.settings.env == environment
    assert bool(found.problems) == (environment == "prod")


def test_dev_is_the_default_and_staging_has_a_state_folder_and_ports_of_its_own():
    dev, staging = Settings.from_env({}), Settings.from_env({"ASSETLINE_ENV": "staging"})
    assert dev.env == "dev"
    assert not staging.home.is_relative_to(dev.home)
    ports = [{s.ui_port, s.mlflow_port, s.service_port, s.watch_port} for s in (dev, staging)]
    assert not ports[0] & ports[1]


@pytest.mark.parametrize(
    ("value", "mend"),
    [("stage", "did you mean staging?"), ("production", "did you mean prod?"), ("xyz", "dev, staging, prod")],
)
def test_an_unknown_environment_is_refused(value, mend):
    [problem] = refused({"ASSETLINE_ENV": value})
    assert problem.startswith(f"ASSETLINE_ENV='{value}' is not an environment (")
    assert mend in problem


def test_a_variable_overrides_the_file_and_the_file_the_default(file):
    file("staging", 'ui_port = 3100\nservice_port = 8100\nwatch_host = "10.0.0.5"\nbehind_proxy = true')
    found = read({"ASSETLINE_ENV": "staging", "ASSETLINE_UI_PORT": "3200"})
    assert found.problems == []
    assert (found.settings.ui_port, found.settings.service_port, found.settings.mlflow_port) == (3200, 8100, 5000)
    assert (found.settings.watch_url, found.settings.behind_proxy) == ("http://10.0.0.5:8001", True)
    assert [found.origins[name] for name in ("ui_port", "service_port", "mlflow_port")] == [
        "ASSETLINE_UI_PORT", "deploy/environments/staging.toml", "default",
    ]  # fmt: skip


def test_a_wrong_line_of_the_file_does_not_matter_if_a_variable_overrides_it(file):
    file("dev", "ui_port = 99999")
    assert Settings.from_env({"ASSETLINE_UI_PORT": "3200"}).ui_port == 3200


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ui_prt = 3100", "ui_prt: it is not a setting (did you mean ui_port?); remove or correct the line"),
        ('ui_port = "3100"', "ui_port: '3100' is not a whole number; write it as one"),
        ("ui_port = true", "ui_port: 'True' is not a whole number; write it as one"),
        ("ui_port = 99999", "ui_port='99999' is not a port; give a whole number from 1 to 65535"),
        ('behind_proxy = "true"', "behind_proxy: 'true' is not a truth value; write it as one"),
        ('env = "prod"', "env: the variable ASSETLINE_ENV chooses the file, so the file cannot choose itself; remove "
                         "the line"),
        (f'token = "{PASSWORD}0123"',
         "token: it is a secret, and files hold none; remove the line and set ASSETLINE_TOKEN"),
        (f'database_url = "postgresql://me:{PASSWORD}@db/a"',
         "database_url: it is a secret, and files hold none; remove the line and set ASSETLINE_DATABASE_URL"),
        ('backup = ""', "backup: it is empty; give it a value or remove the line"),
        ("[ui_port]", "ui_port: '{}' is not a whole number; write it as one"),
        ('ui_host = "everywhere"',
         "ui_host='everywhere' is not an address; give an IP address of this machine, e.g. 127.0.0.1"),
        ('protected_branch = "a b"', "protected_branch='a b' is not the name of a branch; give one, e.g. main"),
    ],
)  # fmt: skip
def test_a_wrong_line_of_a_file_is_named(file, line, problem):
    file("dev", line)
    assert refused({}) == [f"deploy/environments/dev.toml: {problem}"]


def test_a_url_without_a_password_may_stand_in_the_file(file):
    file("dev", 'database_url = "postgresql+psycopg://db.example.org/assetline"')
    assert Settings.from_env({}).database_url == "postgresql+psycopg://db.example.org/assetline"


def test_a_file_that_is_no_toml_or_missing_is_named(file, tmp_path):
    file("dev", "ui_port: 3100")
    assert refused({})[0].startswith("deploy/environments/dev.toml is not TOML (")
    (tmp_path / "deploy" / "environments" / "dev.toml").unlink()
    assert refused({}) == [
        "deploy/environments/dev.toml is missing; restore it with `git checkout -- deploy/environments/dev.toml`"
    ]


def test_all_that_is_wrong_is_one_list():
    problems = refused({"ASSETLINE_UI_PORT": "x", "ASSETLINE_HOEM": "/tmp", "ASSETLINE_UI_HOST": "all"})
    assert len(problems) == 3
    with pytest.raises(SettingsError, match=r"^3 settings are wrong\n  - ASSETLINE_UI_PORT='x' is not a port;"):
        Settings.from_env({"ASSETLINE_UI_PORT": "x", "ASSETLINE_HOEM": "/tmp", "ASSETLINE_UI_HOST": "all"})


# -- production ------------------------------------------------------------------------------------------------------


def test_production_starts_with_all_that_it_needs(production):
    settings = Settings.from_env(production)
    assert (settings.env, settings.tracking_uri) == ("prod", production["ASSETLINE_MLFLOW_STORE"])
    assert PASSWORD not in repr(settings)


def test_production_without_anything_is_one_list_of_all_that_is_missing(tmp_path):
    env = {"ASSETLINE_ENV": "prod", "ASSETLINE_HOME": str(tmp_path), "ASSETLINE_UI_HOST": "0.0.0.0",
           "ASSETLINE_SERVICE_AUTH": "off", "ASSETLINE_TEST_DATA": str(tmp_path), "PYTHONDEVMODE": "1"}  # fmt: skip
    with pytest.raises(SettingsError) as error:
        Settings.from_env(env)
    heading, *lines = str(error.value).splitlines()
    assert heading == "ASSETLINE_ENV=prod: 10 settings are wrong"
    begins = [
        "database_url=", "mlflow_store ", "dagster_store ", "token ", "service_tokens=",
        "ASSETLINE_SERVICE_AUTH=", "ASSETLINE_UI_HOST=",
        "backup ", "ASSETLINE_TEST_DATA=", "PYTHONDEVMODE=",
    ]  # fmt: skip
    assert [line.startswith(f"  - {begin}") for line, begin in zip(lines, begins, strict=True)] == [True] * 10
    assert all("set ASSETLINE_" in line or "unset it" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ASSETLINE_DATABASE_URL": "sqlite:////x/a.db"},
         "ASSETLINE_DATABASE_URL='sqlite:////x/a.db' keeps the ledger and the alerts in SQLite; set "
         "ASSETLINE_DATABASE_URL=postgresql+psycopg://user:password@host/name"),
        ({"ASSETLINE_MLFLOW_STORE": None}, "mlflow_store is not set, so MLflow would use SQLite; set "
         "ASSETLINE_MLFLOW_STORE=postgresql+psycopg://user:password@host/name"),
        ({"ASSETLINE_DAGSTER_STORE": None}, "dagster_store is not set, so Dagster would use SQLite; set "
         "ASSETLINE_DAGSTER_STORE=postgresql+psycopg://user:password@host/name"),
        ({"ASSETLINE_TOKEN": None},
         "token of the alerts is not set; set ASSETLINE_TOKEN to the output of `openssl rand -hex 16`"),
        ({"ASSETLINE_SERVICE_TOKENS": "/no/tokens"}, "ASSETLINE_SERVICE_TOKENS='/no/tokens' does not exist; "),
        ({"ASSETLINE_BACKUP": None}, "backup is not set; set ASSETLINE_BACKUP to a folder outside of "),
        ({"ASSETLINE_BACKUP": "/no/folder"}, "ASSETLINE_BACKUP='/no/folder' is not a folder; mount or create it"),
        ({"ASSETLINE_SERVICE_HOST": "0.0.0.0"}, "ASSETLINE_SERVICE_HOST='0.0.0.0' listens on every interface without "
         "encryption; give 127.0.0.1 or a private address, or set ASSETLINE_BEHIND_PROXY=true "),
        ({"ASSETLINE_WATCH_HOST": "::"}, "ASSETLINE_WATCH_HOST='::' listens on every interface"),
        ({"ASSETLINE_UI_HOST": "8.8.8.8"}, "ASSETLINE_UI_HOST='8.8.8.8' listens on a public address"),
        ({"ASSETLINE_TABLES": "s3://bucket/x", "AWS_ENDPOINT_URL": f"http://me:{PASSWORD}@s3.example.org"},
         "ASSETLINE_TABLES='s3://bucket/x' is reached without encryption, because "
         "AWS_ENDPOINT_URL='http://***@s3.example.org'; give an address with https://, or set ASSETLINE_BEHIND_PROXY"),
        ({"ASSETLINE_TABLES": "s3://bucket/x", "AWS_ENDPOINT_URL_S3": "http://8.8.8.8:9000",
          "AWS_ENDPOINT_URL": "https://s3.example.org"},
         "ASSETLINE_TABLES='s3://bucket/x' is reached without encryption, because "
         "AWS_ENDPOINT_URL_S3='http://8.8.8.8:9000'"),
        ({"PYTHONASYNCIODEBUG": "1"}, "PYTHONASYNCIODEBUG='1' is a debug switch; unset it"),
        ({"ASSETLINE_STACK": "postgres"}, "ASSETLINE_STACK='postgres' is a server inside the state folder, for one"),
        ({"PYTHONINSPECT": "1"}, "PYTHONINSPECT='1' is a debug switch; unset it"),
        ({"ASSETLINE_RAY": "ray-head:6379"}, "ASSETLINE_RAY='ray-head:6379' is reached without a token; start the "
         "cluster with one, and set RAY_AUTH_MODE=token"),
    ],
)  # fmt: skip
def test_production_refuses_one_thing(production, change, problem):
    env = {name: value for name, value in {**production, **change}.items() if value is not None}
    [found] = refused(env)
    assert found.startswith(problem)
    assert Settings.from_env({**env, "ASSETLINE_ENV": "dev"}), "dev does not"


@pytest.mark.parametrize(
    "change",
    [{}, {"AWS_ENDPOINT_URL": "https://s3.example.org"}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
     {"AWS_ENDPOINT_URL": "http://10.0.0.5:9000"}, {"AWS_ENDPOINT_URL": "http://localhost:9000"},
     {"AWS_ENDPOINT_URL": "http://minio.storage", "ASSETLINE_BEHIND_PROXY": "true"}],
)  # fmt: skip
def test_production_keeps_its_tables_in_a_bucket_that_it_reaches_encrypted_or_nearby(production, change):
    settings = Settings.from_env({**production, "ASSETLINE_TABLES": "s3://bucket/x", **change})
    assert settings.tables == "s3://bucket/x"


@pytest.mark.parametrize("change", [{"ASSETLINE_RAY": "local"}, {"ASSETLINE_RAY": "h:6379", "RAY_AUTH_MODE": "token"}])
def test_production_uses_ray_on_this_machine_or_with_a_token(production, change):
    assert Settings.from_env({**production, **change}).ray == change["ASSETLINE_RAY"]


def test_invalid_values_and_what_is_missing_are_in_one_list_and_nothing_is_said_twice(production):
    production |= {"ASSETLINE_UI_PORT": "x", "ASSETLINE_DATABASE_URL": "nosql://h/n", "ASSETLINE_HOEM": "/tmp"}
    del production["ASSETLINE_TOKEN"]
    problems = refused(production)
    assert [problem.split("=")[0].split(" ")[0] for problem in problems] == [
        "ASSETLINE_DATABASE_URL", "ASSETLINE_UI_PORT", "ASSETLINE_HOEM", "token",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match=r"^ASSETLINE_ENV=prod: 4 settings are wrong\n"):
        Settings.from_env(production)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "10.1.2.3", "192.168.0.7", "fd00::7"])
def test_production_listens_on_loopback_and_private_addresses(production, host):
    assert Settings.from_env({**production, "ASSETLINE_SERVICE_HOST": host}).service_host == host


def test_production_listens_everywhere_behind_a_proxy(production):
    settings = Settings.from_env({**production, "ASSETLINE_SERVICE_HOST": "0.0.0.0", "ASSETLINE_BEHIND_PROXY": "true"})
    assert settings.service_url == "http://127.0.0.1:8000", "this machine reaches it on the loopback interface"
    assert open_bind(settings, "::") == ""


def test_the_scoring_service_alone_needs_less(production):
    for name in ("ASSETLINE_DAGSTER_STORE", "ASSETLINE_TOKEN", "ASSETLINE_BACKUP"):
        del production[name]
    assert len(refused(production)) == 3
    assert Settings.from_env(production, part="service").env == "prod"
    del production["ASSETLINE_MLFLOW_STORE"]
    assert len(refused(production, part="service")) == 1


def test_a_backup_folder_in_the_state_folder_is_refused(tmp_path):
    env = {"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_BACKUP": str(tmp_path / "backups")}
    [problem] = refused(env)
    assert problem.startswith(f"ASSETLINE_BACKUP='{tmp_path / 'backups'}' lies in the state folder {tmp_path}; ")


def test_backups_go_to_the_folder_of_the_settings(production, tmp_path, monkeypatch, capsys):
    settings = Settings.from_env(production)
    archive = default_archive(settings)
    assert archive.parent == tmp_path / "backups"
    assert archive.name.startswith(f"{project_name()}-prod-2")
    assert archive.name.endswith(".tar.gz")
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    assert main(["backup"]) == 1
    assert capsys.readouterr().err == (
        "assetline backup: name the archive, or set ASSETLINE_BACKUP to a folder for archives\n"
    )


@pytest.mark.parametrize("program", ["serving.scoring.service", "serving.watch.app"])
def test_a_server_of_production_does_not_listen_where_its_argument_says(production, program):
    """The service and the watch take ``--host``, which is no setting."""
    import os

    ended = subprocess.run(
        [sys.executable, "-m", program, "--host", "0.0.0.0"], cwd=project_root(), capture_output=True, text=True,
        check=False, env={**{k: v for k, v in os.environ.items() if not k.startswith("ASSETLINE_")}, **production},
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("--host 0.0.0.0 listens on every interface without encryption; ")


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `assetline settings` with these variables only."""
    import os

    def run(env: dict[str, str], *arguments: str) -> tuple[int, str, str]:
        for name in [name for name in os.environ if name.startswith("ASSETLINE_")]:
            monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        code = main(["settings", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_command_shows_each_value_with_its_origin_and_no_secret(production, command):
    code, said, err = command(production)
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    assert lines["database_url"] == ["postgresql+psycopg://***@db/assetline", "ASSETLINE_DATABASE_URL"]
    assert lines["token"] == ["set", "ASSETLINE_TOKEN"]
    assert lines["protected_branch"] == ["main", "deploy/environments/prod.toml"]
    assert lines["ui_port"] == ["3000", "default"]
    code, said, _ = command(production, "--json")
    shown = json.loads(said)
    assert code == 0
    assert (shown["environment"], shown["wrong"]) == ("prod", [])
    assert PASSWORD not in said
    assert production["ASSETLINE_TOKEN"] not in said
    assert {one["setting"]: one["secret"] for one in shown["settings"]}["token"] is True


def test_the_command_shows_the_settings_and_all_that_is_wrong(command):
    code, said, err = command({"ASSETLINE_ENV": "prod"})
    assert code == 2
    assert said.splitlines()[0].split() == ["setting", "value", "origin"]
    assert err.startswith("assetline settings: ASSETLINE_ENV=prod: 6 settings are wrong\n  - database_url=")
    code, said, err = command({"ASSETLINE_UI_PORT": "x"})
    assert (code, said) == (2, "")
    assert err.startswith("assetline settings: ASSETLINE_UI_PORT='x' is not a port; ")


def test_every_setting_has_a_reader_and_is_in_the_docs():
    from dataclasses import fields

    text = (project_root() / "docs" / "environments.md").read_text(encoding="utf-8")
    for one in fields(Settings):
        assert one.name in module._READERS
        assert f"| `{one.name}` |" in text, one.name
