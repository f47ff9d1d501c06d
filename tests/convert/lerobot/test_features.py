"""Features of LeRobot datasets in every form: names, shapes, cameras, and columns that are not converted."""

from typing import Any

import lerobot_datasets as lr
import numpy as np
import pyarrow as pa
import pytest
from dataset_files import user_error

NUMBERED = ["action_0", "action_1", "action_2"]


@pytest.mark.parametrize(("names", "expected"), [
    (lr.NAMES, lr.NAMES),
    ({"buttons": lr.NAMES}, lr.NAMES),
    ({"left": 2, "jump": 0, "fire": 1}, lr.NAMES),
    ({"jump": 1, "fire": 2, "left": 3}, lr.NAMES),
    ([[lr.NAMES]], lr.NAMES),
    ({"motors": {"axes": lr.NAMES}}, lr.NAMES),
    ({"motors": [{"axes": lr.NAMES}]}, lr.NAMES),
    (["button"], ["button_0", "button_1", "button_2"]),
    ("button", ["button_0", "button_1", "button_2"]),
    ({"motors": "button"}, ["button_0", "button_1", "button_2"]),
    ([0, 1, 2], ["0", "1", "2"]),
    *[(names, NUMBERED)
     for names in (None, [], {}, {"motors": None}, {"axes": []}, {"a": {"b": None}}, [None], [[None] * 3])],
    ([None] * 3, NUMBERED),
])  # fmt: skip
def test_names_may_be_nested_numbered_or_missing(v21, names, expected):
    lr.set_feature("action", names=names)(v21)
    assert lr.opened(v21).button_names == tuple(expected)


@pytest.mark.parametrize("names", [
    3, True, 2.5, ["jump", "fire", "left", "right"], ["jump", "jump", "left"], ["jump", "", "left"],
    ["jump", " ", "left"], ["jump", "fi\nre", "left"], ["jump", None, "left"], ["jump", 1.0, "left"],
    ["jump", True, "left"], ["jump", {"name": "fire"}, "left"], ["jump", ["fire"], "left"], ["1", 1, "left"],
    ["\ud800", "fire", "left"], {"jump": 0, "fire": 0, "left": 1}, {"jump": None, "fire": None, "left": None},
    {"a": "jump", "b": "fire", "c": "left"}, {"pad": ["jump"], "keys": ["fire", "left"]},
    [[["jump"], ["fire"], ["left"]]],
])  # fmt: skip
def test_names_that_do_not_name_each_value_once_are_refused(v21, names):
    lr.set_feature("observation.state", names=names)(v21)
    assert "feature 'observation.state' has 2 values and the names" in user_error(lr.opened, v21)
    lr.set_feature("action", names=names)(v21)
    assert "feature 'action' has 3 values and the names" in user_error(lr.opened, v21)


@pytest.mark.parametrize(("damage", "part"), [
    (lr.set_info(features=[]), "no 'features'"),
    (lr.edit_info(lambda i: i.pop("features")), "no 'features'"),
    (lr.set_info(features={"action": None}), "feature 'action' needs a 'dtype'"),
    (lr.set_info(features={"action": {"dtype": None, "shape": [3]}}), "feature 'action' needs a 'dtype'"),
    *[(lr.set_feature("action", shape=shape), "feature 'action' needs a 'dtype' and a 'shape' of whole numbers")
     for shape in (None, "3", [3.0], [True], {"0": 3}, ["a"])],
    *[(lr.set_feature("action", shape=shape), f"feature 'action' has shape {shape}")
     for shape in ([0], [-3], [10**15], [3, 1], [1, 3])],
    *[(lr.set_feature(lr.CAMERA, shape=shape), f"camera '{lr.CAMERA}' has shape {shape}")
     for shape in ([], [lr.HEIGHT], [0, lr.WIDTH, 3], [lr.HEIGHT, -lr.WIDTH], [lr.HEIGHT, lr.WIDTH, 2], [1, 1, 2, 3])],
    (lr.set_feature("action", names=["jump", "fire"]), "feature 'action' has 3 values and the names"),
    (lr.edit_info(lambda i: i["features"].pop("action")), f"no feature 'action' (it has {lr.CAMERA}"),
    (lr.edit_info(lambda i: i["features"].pop(lr.CAMERA)), "no camera among its features (action"),
    (lr.edit_info(lambda i: i["features"].update({"action.keyboard": i["features"].pop("action")})),
     "is it action.keyboard? Then rename that"),
])  # fmt: skip
def test_features_that_cannot_be_converted_are_refused(v21, damage, part):
    damage(v21)
    assert part in user_error(lr.opened, v21)


