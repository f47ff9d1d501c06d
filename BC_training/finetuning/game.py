"""One of the games that are learned in: its episodes, one after the other."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import GameDied, UserError
from BC_training.common.preprocess import resize_frames
from BC_training.finetuning.live import LiveGame, LiveOptions, open_game
from BC_training.finetuning.rewards import Reward
from BC_training.play.episodes import require_few_deaths

Seen = tuple[np.ndarray, np.ndarray]  # a frame uint8 [3, h, w] and the state float32 [S]


class Episode(NamedTuple):
    """One that has ended: its score is the sum of the game's own rewards."""

    game: int
    seed: int
    score: float
    frames: int


class Move(NamedTuple):
    """A step of one game; ``last`` is what a truncated episode showed at its end."""

    seen: Seen
    reward: float = 0.0
    terminated: bool = False
    last: Seen | None = None
    finished: Episode | None = None
    died: bool = False
    waits: bool = False


class Game:
    """A game, and its next episode as soon as one has ended.

    Args:
        number: among all games.
        spec: as a ``GameSpec`` writes it.
        sizes: (H, W) of the frames that it draws, and of those that it shows.
        seeds: of its episodes.
        reward: what is learned from; None for the game's own.
        live: what a window needs.

    Attributes:
        begun: how many episodes it has begun.
    """

    def __init__(
        self,
        number: int,
        spec: str,
        sizes: tuple[tuple[int, int], tuple[int, int]],
        seeds: Iterator[int],
        reward: Reward | None,
        live: LiveOptions | None,
    ):
        self.number, self._spec, self._live = number, spec, live
        self._sizes, self._seeds, self._reward = sizes, seeds, reward
        self._env, self._deaths, self.begun = self._open(), 0, 0

    def begin(self, spec: str) -> Move:
        """Begins an episode, of another game where ``spec`` is another."""
        if spec != self._spec:
            before, self._spec = self._env, spec
            before.close()
            self._env = self._open()
            require_alike(before.unwrapped, self._env.unwrapped, spec)
        self._seed, self._score, self._frames = next(self._seeds), 0.0, 0
        self.begun += 1
        try:
            observation, _ = self._env.reset(seed=self._seed)
        except GameDied as error:
            self._start_again(error)
            return self.begin(spec)
        self._state = observation["state"]
        self._seen = self._shown(observation)
        return Move(self._seen)

    def step(self, action: Action, spec: str) -> Move:
        """Plays a step; where the episode ends with it, also begins the next."""
        try:
            observation, reward, terminated, truncated, info = self._env.step(action)
        except GameDied as error:
            before = self._seen
            self._start_again(error)
            return self.begin(spec)._replace(last=before, died=True)
        if info.get("waits"):
            self._state, self._seen = observation["state"], self._shown(observation)
            return Move(self._seen, waits=True)
        self._score, self._frames = self._score + float(reward), self._frames + 1
        if not math.isfinite(self._score):
            raise UserError(
                f"{self._spec}: a reward of seed {self._seed} is {reward}: it is to be finite, see to the game"
            )
        learned = float(reward)
        if self._reward is not None:
            learned, is_over = self._reward(self._named(self._state), self._named(observation["state"]), learned)
            terminated = terminated or is_over
        self._state, self._seen = observation["state"], self._shown(observation)
        if not terminated and not truncated:
            return Move(self._seen, learned)
        self._deaths = 0
        finished = Episode(self.number, self._seed, self._score, self._frames)
        last = None if terminated else self._seen
        begun = self.begin(spec)
        return begun._replace(reward=learned, terminated=bool(terminated), last=last, finished=finished)

    def look(self) -> Move:
        """What a live game shows now."""
        assert isinstance(self._env, LiveGame)
        observation, _ = self._env.look()
        self._state, self._seen = observation["state"], self._shown(observation)
        return Move(self._seen)

    def rest(self) -> Move:
        """Releases all in a live game."""
        assert isinstance(self._env, LiveGame)
        self._env.hands.rest()
        return Move(self._seen)

    def close(self) -> None:
        self._env.close()

    def _start_again(self, error: GameDied) -> None:
        self._env.close()
        self._deaths += 1
        require_few_deaths(self._spec, self._deaths, error)
        self._env = self._open()

    def _open(self) -> gymnasium.Env:
        return open_game(self._spec, self._sizes[0], self._live)

    def _shown(self, observation: dict[str, np.ndarray]) -> Seen:
        frame = resize_frames(observation["frame"][None], self._sizes[1])[0]
        return np.array(frame), np.array(observation["state"])  # copies: a game may draw into the same memory

    def _named(self, state: np.ndarray) -> dict[str, float]:
        names = self._env.unwrapped.state_names  # pyright: ignore[reportAttributeAccessIssue]
        return dict(zip(names, map(float, state), strict=True))


def require_alike(first: Any, second: Any, spec: str) -> None:
    """Raises a UserError if the game of ``spec``, the second, differs in what is pressed or seen."""
    for name in ("buttons", "axes", "state_names", "frame_size"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if tuple(ours) != tuple(theirs):
            raise UserError(f"{spec} has other {name.replace('_', ' ')} than the game before it: {theirs}, not {ours}")
