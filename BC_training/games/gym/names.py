"""What Gymnasium's documentation calls the actions, axes and observations of its own environments."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Names where the environment itself has none.

    Attributes:
        actions: of a Discrete space, in its order; None does nothing.
        axes: of a Box of actions.
        state: of a vector of observations.
    """

    actions: tuple[str | None, ...] = ()
    axes: tuple[str, ...] = ()
    state: tuple[str, ...] = ()


_CART_POLE = Names(("left", "right"), (), ("cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity"))
_PENDULUM = Names((), ("torque",), ("x", "y", "angular_velocity"))
_MOUNTAIN_CAR = Names(("left", None, "right"), ("force",), ("position", "velocity"))
_LUNAR_LANDER = Names(
    (None, "left_engine", "main_engine", "right_engine"),
    ("main_engine", "lateral_engine"),
    ("x", "y", "velocity_x", "velocity_y", "angle", "angular_velocity", "left_leg", "right_leg"),
)
_WALKER = Names((), ("hip_1", "knee_1", "hip_2", "knee_2"), ())
_FROZEN_LAKE = Names(("left", "down", "right", "up"))
_CLIFF_WALKING = Names(("up", "right", "down", "left"))

# By the id without its namespace and version.
DOCUMENTED = {
    "Acrobot": Names(
        ("torque_minus", None, "torque_plus"),
        (),
        ("cos_1", "sin_1", "cos_2", "sin_2", "angular_velocity_1", "angular_velocity_2"),
    ),
    "BipedalWalker": _WALKER,
    "BipedalWalkerHardcore": _WALKER,
    "Blackjack": Names(("stick", "hit")),
    "CarRacing": Names((None, "steer_right", "steer_left", "gas", "brake"), ("steering", "gas", "brake")),
    "CartPole": _CART_POLE,
    "CliffWalking": _CLIFF_WALKING,
    "CliffWalkingSlippery": _CLIFF_WALKING,
    "FrozenLake": _FROZEN_LAKE,
    "FrozenLake8x8": _FROZEN_LAKE,
    "LunarLander": _LUNAR_LANDER,
    "LunarLanderContinuous": _LUNAR_LANDER,
    "MountainCar": _MOUNTAIN_CAR,
    "MountainCarContinuous": _MOUNTAIN_CAR,
    "Pendulum": _PENDULUM,
    "Taxi": Names(("south", "north", "east", "west", "pickup", "dropoff")),
}
