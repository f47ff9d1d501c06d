"""Worker processes get a signal to end."""

import contextlib
import os
import signal
import threading
import time
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.runtime.workers import run_tasks

QUIET = Console(file=StringIO())


class Opener:
    """Leaves a file for each of its steps."""

    def __init__(self, folder: Path):
        self._folder, self._pid = folder, os.getpid()

    def run(self, task: str) -> int:
        if task == "short":
            wait_for(self._folder, "running")  # in another process
            self._note("idle")
            return 0
        try:
            self._note("running")
            time.sleep(120)
        except SystemExit:
            if task == "stubborn":
                return 0
            raise
        finally:
            self._note("closing")
            time.sleep(0.5)
            self._note("closed")
        return 0

    def close(self) -> None:
        self._note("ended")

    def _note(self, word: str) -> None:
        (self._folder / f"{word}-{self._pid}").touch()


class ThreadCounter:
    def run(self, task: int) -> tuple[int, str]:
        time.sleep(0.2)  # so that each process gets a task
        return os.getpid(), os.environ["PJRT_NPROC"]

    def close(self) -> None: ...


def wait_for(folder: Path, word: str, count: int = 1) -> list[int]:
    """Waits for ``count`` processes to leave a file ``word``, and returns their ids."""
    limit = time.monotonic() + 60
    while len(files := list(folder.glob(f"{word}-*"))) < count:
        assert time.monotonic() < limit
        time.sleep(0.02)
    return [int(file.name.partition("-")[2]) for file in files]


@pytest.mark.parametrize(
    ("tasks", "word", "count"),
    [(["long", "stubborn"], "running", 2), (["short", "long"], "idle", 1)],
)
def test_a_worker_closes_what_it_opened_and_ends(tmp_path, tasks, word, count):
    """In a task, in a task that swallows the signal, and between two tasks; a second signal changes nothing."""

    def end() -> None:
        pids.extend(wait_for(tmp_path, word, count))
        time.sleep(0.3)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        if word == "running":
            wait_for(tmp_path, "closing", count)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    pids: list[int] = []
    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(UserError, match="a worker process died"):
        run_tasks(Opener, (tmp_path,), tasks, 2, QUIET, title="", unit=("", int))
    thread.join()
    assert len(pids) == count
    for pid in pids:
        assert not psutil.pid_exists(pid)
        assert (tmp_path / f"ended-{pid}").exists()
        assert (tmp_path / f"closed-{pid}").exists() == (word == "running")


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    found = run_tasks(ThreadCounter, (), range(4), 2, QUIET, title="", unit=("tasks", lambda result: 1))
    assert {threads for _, threads in found} == {"3"}
