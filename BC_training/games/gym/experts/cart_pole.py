"""CartPole: balances the pole and keeps to the middle."""

import numpy as np

from BC_training.games.gym.experts.expert import Expert

_GAINS = (0.05, 0.1, 1.0, 0.35)  # of the cart's position and speed, and the pole's angle and its speed


class CartPoleExpert(Expert):
    def choose(self, observation: dict[str, np.ndarray]) -> int:
        return int(np.dot(_GAINS, observation["state"]) > 0)
