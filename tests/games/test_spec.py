"""A spec names a game and its options."""

import sys
from types import SimpleNamespace

import pytest

from BC_training.common.errors import UserError
from BC_training.games import GameSpec, Option, known_games, make_game, register, spec
from BC_training.play.players import make_player

CORRIDOR = "doom/deadly_corridor"


@pytest.mark.parametrize(
    ("text", "written", "fair", "file_name"),
    [
        (f"{CORRIDOR}?", CORRIDOR, CORRIDOR, "deadly_corridor"),
        (f"{CORRIDOR}?skill=3&delay=0", CORRIDOR, CORRIDOR, "deadly_corridor"),
        ("doom/basic?skill=5&delay=2", "doom/basic?delay=2&skill=5", "doom/basic?skill=5", "basic-delay-2-skill-5"),
    ],
)
def test_specs_of_the_same_game_are_equal_and_written_the_same(text, written, fair, file_name):
    found = GameSpec.parse(text)
    assert (str(found), str(found.without_handicaps), found.file_name) == (written, fair, file_name)
    assert GameSpec.parse(written) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadly_corridor", "unknown game 'deadly_corridor'; did you mean 'doom/deadly_corridor'"),
        ("doom/my_way_hom?skill=4", "unknown game 'doom/my_way_hom'; did you mean 'doom/my_way_home'"),
        ("doom/basic?skil=4", r"unknown option of doom/basic 'skil'; did you mean 'skill'\? \(known: delay, mouse"),
        ("doom/basic?skill=4&skill=4", "the option skill is there twice"),
        ("doom/basic?skill=6", "skill=6 is out of range: 1 to 5, a whole number"),
        ("doom/basic?skill=hard", "skill=hard is out of range: 1 to 5"),
        ("doom/basic?skill=true", "skill=true is out of range: 1 to 5"),
        ("doom/basic?skill=[4]", r"skill=\[4\] is out of range: 1 to 5"),
        ("doom/basic?delay=-1", "delay=-1 is out of range: 0 to 350"),
        ("doom/basic?delay=351", "delay=351 is out of range: 0 to 350"),
    ],
)
def test_a_wrong_spec_is_a_one_line_error_that_names_what_there_is(text, message):
    with pytest.raises(UserError, match=message) as error:
        make_game(text)
    assert "\n" not in str(error.value)


def make_toy(name: str, **arguments) -> SimpleNamespace:
    return SimpleNamespace(name=name, arguments=arguments)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(spec, "_KINDS", dict(spec._KINDS))
    options = {"mouse": Option(default=False), "speed": Option(1.0, 0.5, 2.0, is_handicap=True)}
    monkeypatch.setitem(sys.modules, "a_toy", sys.modules[__name__])
    register("toy", names=lambda: ["a/one", "two"], make="a_toy:make_toy", engine="toys", options=options)


def test_one_call_registers_a_kind_of_game_with_its_options(toy):
    assert known_games()[-2:] == ["toy/a/one", "toy/two"]
    game = make_game("toy/a/one?speed=1.5&mouse=true", frame_size=(8, 9))
    arguments = {"frame_size": (8, 9), "render_mode": None, "mouse": True, "speed": 1.5}
    assert (game.name, game.arguments) == ("a/one", arguments)
    found = GameSpec.parse("toy/a/one?speed=1.5&mouse=true")
    assert (str(found), found.file_name) == ("toy/a/one?mouse=true&speed=1.5", "a-one-mouse-true-speed-1.5")
    assert str(found.without_handicaps) == "toy/a/one?mouse=true"


def test_a_kind_of_game_may_have_no_experts(toy):
    assert GameSpec.parse("toy/two").expert is None
    with pytest.raises(UserError, match=r"toy/two has no expert \(those that have: doom/basic, .*\); use random"):
        make_player("expert", "toy/two", SimpleNamespace())
    with pytest.raises(UserError, match="mouse=1 is out of range: true or false"):
        GameSpec.parse("toy/two?mouse=1")
