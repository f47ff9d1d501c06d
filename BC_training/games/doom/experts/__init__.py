"""The scripted experts, by the id of the game they play."""

from BC_training.games.doom.experts.basic import BasicExpert
from BC_training.games.doom.experts.deadly_corridor import DeadlyCorridorExpert
from BC_training.games.doom.experts.defend import DefendTheCenterExpert, DefendTheLineExpert
from BC_training.games.doom.experts.expert import Expert
from BC_training.games.doom.experts.health_gathering_supreme import HealthGatheringSupremeExpert
from BC_training.games.doom.experts.my_way_home import MyWayHomeExpert

EXPERTS: dict[str, type[Expert]] = {
    "doom/basic": BasicExpert,
    "doom/deadly_corridor": DeadlyCorridorExpert,
    "doom/defend_the_center": DefendTheCenterExpert,
    "doom/defend_the_line": DefendTheLineExpert,
    "doom/health_gathering_supreme": HealthGatheringSupremeExpert,
    "doom/my_way_home": MyWayHomeExpert,
}
