"""Keys of a game: defaults for any names, and files that are refused in one line."""

import json

import pytest
from dataset_files import user_error

from BC_training.common.keybinds.default_keys import default_keybinds
from BC_training.common.keybinds.play_keys import play_keys

BUTTONS, AXES = ("attack", "jump"), ("steering",)
GOOD = {
    "version": "2.0",
    "actions": {"attack": {"key": "SPACE"}, "jump": {"key": "W", "pad": "A"}},
    "axes": {"steering": {"less": {"key": "LEFT"}, "more": {"key": "RIGHT"}}},
}


def changed(**sections):
    return GOOD | sections


@pytest.mark.parametrize(("raw", "parts"), [
    (changed(version="1.0"), ("version '1.0'",)),
    (changed(actions={"attack": {"key": "SPACE"}}), ("binds nothing to the game's button 'jump'", "--show-keys")),
    (changed(actions=GOOD["actions"] | {"jmup": {"key": "X"}}), ("'jmup'", "did you mean 'jump'")),
    (changed(actions={"attack": {"key": "W"}, "jump": {"key": "w"}}), ("key W is bound to both 'attack' and 'jump'",)),
    (changed(actions={"attack": {"key": "LEFT"}, "jump": {"key": "w"}}), ("'attack' and less 'steering'",)),
    (changed(actions=GOOD["actions"] | {"jump": {"pad": "Q"}}), ("pad of action 'jump' is 'Q'", "LEFTSHOULDER")),
    (changed(actions=GOOD["actions"] | {"jump": {"key": "SPCAE"}}), ("bound to SPCAE, and there is no such key",)),
    (changed(actions=GOOD["actions"] | {"jump": {"mouse": "LEFFT"}}), ("mouse LEFFT, and there is no such button",)),
    (changed(actions=GOOD["actions"] | {"jump": {"key": "F25"}}), ("F25, and there is no such key",)),
    (changed(controls={"pause": "ESCPE"}), ("'ESCPE' is no key",)),
    (changed(axes={}), ("nothing to the game's axis 'steering'",)),
    (changed(axes={"steering": {"amount": 1}}), ("nothing moves axis 'steering'",)),
    (changed(axes={"steering": {"mouse": "Z"}}), ("mouse of axis 'steering' is 'Z'",)),
    (changed(axes={"steering": {"mouse": "X", "counts": 0}}), ("counts of axis 'steering' is 0",)),
    (changed(axes={"steering": {"pad": "LEFTZ"}}), ("'LEFTZ'", "TRIGGERLEFT")),
    (changed(axes={"steering": {"pad": "LEFTX", "dead_zone": 1}}), ("dead_zone of axis 'steering' is 1",)),
    (changed(axes={"steering": {"less": "LEFT"}}), ("'less' of axis 'steering' is 'LEFT'",)),
    (changed(controls={"pause": "W"}), ("key W is bound to both 'jump' and the window's 'pause'",)),
    (changed(controls={"stop": "W"}), ("unknown control 'stop'",)),
])  # fmt: skip
def test_keys_that_do_not_fit_the_game_are_refused(tmp_path, raw, parts):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(raw))
    message = user_error(play_keys, path, BUTTONS, AXES)
    assert not [part for part in (str(path), *parts) if part not in message], message


def test_the_key_for_taking_over_has_no_other_meaning():
    assert "taking over" in user_error(play_keys, None, BUTTONS, AXES, "SPACE")
    assert "no key" in user_error(play_keys, None, BUTTONS, AXES, "")


@pytest.mark.parametrize(("buttons", "axes"), [
    (("move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right"), ()),
    (("attack", "speed"), ("turn", "look")),
    (("B", "A", "MODE", "START", "UP", "DOWN", "LEFT", "RIGHT", "C", "Y", "X", "Z"), ()),
    (("B", "Y", "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A", "X", "L", "R"), ()),
    (("UP", "DOWN", "LEFT", "RIGHT", "FIRE"), ()),
    (("left_engine", "main_engine", "right_engine"), ()),
    ((), ("steering", "gas", "brake")),
    (tuple(f"action_{i}" for i in range(24)), tuple(f"axis_{i}" for i in range(6))),
])  # fmt: skip
def test_default_keys_give_every_button_and_axis_something(tmp_path, buttons, axes):
    """They are a file that is read back as the same."""
    (path := tmp_path / "keys.json").write_text(json.dumps(default_keybinds(buttons, axes)))
    keys = play_keys(path, buttons, axes)
    assert set(range(len(buttons))) <= {c for (device, _), c in keys.columns.items() if device == "key"}
    assert len(keys.axes) == len(axes)
    assert keys == play_keys(None, buttons, axes)
    assert sorted(keys.control_keys) == ["discard", "pause", "quit", "start"]
