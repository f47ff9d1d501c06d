"""BabyAI's levels of one room: the bot that comes with them, which sees the whole room as the frame shows it."""

from typing import Any

import numpy as np

from BC_training.games.gym.experts.expert import Expert


class GoToLocalExpert(Expert):
    def choose(self, observation: dict[str, np.ndarray]) -> int:
        from minigrid.utils.baby_ai_bot import BabyAIBot  # here: other games need no MiniGrid

        bot: Any = BabyAIBot(self.raw)  # a new one for each frame, which remembers nothing
        bot.vis_mask[:] = True
        return int(bot.replan())
