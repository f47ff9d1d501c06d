"""The players: random buttons, no buttons, the game's scripted expert, and trained policies."""

from pathlib import Path
from typing import Protocol

import gymnasium
import numpy as np

from BC_training.common.action import Action
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError, unknown
from BC_training.common.schema import HUMAN
from BC_training.games import GameSpec, games_with_experts
from BC_training.games.fit import require_fit
from BC_training.play.scripted import Noop, Random

BUILT_IN = ("expert", "random", "noop")


class Player(Protocol):
    """Chooses the action; made once an environment, reset once an episode."""

    def reset(self, seed: int) -> None:
        """Starts an episode; everything random in it follows from ``seed``."""
        ...

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        """The buttons to hold, and the amounts of the axes, until the next frame."""
        ...


class PolicyPlayer:
    def __init__(self, checkpoint: str, env: gymnasium.Env, decoding: Decoding | None = None):
        from BC_training.play.policy import Policy  # here: scripted players need no JAX

        self._policy = Policy.load(checkpoint, decoding)
        require_fit(checkpoint, self._policy.inputs, env)

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        return self._policy.act(observation["frame"], observation["state"])

    def override(self, action: Action) -> None:
        """Another acted in the frame of the last ``act``; see ``Policy.override``."""
        self._policy.override(action)


def require_player(name: str) -> None:
    """Raises a UserError unless ``name`` is a scripted player or an existing path."""
    if name == HUMAN:
        raise UserError(
            "a person plays in 'record --player human' and takes over in 'record --takeover KEY', nowhere else"
        )
    if name not in BUILT_IN and not Path(name).exists():
        raise unknown("player", name, BUILT_IN, "or give the folder of a checkpoint")


def make_player(name: str, game: str, env: gymnasium.Env, decoding: Decoding | None = None) -> Player:
    """A player for ``env``, the game of the spec ``game``.

    Args:
        name: ``expert``, ``random``, ``noop`` or a checkpoint folder.
        decoding: replaces that of a checkpoint.

    Raises:
        UserError: another name, no expert for this game, or a checkpoint that does not load or fit the game.
    """
    require_player(name)
    if name in (scripted := {"random": Random, "noop": Noop}):
        return scripted[name](env)
    if name == "expert":
        if (expert := GameSpec.parse(game).expert) is None:
            raise UserError(
                f"{game} has no expert (those that have: {', '.join(games_with_experts())}); use random or noop"
            )
        return expert(env)
    return PolicyPlayer(name, env, decoding)
