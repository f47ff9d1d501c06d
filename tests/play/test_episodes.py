"""Games that die, and processes that are to end with the one that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console  # noqa: F401 (of the processes that are started here)

from BC_training.common.errors import UserError
from BC_training.common.schema import RecordConfig  # noqa: F401
from BC_training.play import (
    episodes,
    record,  # noqa: F401
)
from BC_training.play.episodes import Outcome, Session
from BC_training.play.record import require_players  # noqa: F401
from BC_training.play.rollout import rollout  # noqa: F401
from BC_training.play.scores import RolloutSession
from BC_training.runtime.workers import run_tasks  # noqa: F401
from BC_training.videos import rollouts  # noqa: F401
from BC_training.videos.rollouts import Filming, film_rollouts  # noqa: F401

GAME = "doom/deadly_corridor"
SIZE = (72, 128)


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started and those that these did."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *children(child)]
    return found


def is_engine(pid: int) -> bool:
    """Whether it is a game's process, and runs."""
    try:
        return "vizdoom/vizdoom" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def kill_engines(session: RolloutSession, frame: int, times: int) -> None:
    """Has the game of ``session`` die at a frame of the next ``times`` episodes."""
    open_game, seen, killed = session._open, 0, 0
    before = set(children(os.getpid()))

    def mortal() -> None:
        act = session.player.act

        def deadly_act(observation):
            nonlocal seen, killed
            seen += 1
            if seen >= frame and killed < times:
                seen, killed = 0, killed + 1
                for engine in engines():
                    os.kill(engine, signal.SIGKILL)
            return act(observation)

        session.player.act = deadly_act

    def engines() -> list[int]:
        return list(filter(is_engine, children(os.getpid())))

    def reopen() -> None:
        open_game()
        mortal()

    assert before
    session._open = reopen
    mortal()


def test_a_game_that_dies_is_restarted_and_its_episode_is_the_same():
    session = RolloutSession(GAME, "expert", None, SIZE)
    try:
        undisturbed = session.run((3, False))
        assert undisturbed.restarts == 0
        kill_engines(session, frame=20, times=2)
        assert session.run((3, False)) == Outcome(undisturbed.score, undisturbed.frames, restarts=2)
    finally:
        session.close()


def test_games_killed_at_any_moment_are_restarted():
    """In the middle of a call, too, which then may never return by itself."""
    session = RolloutSession(GAME, "expert", None, SIZE)
    playing = True

    def kill() -> None:
        killed = None
        for wait in (0.3, 0.11, 0.17):  # seconds that a game plays before
            while playing and session.game._calls.engine == killed:  # it is not there before it has started
                time.sleep(0.01)
            time.sleep(wait)
            killed = session.game._calls.engine
            with contextlib.suppress(psutil.NoSuchProcess):
                killed.kill()

    killer = threading.Thread(target=kill)
    try:
        expected = session.run((3, False))
        killer.start()
        found = [session.run((3, False))]
        while killer.is_alive():
            found.append(session.run((3, False)))
        assert {(outcome.score, outcome.frames) for outcome in found} == {(expected.score, expected.frames)}
        assert sum(outcome.restarts for outcome in found) > 0
    finally:
        playing = False
        if killer.ident is not None:
            killer.join()
        session.close()


def test_a_game_that_dies_again_and_again_ends_the_rollout():
    session = RolloutSession(GAME, "noop", None, SIZE)
    try:
        kill_engines(session, frame=2, times=100)
        with pytest.raises(UserError, match=r"doom/deadly_corridor died 4 times in one episode \(the Doom engine died"):
            session.run((0, False))
    finally:
        session.close()


class SlowToLoad(Session):
    """Its game runs, while its player takes long to load, as a policy does."""

    def __init__(self):
        episodes.make_player = lambda *_: time.sleep(600)
        super().__init__(GAME, "noop", frame_size=SIZE)


class SlowToLoadATask(Filming):
    """The same of one that opens its game in a task."""

    def __init__(self):
        episodes.make_player = lambda *_: time.sleep(600)
        super().__init__(GAME, 0)


@pytest.mark.parametrize(
    ("worker", "number"),
    [
        (SlowToLoad, signal.SIGKILL),
        pytest.param(SlowToLoad, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(SlowToLoadATask, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_games_end_with_the_process_whose_workers_still_start(worker, number):
    tasks = [("noop", SIZE)] * 2
    run = f"run_tasks({worker.__name__}, (), {tasks}, 2, Console(), title='', unit=('', len))"
    code = f"from tests.play.test_episodes import *; {run}"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    engines: list[int] = []
    try:
        deadline = time.monotonic() + 300
        while len(engines) < 2 and time.monotonic() < deadline:
            engines = [pid for pid in children(parent.pid) if is_engine(pid)]
            time.sleep(0.02)
        assert len(engines) == 2
        time.sleep(0.5)  # until they have started
        os.kill(parent.pid, number)
        parent.wait(100)
        while any(map(is_engine, engines)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(is_engine, engines))
    finally:
        parent.kill()
        parent.wait()
        for engine in filter(is_engine, engines):
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)


@pytest.mark.parametrize(
    "code",
    [
        f"rollout('noop', {GAME!r}, Console(), episodes=500, workers=1)",
        f"require_players(RecordConfig({GAME!r}, 'noop'))",
        f"film_rollouts(['noop'], {GAME!r}, Path(sys.argv[1]), Console(), workers=1)",
    ],
)
def test_a_game_in_the_commands_own_process_is_closed_before_it_ends(tmp_path, code):
    """In the middle of play, or while a player takes long to load."""
    if not code.startswith("rollout"):
        code = f"record.make_player = rollouts.make_player = lambda *_: time.sleep(600); {code}"
    command = [sys.executable, "-c", f"from tests.play.test_episodes import *; {code}", f"{tmp_path}/x.mp4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    engines: list[int] = []
    try:
        deadline = time.monotonic() + 300
        while not engines and time.monotonic() < deadline:
            engines = [pid for pid in children(process.pid) if is_engine(pid)]
            time.sleep(0.02)
        time.sleep(0.5)  # until it has started
        process.terminate()
        _, errors = process.communicate(timeout=100)
        assert not any(map(is_engine, engines))
        assert (process.returncode, errors) == (143, b"")
    finally:
        process.kill()
        process.wait()
        for engine in filter(is_engine, engines):
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)


def test_workers_and_their_games_end_with_the_process_that_started_them():
    command = [sys.executable, "-m", "BC_training", "rollout", "--player", "expert", "--episodes", "500"]
    parent = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while len(family := children(parent.pid)) < 5 and time.monotonic() < deadline:  # workers, games, a tracker
            time.sleep(0.02)
        time.sleep(0.5)
        family = children(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(100)
        while any(Path(f"/proc/{pid}").exists() for pid in family) and time.monotonic() < deadline + 10:
            time.sleep(0.02)
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    finally:
        if parent.poll() is None:
            parent.kill()
