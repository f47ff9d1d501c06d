"""The scripted experts, by the id of the game they play."""

from BC_training.games.experts.basic import BasicExpert
from BC_training.games.experts.deadly_corridor import DeadlyCorridorExpert
from BC_training.games.experts.defend import DefendTheCenterExpert, DefendTheLineExpert
from BC_training.games.experts.expert import Expert
from BC_training.games.experts.health_gathering_supreme import HealthGatheringSupremeExpert
from BC_training.games.experts.my_way_home import MyWayHomeExpert

EXPERTS: dict[str, type[Expert]] = {
    "doom/basic": BasicExpert,
    "doom/deadly_corridor": DeadlyCorridorExpert,
    "doom/defend_the_center": DefendTheCenterExpert,
    "doom/defend_the_line": DefendTheLineExpert,
    "doom/health_gathering_supreme": HealthGatheringSupremeExpert,
    "doom/my_way_home": MyWayHomeExpert,
}
