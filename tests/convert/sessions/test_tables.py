"""Events and memory values under any names are read, or refused with their line."""

import pytest
from dataset_files import user_error

from BC_training.convert.sessions.tables import memory_columns, read_inputs, read_memory

HEADER = "timestamp_us,event_type,key_or_button\n"
W = ("key", "W")


@pytest.mark.parametrize(("text", "parts"), [
    ("", ("no column timestamp_us, event_type, key_or_button", "it has none")),
    (HEADER + "1,KEY_DOWN,W\n2,CLICK,W\n", ("line 3", "'CLICK'", "KEY_DOWN, KEY_UP", "remove these rows")),
    (HEADER + "1,press,left\n", ("line 2", "'left' may be a key or a button of the mouse", "MOUSE_")),
    *[(f"{HEADER}1,{row}\n", ("line 2", "key_or_button is empty", "SPACE"))
      for row in ("MOUSE_DOWN, ", "KEY_DOWN,   ", "KEY_DOWN,")],
    *[(f"{HEADER}{time},KEY_DOWN,W\n", ("line 2", f"'{time}' is not a number")) for time in ("soon", "nan")],
    (HEADER + "5,KEY_DOWN,W\n4,KEY_UP,W\n", ("line 3", "4 is before 5", "sort the rows")),
    (HEADER + "1,KEY_DOWN,\xff\n", ("not a CSV in UTF-8",)),
])  # fmt: skip
def test_damaged_inputs_are_refused(tmp_path, text, parts):
    path = tmp_path / "inputs.csv"
    path.write_text(text, encoding="latin-1")
    message = user_error(read_inputs, path)
    assert not [part for part in (str(path), *parts) if part not in message], message


@pytest.mark.parametrize(("down", "up", "text", "button"), [
    ("key_down", "keyup", "w", W),
    ("KEY_PRESS", "KEY_RELEASE", "w", W),
    ("KeyPressed", "KeyReleased", "w", W),
    ("KEY_REPEAT", "KEY_UP", "w", W),
    ("key_hold", "key_up", "w", W),
    ("WM_KEYDOWN", "WM_KEYUP", "VK_W", W),
    ("press", "release", "Key.left", ("key", "LEFT")),
    ("down", "up", "Button.left", ("mouse", "LEFT")),
    ("MOUSEBUTTONDOWN", "MOUSEBUTTONUP", "left", ("mouse", "LEFT")),
    ("ButtonPress", "ButtonRelease", "BTN_LEFT", ("mouse", "LEFT")),
    ("KEY_DOWN", "KEY_UP", "VK_LBUTTON", ("mouse", "LEFT")),
])  # fmt: skip
def test_events_may_have_other_names(tmp_path, down, up, text, button):
    (tmp_path / "inputs.csv").write_text(f"{HEADER}1,{down},{text}\n2,{up},{text}\n")
    inputs = read_inputs(tmp_path / "inputs.csv")
    assert (inputs.buttons, inputs.down.tolist()) == ([button] * 2, [True, False])


def test_events_without_a_button_are_left_out_and_counted(tmp_path):
    names = ["MOUSE_MOVE", "mousemove", "WHEEL", "mouse_scroll", "FOCUS_LOST", "blur", "MouseEnter"]
    names += ["POINTER_MOTION", "wheel_up", "EV_SYN"]
    (tmp_path / "inputs.csv").write_text(f"{HEADER}5,KEY_DOWN,W\n" + "".join(f"nan,{name},\n" for name in names * 2))
    inputs = read_inputs(tmp_path / "inputs.csv")
    assert inputs.buttons == [W]
    assert inputs.left_out == dict.fromkeys(names, 2)


def read(path):
    return read_memory(path, memory_columns(path))


@pytest.mark.parametrize(("text", "parts"), [
    ("health,ammo\n1,2\n", ("no column timestamp_us",)),
    ("timestamp_us,health,ammo\n", ("no row",)),
    ("timestamp_us,health,ammo\n0,1,2\n1,1,nan\n", ("line 3", "ammo is 'nan'")),
    *[(f"timestamp_us,health,ammo\n0,{value},2\n", ("line 2", f"health is '{value}'", 'add --leave-out "health"'))
      for value in ("", "1e39", "full")],
    (f"timestamp_us,id\n0,{2**60 + 1}\n", ("line 2", "a whole number that no float holds", "number its values")),
    (",timestamp_us,health\n0,0,9\n2,1,8\n", ("line 3: column 1 has no name", "name it in the header")),
    ("timestamp_us,,health\n0,100,9\n1,90,8\n", ("line 2: column 2 has no name",)),
])  # fmt: skip
def test_damaged_memory_is_refused(tmp_path, text, parts):
    path = tmp_path / "m.csv"
    path.write_text(text)
    message = user_error(read, path)
    assert not [part for part in (str(path), *parts) if part not in message], message


def test_truth_values_and_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "m.csv").write_text("\ufefftimestamp_us,alive\n0,True\n15000,false\n\n", encoding="utf-8")
    assert read(tmp_path / "m.csv").values.tolist() == [[1], [0]]


def test_a_column_without_a_name_is_left_out_if_it_numbers_the_rows(tmp_path):
    path = tmp_path / "m.csv"
    for name in ("", "Unnamed: 0"):
        for first in (0, 1):
            path.write_text(f"{name},timestamp_us,health\n" + "".join(f"{i + first},{i},{9 - i}\n" for i in range(3)))
            assert memory_columns(path) == ("health",)
            memory = read(path)
            assert (memory.numbered, memory.values.tolist()) == (True, [[9], [8], [7]])