@pytest.mark.parametrize(("shape", "names"), [
    ([lr.HEIGHT, lr.WIDTH], None),
    ([lr.HEIGHT, lr.WIDTH], ["height", "width"]),
    ([lr.WIDTH, lr.HEIGHT], ["width", "height"]),
    ([lr.HEIGHT, lr.WIDTH, 1], None),
    ([lr.HEIGHT, lr.WIDTH, 4], None),
    ([1, lr.HEIGHT, lr.WIDTH], None),
    ([3, lr.HEIGHT, lr.WIDTH], ["channels", "height", "width"]),
    ([3, lr.HEIGHT, lr.WIDTH], ["height", "width", "channels"]),
    ([lr.HEIGHT, lr.WIDTH, 3], ["channels", "height", "width"]),
    ([lr.WIDTH, lr.HEIGHT, 3], ["width", "height", "channel"]),
    ([lr.HEIGHT, lr.WIDTH, 3], {"axes": ["height", "width", "channels"]}),
    ([lr.HEIGHT, lr.WIDTH, 3], 3),
])  # fmt: skip
def test_the_axes_of_a_camera_may_have_any_order(v21, shape, names):
    lr.set_feature(lr.CAMERA, shape=shape, names=names)(v21)
    lr.check_read(v21)


def test_the_names_of_openpi_are_read(source):
    names = {"action": "actions", "observation.state": "state", lr.CAMERA: "image"}
    lr.edit_info(lambda i: i.update(features={names.get(n, n): f for n, f in i["features"].items()}))(source)
    lr.edit_tables(lambda t: t.rename_columns([names.get(n, n) for n in t.schema.names]))(source)
    for name in ("actions", "state"):
        lr.set_feature(name, names=None)(source)
    lr.check_read(source)
    found = lr.opened(source)
    assert (found.button_names, found.attributes) == (tuple(NUMBERED), ("state_0", "state_1"))


def test_one_action_is_a_plain_column(source):
    lr.set_feature("action", names=["fire"], shape=1)(source)
    lr.replace_column("action", lambda c: pa.array([row[0] for row in c.to_pylist()], pa.float32()))(source)
    found = lr.opened(source)
    pressed = [action.buttons for _, action, _ in found.read(found.episodes[1]).steps]
    np.testing.assert_array_equal(pressed, lr.actions(1, 6)[:, :1])


def test_columns_that_are_neither_action_nor_state_are_named(source):
    plain = lr.opened(source).read("source/episode_000001")
    assert (plain.notes, plain.attrs) == ((), {"tasks": ["play"]})
    extra: dict[str, Any] = {"dtype": "float32", "shape": [2], "names": None}
    names = ("next.reward", "observation.environment_state", "state")
    lr.edit_info(lambda i: i["features"].update(dict.fromkeys(names, extra)))(source)
    lr.edit_info(lambda i: i["features"].update({"observation.images.wrist": i["features"][lr.CAMERA]}))(source)
    lr.edit_tables(lambda t: t.append_column("undeclared", pa.array([1] * t.num_rows)))(source)
    recording = lr.opened(source, camera=lr.CAMERA).read("source/episode_000001")
    assert recording.notes == (
        "left out, neither action nor state: next.reward, observation.environment_state, state, undeclared",
    )
    assert recording.attrs["not_converted"] == sorted([*names, "undeclared", "observation.images.wrist"])
    message = user_error(lr.opened, source)
    assert f"2 cameras ({lr.CAMERA}, observation.images.wrist): choose one with --camera" in message
    assert f"did you mean '{lr.CAMERA}'" in user_error(lr.opened, source, camera=lr.CAMERA[:-1])
    lr.check_read(source, camera=lr.CAMERA)


def test_ids_that_float32_cannot_hold_are_refused_or_left_out(source, tmp_path):
    lr.replace_column("observation.state", lambda c: pa.array([[1, 2**24 + 1]] * len(c), pa.list_(pa.int64())))(source)
    assert "'ammo' is 16777217 in row 0" in user_error(lr.imported, source, tmp_path / "x.zarr")
    dataset = lr.imported(source, tmp_path / "x.zarr", leave_out=("ammo",))
    assert dataset.state_names == ("health",)
    np.testing.assert_array_equal(dataset.state(0), np.ones((4, 1)))
    assert lr.opened(source, leave_out=("ammo", "health")).attributes == ()
