"""CartPole and LunarLander for ``ppo.py``: as they are, but with a black picture, since both see the state alone.

CartPole has one button, so that a press is one of two actions, as likely as its peer's.
"""

import gymnasium
import numpy as np
from gymnasium.envs.box2d.lunar_lander import LunarLander
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

_BLACK = np.zeros((8, 8, 3), np.uint8)


class Cart(CartPoleEnv):
    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "right"]

    def render(self) -> np.ndarray:
        return _BLACK


class Lander(LunarLander):
    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "left_engine", "main_engine", "right_engine"]

    def render(self) -> np.ndarray:
        return _BLACK


gymnasium.register("BlackCartPole-v1", Cart, max_episode_steps=500)
gymnasium.register("BlackLunarLander-v3", Lander, max_episode_steps=1000)
