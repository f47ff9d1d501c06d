"""Whether a policy plays the mirrored corridor: its screen flipped, its left and right buttons swapped.

    uv run -m BC_training --config configs/pure_cnn_small.yaml logging.run_name=plain
    uv run -m BC_training --config configs/pure_cnn_small.yaml logging.run_name=flip training.augmentation.flip=0.5
    uv run python benchmarks/mirror.py BC_training/checkpoints/plain BC_training/checkpoints/flip

A policy that learned from mirrored samples too should score alike in both.
"""

import argparse
import os

import gymnasium
import numpy as np
from rich.console import Console

from BC_training.common.action import Action
from BC_training.common.mirror import MirrorTable
from BC_training.data.augment import mirrored
from BC_training.play.episodes import Outcome
from BC_training.play.intervals import mean_interval
from BC_training.play.scores import RolloutSession
from BC_training.runtime.workers import run_tasks
from BC_training.training import checkpoint

GAME = "doom/deadly_corridor"


class MirroredGame(gymnasium.Wrapper):
    """The game in a mirror. The state is left as it is: policies here see frames alone."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        names = env.unwrapped.buttons  # pyright: ignore[reportAttributeAccessIssue]
        self._mirror = MirrorTable(None, names, (), GAME).find(names)

    def reset(self, **options):
        observation, info = self.env.reset(**options)
        return self._mirrored(observation), info

    def step(self, action: Action):
        observation, *rest = self.env.step(action._replace(buttons=action.buttons[list(self._mirror.actions)]))
        return self._mirrored(observation), *rest

    def _mirrored(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        flipped = mirrored({"frames": observation["frame"]}, self._mirror)
        return observation | {"frame": np.asarray(flipped["frames"])}


class MirroredSession(RolloutSession):
    """One worker's mirrored game and player."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.env = MirroredGame(self.env)


def returns(session: type[RolloutSession], player: str, seeds: range, console: Console) -> list[float]:
    """What the checkpoint ``player`` scores in each seed's episode."""
    size = checkpoint.read(player).inputs.recorded_size
    outcomes: list[Outcome] = run_tasks(
        session,
        (GAME, player, None, size),
        [(seed, False) for seed in seeds],
        len(os.sched_getaffinity(0)),
        console,
        title=f"{player} plays",
        unit=("frames", lambda outcome: outcome.frames),
    )
    return [outcome.score for outcome in outcomes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="the first episode's")
    arguments = parser.parse_args()
    seeds, console = range(arguments.seed, arguments.seed + arguments.episodes), Console()
    for player in arguments.checkpoints:
        for name, session in (("normal", RolloutSession), ("mirrored", MirroredSession)):
            scores = returns(session, player, seeds, console)
            low, high = mean_interval(scores, {}) or (float("nan"),) * 2
            print(f"{player}  {name:8}  mean return {np.mean(scores):6.0f}  (95 % interval {low:.0f} to {high:.0f})")


if __name__ == "__main__":
    main()
