"""The peer of ``ppo.py``: PPO of stable-baselines3 on a Gymnasium game.

Run by ``ppo.py`` with an interpreter that has it. Its argument is a JSON object of options; it prints the agent steps
until the game was solved, or null, and the seconds.
"""

import json
import sys
from time import perf_counter

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env


class Solved(BaseCallback):
    """Ends the training where the mean return of the last 100 episodes reaches ``bar``, looked at when it updates."""

    def __init__(self, bar: float):
        super().__init__()
        self.bar, self.returns, self.steps = bar, [], None

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return self.steps is None

    def _on_rollout_end(self) -> None:
        if len(self.returns) >= 100 and np.mean(self.returns[-100:]) >= self.bar:
            self.steps = self.num_timesteps


def main() -> None:
    options = json.loads(sys.argv[1])
    torch.set_num_threads(1)
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
    env = make_vec_env(options["game"], n_envs=options["games"], seed=options["seed"])
    solved, began = Solved(options["bar"]), perf_counter()
    PPO("MlpPolicy", env, seed=options["seed"], device="cpu", **settings).learn(options["steps"], callback=solved)
    print(json.dumps({"steps": solved.steps, "seconds": perf_counter() - began}))


if __name__ == "__main__":
    main()
