"""The loop in which a player plays a game: recording, scoring and filming all go through it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium
import numpy as np
from rich.console import Console

from BC_training.common.action import Action
from BC_training.common.decode import Decoding
from BC_training.common.errors import GameDied, UserError
from BC_training.games import make_game
from BC_training.play.players import Player, make_player
from BC_training.play.say import say

_MOST_RESTARTS = 3  # in one episode

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """A moment of an episode."""

    observation: dict[str, np.ndarray]
    action: Action | None  # until the next frame; None where the episode is over
    score: float  # the return so far


@dataclass(frozen=True)
class Outcome:
    """One episode: its return, its frames, and how often the game died and was restarted."""

    score: float
    frames: int
    restarts: int = 0


def play_frames(env: gymnasium.Env, player: Player, seed: int) -> Iterator[Frame]:
    """Plays the episode of ``seed``: its N frames, each before its action takes effect, and one at its end.

    Raises GameDied where the game's process has ended.
    """
    observation, _ = env.reset(seed=seed)
    player.reset(seed)
    score, over = 0.0, False
    while not over:
        action = player.act(observation)
        yield Frame(observation, action, score)
        observation, reward, terminated, truncated, _ = env.step(action)
        score, over = score + float(reward), terminated or truncated
    yield Frame(observation, None, score)


class Session:
    """A worker (``runtime/workers.py``) whose game and player stay open from one episode to the next.

    Args:
        game: its spec.
        decoding: replaces that of a checkpoint.
        options: of ``make_game``.
    """

    def __init__(self, game: str, player: str, decoding: Decoding | None = None, **options: Any):
        self._name, self._player_name, self._decoding, self._options = game, player, decoding, options
        self._open()

    def _open(self) -> None:
        self.env = make_game(self._name, **self._options)
        try:
            self.game: Any = self.env.unwrapped
            self.player = self._make_player()
        except BaseException:
            self.env.close()
            raise

    def _make_player(self) -> Player:
        return make_player(self._player_name, self._name, self.env, self._decoding)

    def run(self, task: Any) -> Any:
        """Plays one episode and returns what the caller gathers; picklable both ways."""
        raise NotImplementedError

    def with_restarts(self, play: Callable[[], T]) -> tuple[T, int]:
        """Plays an episode by ``play``, again if the game dies; returns its result and the number of restarts.

        Raises a UserError if the game dies more than three times.
        """
        for restarts in range(_MOST_RESTARTS + 1):
            try:
                return play(), restarts
            except GameDied as error:
                self.env.close()
                require_few_deaths(self._name, restarts + 1, error)
                self._open()
        raise AssertionError

    def close(self) -> None:
        self.env.close()


def require_few_deaths(game: str, deaths: int, error: GameDied) -> None:
    """Raises a UserError if a game died more than three times in one episode."""
    if deaths > _MOST_RESTARTS:
        raise UserError(
            f"{game} died {deaths} times in one episode ({error}): see to the machine's memory, then run the same "
            "command again"
        ) from error


def print_restarts(count: int, console: Console) -> None:
    """Prints how often games died, if any did."""
    if count:
        times = "once" if count == 1 else f"{count} times"
        say(console, f"the game died {times}: it was restarted, and its episode played from the start", style="yellow")
