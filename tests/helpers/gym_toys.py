"""Environments that no package has, registered when this module is imported."""

import gymnasium
import numpy as np
from gymnasium import spaces

SHAPES = {"grey": (40, 50), "stack": (1, 40, 50, 1), "rgb": (40, 50, 3), "first": (3, 40, 50)}


class Toy(gymnasium.Env):
    """Noise of its seed, which each step makes brighter by 1.

    Args:
        observations: one of SHAPES, or "parts": a vector, a text and a small map.
        draws: whether ``render`` returns a picture.
        chats: whether its actions are texts.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012 (Gymnasium's)

    def __init__(self, observations="parts", draws=True, chats=False, render_mode=None):
        self.render_mode, self._draws, self._shape = render_mode, draws, SHAPES.get(observations)
        self.action_space = spaces.Text(4) if chats else spaces.Discrete(3)
        vector, small = spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Box(0, 9, (5, 5, 2), np.uint8)
        self.observation_space = spaces.Dict(where=vector, said=spaces.Text(99), map=small, way=spaces.Discrete(4))
        if self._shape is not None:
            self.observation_space = spaces.Box(0, 255, self._shape, np.uint8)

    def _observe(self):
        if self._shape == (3, 40, 50):
            return np.moveaxis(self.picture, -1, 0)
        if self._shape is not None:
            return (self.picture if self._shape[-1] == 3 else self.picture[..., 0]).reshape(self._shape)
        where = np.array([1.5, self.steps], np.float32)
        return {"where": where, "said": "go to the red ball or to", "map": np.zeros((5, 5, 2), np.uint8), "way": 3}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.picture, self.steps = self.np_random.integers(0, 200, (40, 50, 3), np.uint8), 0
        return self._observe(), {}

    def step(self, action):
        self.picture, self.steps = self.picture + 1, self.steps + 1
        return self._observe(), 1.0, False, False, {}

    def render(self):
        return self.picture if self._draws else None


class Blind(Toy):
    """Cannot draw at all."""

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's)

    def __init__(self):
        super().__init__()


gymnasium.register("Toy-v0", Toy)
gymnasium.register("Blind-v0", Blind)
