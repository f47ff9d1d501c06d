"""The peer of ``ppo.py``: PPO of stable-baselines3 on a Gymnasium game.

Run by ``ppo.py`` with an interpreter that has it. Its argument is a JSON object of options. Of a Gymnasium game it
prints the agent steps until it was solved, or null, the best mean return of 100 episodes, and the seconds. Of a game
of ours, a spec with a frame size, it prints the agent steps a second and the net's parameters; that interpreter then
needs this project, too.
"""

import json
import sys
from time import perf_counter

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

try:
    from BC_training.common.action import Action
    from BC_training.games import make_game
except ImportError:  # which only the throughput needs
    pass


class Solved(BaseCallback):
    """Ends the training where the mean return of the last 100 episodes reaches ``bar``, looked at when it updates."""

    def __init__(self, bar: float):
        super().__init__()
        self.bar, self.returns, self.steps, self.best = bar, [], None, None

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return self.steps is None

    def _on_rollout_end(self) -> None:
        if len(self.returns) >= 100:
            mean = float(np.mean(self.returns[-100:]))
            self.best = mean if self.best is None else max(self.best, mean)
            if mean >= self.bar:
                self.steps = self.num_timesteps


class Pixels(gymnasium.Wrapper):
    """A game of ours with its frame as the observation and its buttons as a vector."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.observation_space = env.observation_space["frame"]
        self.action_space = gymnasium.spaces.MultiBinary(len(env.unwrapped.buttons))

    def reset(self, **options):
        observation, info = self.env.reset(**options)
        return observation["frame"], info

    def step(self, action):
        observation, *rest = self.env.step(Action.of(action))
        return observation["frame"], *rest


class Presses(gymnasium.ActionWrapper):
    """The actions of a Gymnasium game as presses of independent buttons: ``nearest`` has one for each combination."""

    def __init__(self, env: gymnasium.Env, nearest: list[int]):
        super().__init__(env)
        self.nearest, count = nearest, len(nearest).bit_length() - 1
        self.action_space, self.weights = gymnasium.spaces.MultiBinary(count), 1 << np.arange(count)

    def action(self, action):
        return self.nearest[int(action @ self.weights)]


class Clock(BaseCallback):
    """Notes when each rollout ends."""

    def __init__(self):
        super().__init__()
        self.times = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.times.append(perf_counter())


def throughput(options: dict, settings: dict) -> None:
    def make() -> gymnasium.Env:
        return Pixels(make_game(options["game"], frame_size=tuple(options["frame_size"])))

    env, clock = SubprocVecEnv([make] * options["games"], start_method="spawn"), Clock()
    model = PPO("CnnPolicy", env, device="cpu", **settings)
    model.learn(options["steps"], callback=clock)
    env.close()
    seconds = np.diff(clock.times)[1:]  # the first are slower
    rate = options["games"] * options["horizon"] / np.median(seconds)
    print(json.dumps({"rate": rate, "parameters": sum(x.numel() for x in model.policy.parameters())}))


def main() -> None:
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    rate, clip = options["learning_rate"], options["clip"]
    settings = {
        "n_steps": options["horizon"],
        "batch_size": options["games"] * options["horizon"] // options["minibatches"],
        "n_epochs": options["epochs"],
        "gamma": options["gamma"],
        "gae_lambda": options["gae_lambda"],
        "ent_coef": options["entropy"],
        "learning_rate": (lambda left: rate * left) if options["schedule"] == "linear" else rate,
        "clip_range": clip,
    }
    if "frame_size" in options:
        throughput(options, settings)
        return
    if "nearest" in options:
        wrapper = {"wrapper_class": Presses, "wrapper_kwargs": {"nearest": options["nearest"]}}
    else:
        wrapper = {}
    env = make_vec_env(options["game"], n_envs=options["games"], seed=options["seed"], **wrapper)
    solved, began = Solved(options["bar"]), perf_counter()
    PPO("MlpPolicy", env, seed=options["seed"], device="cpu", **settings).learn(options["steps"], callback=solved)
    print(json.dumps({"steps": solved.steps, "best": solved.best, "seconds": perf_counter() - began}))


if __name__ == "__main__":
    main()
