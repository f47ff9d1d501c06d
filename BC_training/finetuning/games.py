"""Many games that are played in step, several a worker process, so that one policy acts in all of them at once."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from BC_training.common.action import Action
from BC_training.finetuning.game import Episode, Game, Move, Seen
from BC_training.finetuning.live import LiveOptions
from BC_training.finetuning.rewards import Reward
from BC_training.games import GameSpec
from BC_training.runtime.team import Team


class Transition(NamedTuple):
    """What N games show after a step: of the new episode where one ended.

    Attributes:
        frames: uint8 [N, 3, h, w], of the model's size.
        states: float32 [N, S].
        rewards: float32 [N].
        terminated, truncated: bool [N], where an episode ended, by itself or by its time.
        last: where it was its time, the game's number and what the old episode showed at its end.
        finished: the episodes that ended.
        died: the games that died and were started again; their episodes count as truncated, without a score.
        begun: int64 [N], how many episodes each game has begun, each with a seed of its own.
        waits: whether a game is a window in which nothing was done, as ``LiveGame`` has it.
    """

    frames: np.ndarray
    states: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last: dict[int, Seen]
    finished: list[Episode]
    died: list[int]
    begun: np.ndarray
    waits: bool


_Do = Literal["begin", "step", "look", "rest"]


class _Task(NamedTuple):
    do: _Do
    actions: Sequence[Action]  # of a step
    specs: Sequence[str]  # for the episodes that begin from now on


class ParallelGames:
    """N games in worker processes, the k-th episode of game n with the seed ``first_seed`` + k N + n.

    A game that ends begins its next episode at once. A context manager.

    Args:
        specs: of the N games.
        recorded_size: (H, W) of the frames that the games draw, and ``model_size`` of those that are shown.
        processes: at most; retro has one emulator a process, so that it takes one for each game.
        reward: what is learned from, as ``finetune.reward`` names it; None for the game's own.
        live: what games in windows need beside it, which are learned from by their own reward.

    Attributes:
        are_live: whether they are windows, which go on while nobody plays.
    """

    def __init__(
        self,
        specs: Sequence[str],
        *,
        recorded_size: tuple[int, int],
        model_size: tuple[int, int],
        processes: int,
        first_seed: int,
        reward: str | None = None,
        live: LiveOptions | None = None,
    ):
        self._specs, self._count, self.are_live = [*specs], len(specs), live is not None
        is_retro = any(GameSpec.parse(spec).kind == "retro" for spec in specs)
        parts = np.array_split(np.arange(self._count), self._count if is_retro else min(processes, self._count))
        self._parts = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        sizes = recorded_size, model_size
        own = None if self.are_live else reward, live
        args = [(part.start, self._specs[part], *sizes, self._count, first_seed, *own) for part in self._parts]
        self._begun = np.zeros(self._count, np.int64)
        self._team = Team(GameWorker, args)

    @property
    def begun(self) -> int:
        """How many seeds from the first one on may have been played."""
        return self._count * int(self._begun.max())

    def start(self) -> Transition:
        """Begins the first episode of each game.

        Raises a UserError where a game does not start, as ``step`` does where one fails or a worker process dies.
        """
        return self._run("begin")

    def step(self, actions: Sequence[Action]) -> Transition:
        """Plays a step of each game."""
        return self._run("step", actions)

    def look(self) -> Transition:
        """What live games show now, with all released."""
        return self._run("look")

    def rest(self) -> None:
        """Releases all in live games."""
        self._run("rest")

    def switch(self, specs: Sequence[str]) -> None:
        """Gives each game a spec for its next episode; one that differs in what is pressed or seen is refused then."""
        self._specs = [*specs]

    def _run(self, do: _Do, actions: Sequence[Action] = ()) -> Transition:
        tasks = [_Task(do, actions[part], self._specs[part]) for part in self._parts]
        answers = self._team.run(tasks)
        columns = dict(zip(Transition._fields, zip(*answers, strict=True), strict=True))
        of_games = ("frames", "states", "rewards", "terminated", "truncated", "begun")
        joined: dict[str, Any] = {name: np.concatenate(columns[name]) for name in of_games}
        last = {game: seen for some in columns["last"] for game, seen in some.items()}
        finished, died = ([one for some in columns[name] for one in some] for name in ("finished", "died"))
        self._begun = joined["begun"]
        waits = any(columns["waits"])
        return Transition(**joined, last=last, finished=finished, died=died, waits=waits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._team.close()


class GameWorker:
    """The games of one process (a ``runtime.workers.Worker``): some of ``total`` games, from number ``first`` on."""

    def __init__(
        self,
        first: int,
        specs: Sequence[str],
        recorded_size: tuple[int, int],
        model_size: tuple[int, int],
        total: int,
        first_seed: int,
        reward: str | None,
        live: LiveOptions | None,
    ):
        of_user = None if reward is None else Reward(reward)
        self._games: list[Game] = []
        try:
            for i, spec in enumerate(specs):
                seeds = itertools.count(first_seed + first + i, total)
                self._games.append(Game(first + i, spec, (recorded_size, model_size), seeds, of_user, live))
        except BaseException:
            self.close()
            raise

    def run(self, task: _Task) -> Transition:
        """Plays a step of each of its games, begins their first episodes, looks or rests."""
        moves: dict[int, Move] = {}
        for i, (game, spec) in enumerate(zip(self._games, task.specs, strict=True)):
            match task.do:
                case "begin":
                    moves[game.number] = game.begin(spec)
                case "step":
                    moves[game.number] = game.step(task.actions[i], spec)
                case "look":
                    moves[game.number] = game.look()
                case _:
                    moves[game.number] = game.rest()
        every = moves.values()
        return Transition(
            frames=np.stack([move.seen[0] for move in every]),
            states=np.stack([move.seen[1] for move in every]),
            rewards=np.array([move.reward for move in every], np.float32),
            terminated=np.array([move.terminated for move in every]),
            truncated=np.array([move.last is not None for move in every]),
            last={number: move.last for number, move in moves.items() if move.last is not None},
            finished=[move.finished for move in every if move.finished is not None],
            died=[number for number, move in moves.items() if move.died],
            begun=np.array([game.begun for game in self._games]),
            waits=any(move.waits for move in every),
        )

    def close(self) -> None:
        for game in self._games:
            game.close()
