"""What is used of honcho beyond its public API still works."""

import sys

import psutil
import pytest
from honcho.printer import Message, Printer

from serving.honcho_internals import SessionManager, SignalReceived, Started, Stopped, event_in


class Recorder(Printer):
    """Keeps the events that a manager prints."""

    def __init__(self):
        super().__init__(sys.stdout)
        self.events, self.lines = [], []

    def write(self, message):
        self.lines.append(message)
        if (event := event_in(message)) is not None:
            self.events.append(event)


def played(command: str) -> Recorder:
    recorder = Recorder()
    manager = SessionManager(recorder, kill_after_s=5)
    manager.add_process("one", command)
    manager.loop()
    return recorder


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", -9)])
def test_start_and_stop_are_events_with_the_exit_status(command, code):
    assert played(command).events == [Started("one"), Stopped("one", code)]


def test_what_a_process_writes_is_no_event():
    assert event_in(Message("line", "one stopped (rc=0)\n", None, "one", None)) is None
    assert event_in(Message("line", "SIGTERM received\n", None, "system", None)) == SignalReceived()
    assert event_in(Message("line", "sending SIGTERM to one (pid 1)\n", None, "system", None)) is None


def test_children_end_with_their_process(tmp_path):
    """The child holds the output open, so without the kill honcho would wait for its end."""
    recorder = played(f"sleep 600 & echo $! > {tmp_path}/pid; exit 4")
    assert recorder.events[-1] == Stopped("one", 4)
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
