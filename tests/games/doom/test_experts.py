"""The scripted experts score well, decide from what is in view, and find their way."""

import itertools
import math
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from BC_training.common.action import Action
from BC_training.games import GameSpec, known_games, make_game
from BC_training.games.doom.experts import EXPERTS
from BC_training.games.doom.experts.expert import bearing, steer, turn_to
from BC_training.games.doom.experts.navigation import Routes, Walls
from BC_training.games.doom.game import FAST_TURN
from BC_training.play.episodes import play_frames
from BC_training.play.players import make_player

# --- what they score -----------------------------------------------------------------------

GAINS = {  # the least that an expert scores above random buttons, in mean return
    "doom/basic": 100,
    "doom/deadly_corridor": 1500,
    "doom/defend_the_center": 8,
    "doom/defend_the_line": 8,
    "doom/health_gathering_supreme": 500,
    "doom/my_way_home": 0.9,
}


def test_every_game_has_an_expert():
    assert set(known_games("doom")) == set(GAINS)
    assert all(GameSpec.parse(game).expert is not None for game in GAINS)


@pytest.mark.parametrize("game", [*GAINS, *(f"{game}?mouse=true" for game in GAINS)])
def test_experts_play_better_than_random_buttons(game):
    seeds = (0,) if "mouse" in game else (0, 1)
    with closing(make_game(game, frame_size=(72, 128))) as env:
        scores = {}
        for name in ("expert", "random"):
            player = make_player(name, game, env)
            scores[name] = [list(play_frames(env, player, seed))[-1].score for seed in seeds]
    assert np.mean(scores["expert"]) - np.mean(scores["random"]) > GAINS[game.partition("?")[0]], scores


# --- what they look at ---------------------------------------------------------------------

BUTTONS = ("move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right")
ROOM = ((0, 0, 1000, 0), (1000, 0, 1000, 1000), (1000, 1000, 0, 1000), (0, 1000, 0, 0))


