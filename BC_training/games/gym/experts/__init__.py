"""The scripted experts, by the id that they play."""

from BC_training.games.gym.experts.breakout import BreakoutExpert
from BC_training.games.gym.experts.car_racing import CarRacingExpert
from BC_training.games.gym.experts.cart_pole import CartPoleExpert
from BC_training.games.gym.experts.expert import Expert
from BC_training.games.gym.experts.freeway import FreewayExpert
from BC_training.games.gym.experts.go_to_local import GoToLocalExpert
from BC_training.games.gym.experts.lunar_lander import LunarLanderExpert

EXPERTS: dict[str, type[Expert]] = {
    "ALE/Breakout-v5": BreakoutExpert,
    "ALE/Freeway-v5": FreewayExpert,
    "BabyAI-GoToLocal-v0": GoToLocalExpert,
    "CarRacing-v3": CarRacingExpert,
    "CartPole-v1": CartPoleExpert,
    "LunarLander-v3": LunarLanderExpert,
}
