"""Features of LeRobot datasets in every form: names, shapes, cameras, and columns that are not converted."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from dataset_files import user_error
from lerobot_datasets import (
    CAMERA,
    HEIGHT,
    NAMES,
    WIDTH,
    actions,
    check_read,
    edit_info,
    edit_tables,
    imported,
    opened,
    replace_column,
    set_feature,
    set_info,
)

NUMBERED = ["action_0", "action_1", "action_2"]


@pytest.mark.parametrize(("names", "expected"), [
    (NAMES, NAMES),
    ({"buttons": NAMES}, NAMES),
    ({"left": 2, "jump": 0, "fire": 1}, NAMES),
    ({"jump": 1, "fire": 2, "left": 3}, NAMES),
    ([[NAMES]], NAMES),
    ({"motors": {"axes": NAMES}}, NAMES),
    ({"motors": [{"axes": NAMES}]}, NAMES),
    (["button"], ["button_0", "button_1", "button_2"]),
    ("button", ["button_0", "button_1", "button_2"]),
    ({"motors": "button"}, ["button_0", "button_1", "button_2"]),
    ([0, 1, 2], ["0", "1", "2"]),
    *[(names, NUMBERED)
     for names in (None, [], {}, {"motors": None}, {"axes": []}, {"a": {"b": None}}, [None], [[None] * 3])],
    ([None] * 3, NUMBERED),
])  # fmt: skip
def test_names_may_be_nested_numbered_or_missing(v21, names, expected):
    set_feature("action", names=names)(v21)
    assert opened(v21).keys == tuple(expected)


@pytest.mark.parametrize("names", [
    3, True, 2.5, ["jump", "fire", "left", "right"], ["jump", "jump", "left"], ["jump", "", "left"],
    ["jump", " ", "left"], ["jump", "fi\nre", "left"], ["jump", None, "left"], ["jump", 1.0, "left"],
    ["jump", True, "left"], ["jump", {"name": "fire"}, "left"], ["jump", ["fire"], "left"], ["1", 1, "left"],
    ["\ud800", "fire", "left"], {"jump": 0, "fire": 0, "left": 1}, {"jump": None, "fire": None, "left": None},
    {"a": "jump", "b": "fire", "c": "left"}, {"pad": ["jump"], "keys": ["fire", "left"]},
    [[["jump"], ["fire"], ["left"]]],
])  # fmt: skip
def test_names_that_do_not_name_each_value_once_are_refused(v21, names):
    set_feature("observation.state", names=names)(v21)
    assert "feature 'observation.state' has 2 values and the names" in user_error(opened, v21)
    set_feature("action", names=names)(v21)
    assert "feature 'action' has 3 values and the names" in user_error(opened, v21)


@pytest.mark.parametrize(("damage", "part"), [
    (set_info(features=[]), "no 'features'"),
    (edit_info(lambda i: i.pop("features")), "no 'features'"),
    (set_info(features={"action": None}), "feature 'action' needs a 'dtype'"),
    (set_info(features={"action": {"dtype": None, "shape": [3]}}), "feature 'action' needs a 'dtype'"),
    *[(set_feature("action", shape=shape), "feature 'action' needs a 'dtype' and a 'shape' of whole numbers")
     for shape in (None, "3", [3.0], [True], {"0": 3}, ["a"])],
    *[(set_feature("action", shape=shape), f"feature 'action' has shape {shape}")
     for shape in ([0], [-3], [10**15], [3, 1], [1, 3])],
    *[(set_feature(CAMERA, shape=shape), f"camera '{CAMERA}' has shape {shape}")
     for shape in ([], [HEIGHT], [0, WIDTH, 3], [HEIGHT, -WIDTH], [HEIGHT, WIDTH, 2], [1, 1, 2, 3])],
    (set_feature("action", names=["jump", "fire"]), "feature 'action' has 3 values and the names"),
    (edit_info(lambda i: i["features"].pop("action")), f"no feature 'action' (it has {CAMERA}"),
    (edit_info(lambda i: i["features"].pop(CAMERA)), "no camera among its features (action"),
    (edit_info(lambda i: i["features"].update({"action.keyboard": i["features"].pop("action")})),
     "is it action.keyboard? Then rename that"),
])  # fmt: skip
def test_features_that_cannot_be_converted_are_refused(v21, damage, part):
    damage(v21)
    assert part in user_error(opened, v21)


@pytest.mark.parametrize(("shape", "names"), [
    ([HEIGHT, WIDTH], None),
    ([HEIGHT, WIDTH], ["height", "width"]),
    ([WIDTH, HEIGHT], ["width", "height"]),
    ([HEIGHT, WIDTH, 1], None),
    ([HEIGHT, WIDTH, 4], None),
    ([1, HEIGHT, WIDTH], None),
    ([3, HEIGHT, WIDTH], ["channels", "height", "width"]),
    ([3, HEIGHT, WIDTH], ["height", "width", "channels"]),
    ([HEIGHT, WIDTH, 3], ["channels", "height", "width"]),
    ([WIDTH, HEIGHT, 3], ["width", "height", "channel"]),
    ([HEIGHT, WIDTH, 3], {"axes": ["height", "width", "channels"]}),
    ([HEIGHT, WIDTH, 3], 3),
])  # fmt: skip
def test_the_axes_of_a_camera_may_have_any_order(v21, shape, names):
    set_feature(CAMERA, shape=shape, names=names)(v21)
    check_read(v21)


def test_the_names_of_openpi_are_read(source):
    names = {"action": "actions", "observation.state": "state", CAMERA: "image"}
    edit_info(lambda i: i.update(features={names.get(n, n): f for n, f in i["features"].items()}))(source)
    edit_tables(lambda t: t.rename_columns([names.get(n, n) for n in t.schema.names]))(source)
    for name in ("actions", "state"):
        set_feature(name, names=None)(source)
    check_read(source)
    found = opened(source)
    assert (found.keys, found.attributes) == (tuple(NUMBERED), ("state_0", "state_1"))


def test_one_action_is_a_plain_column(source):
    set_feature("action", names=["fire"], shape=1)(source)
    replace_column("action", lambda c: pa.array([row[0] for row in c.to_pylist()], pa.float32()))(source)
    found = opened(source)
    pressed = [action for _, action, _ in found.read(found.episodes[1]).steps]
    np.testing.assert_array_equal(pressed, actions(1, 6)[:, :1])


def test_columns_that_are_neither_action_nor_state_are_named(source):
    plain = opened(source).read("source/episode_000001")
    assert (plain.notes, plain.attrs) == ((), {"tasks": ["play"]})
    extra: dict[str, Any] = {"dtype": "float32", "shape": [2], "names": None}
    names = ("next.reward", "observation.environment_state", "state")
    edit_info(lambda i: i["features"].update(dict.fromkeys(names, extra)))(source)
    edit_info(lambda i: i["features"].update({"observation.images.wrist": i["features"][CAMERA]}))(source)
    edit_tables(lambda t: t.append_column("undeclared", pa.array([1] * t.num_rows)))(source)
    recording = opened(source, camera=CAMERA).read("source/episode_000001")
    assert recording.notes == (
        "left out, neither action nor state: next.reward, observation.environment_state, state, undeclared",
    )
    assert recording.attrs["not_converted"] == sorted([*names, "undeclared", "observation.images.wrist"])
    assert f"2 cameras ({CAMERA}, observation.images.wrist): choose one with --camera" in user_error(opened, source)
    assert f"did you mean '{CAMERA}'" in user_error(opened, source, camera=CAMERA[:-1])
    check_read(source, camera=CAMERA)


def test_ids_that_float32_cannot_hold_are_refused_or_left_out(source, tmp_path):
    replace_column("observation.state", lambda c: pa.array([[1, 2**24 + 1]] * len(c), pa.list_(pa.int64())))(source)
    assert "'ammo' is 16777217 in row 0" in user_error(imported, source, tmp_path / "x.zarr")
    dataset = imported(source, tmp_path / "x.zarr", leave_out=("ammo",))
    assert dataset.state_names == ("health",)
    np.testing.assert_array_equal(dataset.state(0), np.ones((4, 1)))
    assert opened(source, leave_out=("ammo", "health")).attributes == ()
