"""Processes that are told to end, whatever they are doing."""

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
    """Leaves a file for each thing that it comes to do."""

    def __init__(self, folder: Path):
        self._folder, self._pid = folder, os.getpid()

    def run(self, task: str) -> int:
        if task == "short":
            wait_for(self._folder, "running")  # in another process
            self._say("idle")
            return 0
        try:
            self._say("running")
            time.sleep(120)
        except SystemExit:
            if task == "deaf":
                return 0
            raise
        finally:
            self._say("closing")
            time.sleep(0.5)
            self._say("closed")
        return 0

    def close(self) -> None:
        self._say("ended")

    def _say(self, word: str) -> None:
        (self._folder / f"{word}-{self._pid}").touch()


def wait_for(folder: Path, word: str, count: int = 1) -> list[int]:
    """The processes that have said ``word``, once they are ``count``."""
    limit = time.monotonic() + 60
    while len(said := list(folder.glob(f"{word}-*"))) < count:
        assert time.monotonic() < limit
        time.sleep(0.02)
    return [int(file.name.partition("-")[2]) for file in said]


@pytest.mark.parametrize(
    ("tasks", "word", "count"),
    [(["long", "long"], "running", 2), (["deaf", "deaf"], "running", 2), (["short", "long"], "idle", 1)],
)
def test_a_worker_closes_what_it_opened_and_ends(tmp_path, tasks, word, count):
    """In a task, in one that goes on all the same, and between two; a second signal disturbs nothing."""

    def end() -> None:
        told.extend(wait_for(tmp_path, word, count))
        time.sleep(0.3)
        for pid in told:
            os.kill(pid, signal.SIGTERM)
        if word == "running":
            wait_for(tmp_path, "closing", count)
            for pid in told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    told: list[int] = []
    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(UserError, match="a worker process died"):
        run_tasks(Opener, (tmp_path,), tasks, 2, QUIET, title="", unit=("", int))
    thread.join()
    assert len(told) == count
    for pid in told:
        assert not psutil.pid_exists(pid)
        assert (tmp_path / f"ended-{pid}").exists()
        assert (tmp_path / f"closed-{pid}").exists() == (word == "running")
