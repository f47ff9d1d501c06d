"""The scripted experts, by the scenario they play."""

from BC_training.games.doom.experts.basic import BasicExpert
from BC_training.games.doom.experts.deadly_corridor import DeadlyCorridorExpert
from BC_training.games.doom.experts.defend import DefendTheCenterExpert, DefendTheLineExpert
from BC_training.games.doom.experts.expert import Expert
from BC_training.games.doom.experts.health_gathering_supreme import HealthGatheringSupremeExpert
from BC_training.games.doom.experts.my_way_home import MyWayHomeExpert

EXPERTS: dict[str, type[Expert]] = {
    "basic": BasicExpert,
    "deadly_corridor": DeadlyCorridorExpert,
    "defend_the_center": DefendTheCenterExpert,
    "defend_the_line": DefendTheLineExpert,
    "health_gathering_supreme": HealthGatheringSupremeExpert,
    "my_way_home": MyWayHomeExpert,
}