def thing(name: str, x: float, y: float, angle: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(name=name, position_x=x, position_y=y, angle=angle)


def sector(lines) -> list[SimpleNamespace]:
    """The engine's map of blocking lines (x1, y1, x2, y2)."""
    named = (dict(zip(("x1", "y1", "x2", "y2"), line, strict=True)) for line in lines)
    return [SimpleNamespace(lines=[SimpleNamespace(**line, is_blocking=True) for line in named])]


def acted(game: str, player: SimpleNamespace, *things: SimpleNamespace, lines=ROOM, axes=()) -> Action:
    """What the expert does, seeing these things from there."""
    world = SimpleNamespace(buttons=BUTTONS, axes=axes, objects=[player, *things], sectors=sector(lines))
    expert = EXPERTS[game.removeprefix("doom/")](SimpleNamespace(unwrapped=world))  # pyright: ignore
    expert.reset(0)
    return expert.act({})


def pressed(*args: Any, **kwargs: Any) -> set[str]:
    return {name for name, down in zip(BUTTONS, acted(*args, **kwargs).buttons, strict=True) if down}


HERO = thing("DoomPlayer", 500, 500, 90.0)  # looks along +y


@pytest.mark.parametrize(
    ("game", "name"),
    [
        ("doom/defend_the_center", "Demon"),
        ("doom/defend_the_line", "Demon"),
        ("doom/health_gathering_supreme", "CustomMedikit"),
    ],
)
@pytest.mark.parametrize(("x", "y"), [(500, 400), (560, 510), (430, 505)])  # behind it, and aside
def test_what_is_out_of_view_decides_nothing(game, name, x, y):
    assert pressed(game, HERO, thing(name, x, y)) == pressed(game, HERO)
    seen = thing(name, 540, 600)
    assert pressed(game, HERO, seen, thing(name, x, y)) == pressed(game, HERO, seen)


@pytest.mark.parametrize("game", ["doom/defend_the_center", "doom/defend_the_line"])
def test_an_expert_that_stands_still_turns_to_a_monster_and_fires(game):
    assert pressed(game, HERO, thing("Demon", 460, 600)) == {"turn_left"}
    assert pressed(game, HERO, thing("Demon", 540, 600)) == {"turn_right"}
    assert pressed(game, HERO, thing("Demon", 500, 600)) == {"attack"}
    assert pressed(game, HERO, thing("DeadDemon", 500, 600)) == pressed(game, HERO)


def degrees(*args: Any) -> float:
    """How far it turns right, with a mouse."""
    assert not pressed(*args, axes=("turn",)) & {"turn_left", "turn_right"}
    return float(acted(*args, axes=("turn",)).axes[0])


@pytest.mark.parametrize("game", ["doom/basic", "doom/deadly_corridor", "doom/defend_the_center"])
def test_a_mouse_turns_to_a_monster_exactly_and_fires_when_it_gets_there(game):
    near, far = (thing("Zombieman", 500 + aside, 600) for aside in (30, 60))
    assert degrees(game, HERO, near) == pytest.approx(math.degrees(math.atan2(30, 100)))
    assert pressed(game, HERO, near, axes=("turn",)) == {"attack"}
    assert degrees(game, HERO, far) == FAST_TURN  # it is 31 degrees aside
    assert pressed(game, HERO, far, axes=("turn",)) == set()
    assert degrees(game, HERO, thing("Zombieman", 440, 600)) == -FAST_TURN
    assert degrees(game, HERO, thing("Zombieman", 510, 600)) == 0  # the shot hits
    assert pressed(game, HERO, thing("Zombieman", 510, 600), axes=("turn",)) == {"attack"}


def test_a_mouse_turns_to_where_the_way_leads_exactly():
    ahead = math.degrees(math.atan2(120, 300))
    assert degrees("doom/health_gathering_supreme", HERO, thing("CustomMedikit", 620, 800)) == FAST_TURN
    aside = thing("CustomMedikit", 600, 800)
    assert degrees("doom/health_gathering_supreme", HERO, aside) == pytest.approx(math.degrees(math.atan2(100, 300)))
    assert degrees("doom/deadly_corridor", thing("DoomPlayer", 500, 500, ahead - 10)) == pytest.approx(ahead - 10)
    assert degrees("doom/defend_the_line", thing("DoomPlayer", 500, 500, -15.0)) == pytest.approx(-15)


def test_the_expert_that_gathers_health_keeps_off_walls_and_poison():
    game, kit = "doom/health_gathering_supreme", thing("CustomMedikit", 500, 800)
    assert pressed(game, HERO, kit) == {"move_forward"}
    aside = thing("CustomMedikit", 560, 800)
    assert pressed(game, HERO, kit, aside, thing("Poison", 490, 700)) == {"move_forward", "turn_right"}
    assert pressed(game, HERO, kit, thing("Poison", 400, 700)) == {"move_forward"}
    wall = (300, 560, 700, 560)
    assert pressed(game, HERO, kit, lines=(*ROOM, wall)) == {"turn_left"}


def test_the_expert_that_goes_home_walks_around_walls():
    armour, wall = thing("GreenArmor", 500, 900), (100, 700, 1000, 700)
    assert pressed("doom/my_way_home", HERO, armour) == {"move_forward"}
    assert "turn_left" in pressed("doom/my_way_home", HERO, armour, lines=(*ROOM, wall))


def test_without_a_player_nothing_is_pressed():
    world = SimpleNamespace(buttons=BUTTONS, axes=("turn",), objects=[], sectors=[])
    for expert in EXPERTS.values():
        action = expert(SimpleNamespace(unwrapped=world)).act({})  # pyright: ignore
        assert not action.buttons.any()
        assert not action.axes.any()


@given(st.floats(-1e4, 1e4))
def test_turns_are_the_same_angle_within_half_a_turn(degrees):
    turned = turn_to(degrees)
    assert -180 <= turned < 180
    assert math.cos(math.radians(turned - degrees)) == pytest.approx(1, abs=1e-6)


def test_bearings_are_left_positive_and_steering_follows_them():
    assert bearing(HERO, thing("x", 490, 500)) == pytest.approx((10, 90))
    assert bearing(HERO, thing("x", 503, 504)) == pytest.approx((5, -math.degrees(math.atan2(3, 4))))
    assert steer(HERO, 500, 600) == (["move_forward"], 0)
    assert steer(HERO, 480, 600) == (["move_forward"], pytest.approx(math.degrees(math.atan2(20, 100))))
    assert steer(HERO, 600, 500) == ([], pytest.approx(-90))
    buttons, turn = steer(HERO, 501, 400)
    assert (buttons, turn > 150) == ([], True)  # behind: always the same way round


# --- walls and routes ----------------------------------------------------------------------

places = st.tuples(st.integers(-50, 50), st.integers(-50, 50))
lines = st.tuples(places, places).filter(lambda line: line[0] != line[1])


def side(a, b, c) -> int:
    """Whether c lies left (1) of the way from a to b, right (-1), or on it (0); exact for integers."""
    cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return (cross > 0) - (cross < 0)


@given(st.lists(lines, min_size=1, max_size=6), lines)
def test_a_way_is_free_where_no_wall_crosses_it(walls, way):
    start, end = way
    sides = [(side(start, end, a), side(start, end, b), side(a, b, start), side(a, b, end)) for a, b in walls]
    assume(0 not in itertools.chain(*sides))  # touching is a matter of rounding
    crossed = any(s[0] != s[1] and s[2] != s[3] for s in sides)
    found = Walls(sector((*a, *b) for a, b in walls)).free(np.array(start, float), np.array([end], float))
    assert found.tolist() == [not crossed]


def test_lines_that_do_not_block_are_no_walls():
    (room,) = sector(ROOM)
    room.lines += [SimpleNamespace(x1=0, y1=500, x2=1000, y2=500, is_blocking=False)]
    found = Walls([room]).free(np.array([500.0, 100.0]), np.array([[500.0, 900.0], [500.0, 1100.0]]))
    assert found.tolist() == [True, False]


@given(st.lists(lines, min_size=1, max_size=5), st.lists(places, min_size=1, max_size=5))
def test_distances_are_those_of_the_nearest_point_of_a_wall(walls, points):
    shares = np.linspace(0, 1, 1001)[:, None]
    on_walls = np.concatenate([np.array(a) + shares * (np.array(b) - np.array(a)) for a, b in walls])
    expected = [np.hypot(*(on_walls - point).T).min() for point in points]
    found = Walls(sector((*a, *b) for a, b in walls)).distance(np.array(points, float))
    np.testing.assert_allclose(found, expected, atol=0.1)  # the samples are at most 0.15 apart


@pytest.mark.parametrize(("gap", "passes"), [(30, False), (34, True)])
@pytest.mark.parametrize("turn", [0.0, 0.7, 2.0])
def test_a_player_passes_a_gap_wider_than_itself(gap, passes, turn):
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    walls = [rotation @ np.array(p) for p in ((0, gap / 2), (0, 100), (0, -100), (0, -gap / 2))]
    found = Walls(sector([(*walls[0], *walls[1]), (*walls[2], *walls[3])]))
    assert found.walkable(rotation @ (-60, 0), (rotation @ (60, 0))[None]).tolist() == [passes]


def test_routes_are_the_shortest_ways_over_the_grid():
    """They equal Bellman and Ford's relaxation on a map with a dead end and a room without a door."""
    inner = ((100, 0, 100, 200), (200, 300, 200, 100), (200, 100, 260, 100), (0, 240, 60, 240), (60, 240, 60, 300))
    walls = Walls(sector([(0, 0, 300, 0), (300, 0, 300, 300), (300, 300, 0, 300), (0, 300, 0, 0), *inner]))
    spacing, clearance = 20.0, 12.0
    routes = Routes(walls, (281.0, 278.0), clearance, spacing)
    points = [(x, y) for x in np.arange(0, 320, spacing) for y in np.arange(0, 320, spacing)]
    free = {p: walls.distance(np.array([p]))[0] > clearance for p in points}
    goal = (280.0, 280.0)
    lengths = dict.fromkeys(points, math.inf) | {goal: 0.0}
    changed = True
    while changed:
        changed = False
        for x, y in filter(free.__getitem__, points):
            for dx, dy in itertools.product((-spacing, 0, spacing), repeat=2):
                length = lengths.get((x + dx, y + dy), math.inf) + math.hypot(dx, dy)
                if free.get((x + dx, y + dy)) and length < lengths[x, y] - 1e-9:
                    lengths[x, y], changed = length, True
    assert np.isinf(lengths[40.0, 260.0])  # the room without a door
    assert lengths[60.0, 40.0] > 400  # around the walls: 320 as the crow flies
    np.testing.assert_allclose(routes.distances, [lengths[p] for p in points])
    for start in ((60.0, 40.0), (240.0, 140.0), (40.0, 262.0)):
        way = routes.way(np.array(start), 1000)
        steps = np.hypot(*np.diff(way, axis=0).T)
        assert way[-1].tolist() == list(goal)
        assert (walls.distance(way) > clearance).all()
        assert steps.max(initial=0) <= spacing * math.sqrt(2) + 1e-9
        assert steps.sum() == pytest.approx(lengths[tuple(way[0].tolist())])
        np.testing.assert_array_equal(routes.way(np.array(start), 5), way[:5])
