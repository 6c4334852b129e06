"""``assetline rekey``: gives stored pseudonyms the newest key.

Belongs here: arguments, and text output. Does not belong here: what is rewritten (``assets/lifecycle/rekeying.py``),
adding a key (``cli/keys.py``).
"""

from __future__ import annotations

from cli.errors import read_settings, reported
from resources.settings import Settings


def rekey() -> None:
    """Give all stored pseudonyms the newest key, after `assetline keys rotate pseudonyms`; stop everything else before.

    A run that was stopped is finished by the next one.
    """
    settings = read_settings("assetline rekey")
    from filelock import FileLock, Timeout

    from assets.lifecycle.rekeying import rekey as give_newer_keys
    from assets.models import read_folders
    from resources.keys import KeyProblem, KeyRing
    from resources.request_log import LogError, RequestLog
    from resources.tables import ParquetTables, TableError

    with reported("assetline rekey", KeyProblem, TableError, LogError):
        _refuse_running(settings)
        models, broken = read_folders()
        if broken:
            raise KeyProblem(
                f"the model '{broken[0].name}' is broken: {broken[0].reason}. Its declaration says which columns "
                "hold pseudonyms, so correct or remove it first"
            )
        try:
            # Nothing that runs jobs in its own process may do so at the same time.
            with FileLock(settings.home / ".runner.lock", timeout=0):
                log = RequestLog(folder=str(settings.serving), url=settings.history_url)
                done = give_newer_keys(models, ParquetTables(root=settings.tables), log, KeyRing.of(settings))
        except Timeout as error:
            raise KeyProblem("a job of this state folder is running; wait for its end") from error
    if not done.added:
        print("nothing to do: the stored pseudonyms have the newest key (`assetline keys rotate pseudonyms` adds one)")
        return
    rewritten = f"{done.files:,} days of tables and {done.lines:,} lines of the log of requests"
    print(f"{rewritten} have the key {done.added[-1]}; start everything again, and keep the older keys")


def _refuse_running(settings: Settings) -> None:
    from resources.keys import KeyProblem
    from serving.supervisor import SupervisorError, programs, refuse_taken_ports

    try:
        refuse_taken_ports(programs(settings))
    except SupervisorError as error:
        taken = str(error).splitlines()[0].partition(";")[0]
        raise KeyProblem(f"{taken}: stop `assetline dev` and all scoring services before you re-key") from error
