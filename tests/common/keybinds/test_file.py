"""Key binds are read with all their buttons, or refused in one line that names the action."""

import json

import pytest
from dataset_files import user_error
from recorded_sessions import KEYBINDS

from BC_training.common.keybinds.file import _bind, read_keybinds


def bound(index, key):
    return {"index": index, "key": key}


def with_actions(**actions):
    return json.dumps({"version": "2.0", "actions": actions})


@pytest.mark.parametrize(("text", "parts"), [
    ("{", ("is not a JSON object", "correct it")),
    ("[]", ("is not a JSON object",)),
    (json.dumps(KEYBINDS | {"version": "1.0"}), ("version '1.0'", '"2.0"')),
    (json.dumps({"actions": {}}), ("version None",)),
    (with_actions(), ("binds no actions",)),
    *[(with_actions(a=bind), ("action 'a' has no whole number as \"index\"",))
      for bind in ({"key": "W"}, bound("0", "W"), {"index": True}, 3)],
    (with_actions(a=bound(0, "W"), b=bound(0, "A")), ("'a' and 'b' both have index 0", "renumber")),
    (with_actions(a=bound(0, "W"), b=bound(2, "A")), ("must be 0 to 1, not 0, 2",)),
    (with_actions(a=bound(0, "w"), b=bound(1, "W")), ("key W", "'a' and 'b'", "keep it")),
    (with_actions(a=bound(0, "!"), b=bound(1, "exclam")), ("key ! is bound to both 'a' and 'b'",)),
    (with_actions(a={"index": 0, "mouse": 5}), ("mouse of action 'a' is 5", '"LEFT"')),
    *[(with_actions(a=bound(0, ["A", key])), (f"key of action 'a' is {key!r}", '"W"')) for key in ("", "   ", None)],
    (with_actions(a={"index": 0, "mouse": "W"}), ("mouse of action 'a' is 'W', a key", 'write it as "key"')),
    (with_actions(a={"index": 0, "mouse": "VK_SPACE"}), ("'VK_SPACE', a key",)),
    (with_actions(a={"index": 0}), ("no button is bound to action 'a'", "or remove it")),
    (with_actions(a=bound(0, [])), ("no button is bound to action 'a'",)),
    (with_actions(a={"index": 0, "keys": ["W"]}), ("unknown entry 'keys'; known are index, key, mouse, pad",)),
    (with_actions(a={"index": 0, "key": "W", "Mouse": "LEFT"}), ("unknown entry 'Mouse'",)),
    (with_actions(**{" ": bound(0, "W")}), ("' ' is no name of an action",)),
    ('{"version": "2.0", "actions": {"a": {"index": 0, "key": "W", "key": "A"}}}', ("twice", "'key'")),
    ("[" * 100_000, ("nested too deep",)),
    (None, ("cannot read", "check the path")),
])  # fmt: skip
def test_damaged_key_binds_are_refused(tmp_path, text, parts):
    path = tmp_path / "binds.json"
    if text is not None:
        path.write_text(text)
    message = user_error(read_keybinds, path)
    assert not [part for part in (str(path), *parts) if part not in message], message


def test_both_sides_bound_to_one_action_fit_a_name_without_a_side():
    sides = {("key", "LCTRL"): 0, ("key", "RCTRL"): 0}
    assert _bind(["crouch"], sides).columns == {**sides, ("key", "CTRL"): 0}
    assert ("key", "CTRL") not in _bind(["a", "b"], {("key", "LCTRL"): 0, ("key", "RCTRL"): 1}).columns
