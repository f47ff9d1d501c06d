"""Who plays: random buttons, nobody, and trained policies; the scripted experts are in ``experts/``."""

from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np

from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError, unknown
from BC_training.common.preprocess import InputSpec
from BC_training.games.experts import EXPERTS


class Player(Protocol):
    """Chooses the buttons; made once an environment, reset once an episode."""

    def reset(self, seed: int) -> None:
        """Starts an episode; everything random in it follows from ``seed``."""
        ...

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """bool [A], the buttons to hold until the next frame."""
        ...


class Noop:
    """Presses nothing."""

    def __init__(self, env: gymnasium.Env):
        self._actions = len(_unwrapped(env).action_names)

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros(self._actions, bool)


class Random:
    """Presses each button with probability 1/2, drawn anew every frame."""

    def __init__(self, env: gymnasium.Env):
        self._actions = len(_unwrapped(env).action_names)
        self._rng = np.random.default_rng()

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        return self._rng.random(self._actions) < 0.5


class PolicyPlayer:
    """A trained policy, from its checkpoint folder."""

    def __init__(self, checkpoint: str, env: gymnasium.Env, decoding: Decoding | None = None):
        from BC_training.inference import Policy  # here: scripted players need no JAX

        self._policy = Policy.load(checkpoint, decoding)
        require_fit(checkpoint, self._policy.inputs, env)

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        return self._policy.act(observation["frame"], observation["state"])


BUILT_IN = ("expert", "random", "noop")


def make_player(name: str, game: str, env: gymnasium.Env, decoding: Decoding | None = None) -> Player:
    """A player for ``env``.

    Args:
        name: ``expert``, ``random``, ``noop`` or a checkpoint folder.
        game: the game's id.
        decoding: of a checkpoint, in place of its own.

    Raises:
        UserError: another name, ``expert`` in a game that has none, or a checkpoint that does
            not load or does not fit the game (``require_fit``).
    """
    if name == "random":
        return Random(env)
    if name == "noop":
        return Noop(env)
    if name == "expert":
        if game not in EXPERTS:
            raise UserError(f"{game} has no expert (those that have: {', '.join(sorted(EXPERTS))}); use random or noop")
        return EXPERTS[game](env)
    if not Path(name).exists():
        raise unknown("player", name, BUILT_IN, "or give the folder of a checkpoint")
    return PolicyPlayer(name, env, decoding)


def require_fit(trained: str, inputs: InputSpec, env: gymnasium.Env) -> None:
    """Whether a policy that was ``trained`` on ``inputs`` can play in ``env``.

    Raises:
        UserError: the buttons, the frame size or the state values that the model sees differ;
            lists both.
    """
    game = _unwrapped(env)
    compared = [
        ("buttons", game.action_names, inputs.action_names),
        ("frame size", game.frame_size, inputs.recorded_size),
    ]
    if inputs.window.state:
        compared.append(("state values", game.state_names, inputs.state_names))
    for label, theirs, ours in compared:
        if tuple(theirs) != tuple(ours):
            raise UserError(f"{trained} has {label} {_listed(ours)}, the game has {_listed(theirs)}")


def _listed(values: Any) -> str:
    return f"[{', '.join(str(v) for v in values)}]"


def _unwrapped(env: gymnasium.Env) -> Any:
    return env.unwrapped
