"""Calls reach an engine that may be dead."""

import os
import signal
import subprocess
import threading
import time

import psutil
import pytest

from BC_training.common.errors import GameDied
from BC_training.games.doom import engine_calls
from BC_training.games.doom.engine_calls import EngineCalls


@pytest.fixture
def calls():
    calls = EngineCalls()
    yield calls
    calls.close()


def test_results_and_errors_come_back_from_another_thread(calls):
    assert calls(lambda: threading.current_thread().name) == "engine"
    with pytest.raises(ZeroDivisionError):
        calls(lambda: 1 / 0)
    assert calls(lambda: 3) == 3


def test_a_call_to_a_living_engine_may_take_its_time(calls, monkeypatch):
    monkeypatch.setattr(engine_calls, "_LOOK", 0.02)
    monkeypatch.setattr(engine_calls, "_GRACE", 0.03)
    calls.engine = psutil.Process()
    assert calls(lambda: time.sleep(0.3) or 5) == 5


def test_the_answer_of_an_interrupted_call_is_not_given_to_the_next(calls):
    class Stop(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stop):
            calls(lambda: os.kill(os.getpid(), signal.SIGUSR1) or time.sleep(0.2) or "late")
        assert calls(lambda: "mine") == "mine"
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("reaped", [False, True])
def test_a_call_to_a_killed_engine_that_does_not_return_is_given_up(calls, reaped):
    engine = subprocess.Popen(["sleep", "60"])
    calls.engine, waiting = psutil.Process(engine.pid), threading.Event()
    engine.kill()
    try:
        if reaped:
            engine.wait()
        with pytest.raises(GameDied):
            calls(waiting.wait)
        with pytest.raises(GameDied):  # at once
            calls(lambda: 3)
    finally:
        waiting.set()
        engine.wait()


def test_the_thread_of_calls_ends_with_them():
    before = set(threading.enumerate())
    calls = EngineCalls()
    (thread,) = set(threading.enumerate()) - before
    assert thread.is_alive()
    calls.close()
    thread.join(10)
    assert not thread.is_alive()
