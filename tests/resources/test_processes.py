import os
import signal
import socket
import subprocess
import sys
import time

from resources.processes import free_port, still_runs, tied_to_parent
from resources.settings import project_root


def test_this_process_still_runs():
    assert still_runs(os.getpid(), time.time())


def test_a_zombie_and_a_process_that_ended_do_not_run():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = time.time()
    assert still_runs(child.pid, started)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it ended, and is not yet taken off the list
    assert not still_runs(child.pid, started)
    child.communicate()
    assert not still_runs(child.pid, started)


def test_a_number_that_went_to_a_newer_process_does_not_count():
    assert not still_runs(os.getpid(), time.time() - 365 * 86400)


def test_a_free_port_can_be_bound():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_a_tied_child_ends_when_its_parent_is_killed():
    parent_code = """
import subprocess, sys, time
from resources.processes import tied_to_parent
command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]
child = subprocess.Popen(tied_to_parent(command), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, cwd=project_root())
    child, began = int(parent.stdout.readline()), time.time()
    assert still_runs(child, began)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 60
    while still_runs(child, began) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not still_runs(child, began)


def test_a_tied_command_keeps_its_exit_code():
    assert subprocess.run(tied_to_parent([sys.executable, "-c", "raise SystemExit(7)"]), check=False).returncode == 7


def test_a_process_that_ignores_interrupts_from_its_start_still_ends_by_sigterm(tmp_path):
    """A shell ignores SIGINT in what it starts in the background, and Dagster gives SIGTERM the same handler."""
    code = """
import time
import dagster as dg
from resources.processes import heed_signals
heed_signals()
@dg.asset
def made(): ...
dg.materialize([made], instance=dg.DagsterInstance.ephemeral())
print("made", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        ["sh", "-c", "trap '' INT; exec \"$0\" -c \"$1\"", sys.executable, code],
        cwd=project_root(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "made\n"
        process.terminate()
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.communicate()
