"""Started together, ended together, whatever ends first."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.alerts import AlertStore
from resources.processes import free_port
from resources.settings import Settings, project_root
from serving.supervisor import END_GRACE_S, SupervisorError, environment, programs, refuse_taken_ports


def processes_of(home: Path) -> dict[int, str]:
    """Running processes whose environment names the state folder: those that were started for it."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if f"ASSETLINE_HOME={home}\0".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it is another user's, or has just ended
    return found


def started(home: Path, command: list[str], settings: dict[str, str]) -> tuple[subprocess.Popen, list[str]]:
    """The supervisor, and what it printed until all answered."""
    home.mkdir(exist_ok=True)
    process = subprocess.Popen(
        command, cwd=project_root(), env={**os.environ, **settings, "ASSETLINE_HOME": str(home)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C stops all processes" in line:
            return process, lines
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """One state folder for all toys: making it is the slow part."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def toy(home):
    ports = [free_port(), free_port()]
    process, lines = started(home, [sys.executable, "-m", "tests.serving.toy_supervisor", *map(str, ports)], {})
    assert all(f"http://127.0.0.1:{port}" in "".join(lines) for port in ports)
    yield process
    for pid in processes_of(home):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def left(home: Path) -> dict[int, str]:
    """What still runs, after the moment that the kernel needs."""
    deadline = time.monotonic() + 60
    while (running := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_of_it_and_grandchildren_too(toy, home, how):
    assert any(command.endswith("toy_supervisor child ") for command in processes_of(home).values())
    toy.send_signal(how)
    toy.stdout.read()
    assert toy.wait(120) == 0
    assert not left(home)


@pytest.mark.closes("alerts", "watchdog/process/")
def test_one_that_dies_is_named_with_its_last_lines_and_takes_the_others_along(toy, home):
    victim = next(pid for pid, command in processes_of(home).items() if "toy_supervisor two" in command)
    os.kill(victim, signal.SIGKILL)
    said = toy.stdout.read()
    assert toy.wait(120) == 1
    assert "'two' exited by itself (SIGKILL)" in said
    assert "I am two" in said.partition("last lines:")[2]
    assert not left(home)
    settings = Settings.from_env({"ASSETLINE_HOME": str(home)})
    [alert] = AlertStore(settings.database_url).open_alerts()
    assert (alert.cause, alert.severity) == ("watchdog/process/two", "page")
    assert "OPENED page [assetline] watchdog/process/two" in said


def test_a_taken_port_is_named_with_its_setting_before_anything_starts(tmp_path):
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "home"), "ASSETLINE_UI_PORT": str(free_port())})
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = Settings(home=settings.home, database_url=settings.database_url, mlflow_port=port, ui_port=free_port(),
                         service_port=free_port())  # fmt: skip
        with pytest.raises(SupervisorError, match=f"port {port} of MLflow .* set ASSETLINE_MLFLOW_PORT"):
            refuse_taken_ports(programs(taken))
    refuse_taken_ports(programs(taken))
    assert not (tmp_path / "home").exists()


def test_all_listen_on_loopback_alone_unless_the_settings_say_otherwise(tmp_path):
    given = {"ASSETLINE_HOME": str(tmp_path)}
    hosts = {"ASSETLINE_UI_HOST": "10.0.0.5", "ASSETLINE_SERVICE_HOST": "0.0.0.0", "ASSETLINE_WATCH_HOST": "::1"}

    def listening(env: dict[str, str]) -> dict[str, str]:
        return {
            program.name: program.command[program.command.index("--host") + 1]
            for program in programs(Settings.from_env(env))
            if program.port
        }

    assert set(listening(given).values()) == {"127.0.0.1"}
    assert listening({**given, **hosts}) == {
        "ui": "10.0.0.5", "mlflow": "127.0.0.1", "service": "0.0.0.0", "watch": "::1"
    }  # fmt: skip


def test_no_password_is_in_an_argument(tmp_path):
    url = "postgresql+psycopg://me:hushhush@db/mlflow"
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_MLFLOW_STORE": url})
    assert "hushhush" not in str([program.command for program in programs(settings)])
    assert environment(settings)["MLFLOW_BACKEND_STORE_URI"] == url


@pytest.mark.slow
def test_the_real_ones_answer_and_end(tmp_path):
    ports = {name: str(free_port()) for name in ("UI_PORT", "MLFLOW_PORT", "SERVICE_PORT", "WATCH_PORT")}
    home = tmp_path / "home"
    settings = {f"ASSETLINE_{name}": port for name, port in ports.items()}
    process, lines = started(home, [sys.executable, "-m", "serving.supervisor"], settings)
    try:
        assert all(f"http://127.0.0.1:{port}" in "".join(lines) for port in ports.values())
        assert len(processes_of(home)) > 8
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(END_GRACE_S + 10) == 0
        assert "SIGKILL" not in said, said
        assert not left(home)
    finally:
        for pid in processes_of(home):
            os.kill(pid, signal.SIGKILL)
