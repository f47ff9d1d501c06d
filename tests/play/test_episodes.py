"""Games that die are restarted, and games end with the process that started them."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.schema import RecordConfig
from BC_training.games.doom import game
from BC_training.play import episodes, record
from BC_training.play.episodes import Session
from BC_training.play.players import Player
from BC_training.play.rollout import rollout
from BC_training.play.scores import RolloutSession
from BC_training.runtime.workers import run_tasks
from BC_training.videos import rollouts
from BC_training.videos.rollouts import Filming

GAME = "doom/deadly_corridor"
SIZE = (72, 128)


class Mortal(RolloutSession):
    """A session whose game dies at the 20th frame of the next ``deaths`` times that it plays."""

    def __init__(self, player: str, deaths: int = 0):
        self.deaths = deaths
        super().__init__(GAME, player, None, SIZE)

    def _make_player(self) -> Player:
        player, frames = super()._make_player(), itertools.count(1)
        act = player.act

        def act_or_die(observation):
            if self.deaths and next(frames) == 20:
                self.deaths -= 1
                self.game._calls.engine.kill()
            return act(observation)

        player.act = act_or_die
        return player


def test_a_game_that_dies_is_restarted_and_its_episode_is_the_same():
    with contextlib.closing(Mortal("expert")) as session:
        undisturbed = session.run((3, False))
        assert undisturbed.restarts == 0
        session.deaths = 2
        assert session.run((3, False)) == replace(undisturbed, restarts=2)


def test_a_game_that_dies_again_and_again_ends_the_rollout():
    with (
        contextlib.closing(Mortal("noop", deaths=100)) as session,
        pytest.raises(UserError, match=r"doom/deadly_corridor died 4 times in one episode \(the Doom engine died"),
    ):
        session.run((0, False))


def test_games_killed_at_any_moment_are_restarted():
    """A call that is killed halfway may never return by itself."""
    session = RolloutSession(GAME, "expert", None, SIZE)
    playing = True

    def kill() -> None:
        killed = None
        for wait in (0.3, 0.11, 0.17):  # seconds that a game plays before
            while playing and session.game._calls.engine == killed:  # the next game has not started yet
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


# --- processes, which run one of these functions -------------------------------------------


def load_slowly(*_: object) -> None:
    """Takes as long as a policy may take to load."""
    time.sleep(600)


class SlowToLoad(Session):
    """A worker whose game runs while its player loads."""

    def __init__(self):
        episodes.make_player = load_slowly
        super().__init__(GAME, "noop", frame_size=SIZE)


class SlowToLoadATask(Filming):
    """A worker that opens its game in a task."""

    def __init__(self):
        episodes.make_player = load_slowly
        super().__init__(GAME, 0)


def play(workers: int) -> None:
    rollout("expert", GAME, Console(), episodes=500, workers=workers)


def start_to_play() -> None:
    game.next = load_slowly  # the engine runs, and the game is not made yet
    play(workers=1)


def start_workers(worker: type) -> None:
    run_tasks(worker, (), [("noop", SIZE)] * 2, 2, Console(), title="", unit=("", len))


def start_to_record() -> None:
    record.make_player = load_slowly
    record.require_players(RecordConfig(GAME, "noop"))


def start_to_film() -> None:
    rollouts.make_player = load_slowly
    rollouts.film_rollouts(["noop"], GAME, Path("x.mp4"), Console(), workers=1)


@contextlib.contextmanager
def started(code: str, folder: Path, games: int) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A process that calls a function of this module, and all that it started, once so many games run."""
    command = [sys.executable, "-c", f"from tests.play.test_episodes import *; {code}"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    family, deadline = [], time.monotonic() + 300

    def running() -> int:
        names = []
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                names.append(child.name())
        return sum("vizdoom" in name for name in names)

    try:
        while running() < games and time.monotonic() < deadline:
            time.sleep(0.02)
            family = psutil.Process(process.pid).children(recursive=True)
        assert running() == games
        time.sleep(0.5)  # until the games have started
        family = psutil.Process(process.pid).children(recursive=True)
        yield process, family
    finally:
        process.kill()
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.communicate()  # last: whoever is left would hold its pipe open


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("play(workers=2)", signal.SIGKILL),
        ("start_workers(SlowToLoad)", signal.SIGKILL),
        pytest.param("start_workers(SlowToLoad)", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("start_workers(SlowToLoadATask)", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_workers_and_their_games_end_with_the_process_that_started_them(tmp_path, code, number):
    with started(code, tmp_path, games=2) as (process, family):
        os.kill(process.pid, number)
        process.wait(100)
        assert not psutil.wait_procs(family, timeout=100)[1]


@pytest.mark.parametrize("code", ["play(workers=1)", "start_to_play()", "start_to_record()", "start_to_film()"])
def test_a_game_in_the_commands_own_process_is_closed_before_it_ends(tmp_path, code):
    with started(code, tmp_path, games=1) as (process, family):
        process.terminate()
        _, errors = process.communicate(timeout=100)
        assert not any(child.is_running() for child in family)
        assert (process.returncode, errors) == (143, b"")
