"""Recordings with damage or in other spellings are converted correctly, or refused in one line."""

import json
import shutil
from typing import Any

import conversions
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hdf5_recordings import minari, robomimic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lerobot_datasets import LENGTHS, act, actions, amounts, numbers, write_v21, write_v30
from mutations import WEIRD, change_file, changed, require_one_line
from recorded_sessions import number_of, write_session

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError

FRAME = 50_000  # microseconds
FRAMES = 60
SPELLINGS = {
    "forward": ("key", ["W", "w", "'w'", "KeyW", "KEY_W"]),
    "jump": ("key", ["SPACE", "space", "Key.space", "Space", "KEY_SPACE"]),
    "item": ("key", ["1", "'1'", "Digit1", "KEY_1"]),
    "fire": ("mouse", ["LEFT", "left", "Button.left", "BTN_LEFT"]),
}
SHIFTED = {"forward": "W", "jump": "SPACE", "item": "!", "fire": "LEFT"}
UNITS = {"s": 1e-6, "ms": 1e-3, "us": 1.0, "ns": 1e3}
OPTIONS: dict[str, Any] = {"suppress_health_check": list(HealthCheck)}


def by_examples(few: int, many: int) -> pytest.MarkDecorator:
    """Runs a property with few examples, and with many where slow tests run."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])


def converted(source, out, kind, **options):
    """(the dataset, None), or (None, the error)."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        conversions.converted(source, out, kind, **options)
    except UserError as error:
        require_one_line(error)
        return None, error
    return (ZarrGameplayDataset(out) if out.exists() else None), None


@st.composite
def holds(draw):
    """The ascending intervals in ms in which a button is down; none begins or ends with a frame."""
    marks = draw(st.lists(st.integers(0, FRAMES * 5 - 2), min_size=2, max_size=8, unique=True))
    marks = sorted(10 * mark + 7 for mark in marks)
    return list(zip(marks[::2], marks[1::2], strict=False))


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    write_session(folder / "original", range(0, FRAMES * FRAME, FRAME))
    return folder


@by_examples(15, 1000)
def test_a_damaged_session_is_converted_correctly_or_refused(session, examples):
    @settings(max_examples=examples, **OPTIONS)
    @given(st.data())
    def check(data):
        folder = session / "recordings" / "a"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(session / "original", folder)
        truth = {name: data.draw(holds(), name) for name in SPELLINGS}
        truth["forward"] = truth["forward"] or [(107, 2907)]
        bound, pressed, released = (
            {name: data.draw(st.sampled_from(spellings)) for name, (_, spellings) in SPELLINGS.items()} for _ in "123"
        )
        if data.draw(st.booleans()):
            released = SHIFTED
        rows = []
        for name, (device, _) in SPELLINGS.items():
            for start, stop in truth[name]:
                rows += [(start, f"{device}_down", pressed[name]), (stop, f"{device}_up", released[name])]
        rows.sort()
        unit = data.draw(st.sampled_from(list(UNITS)))
        stated = data.draw(st.sampled_from([unit, "us"]))
        mark = data.draw(st.sampled_from(",;\t"))
        header = mark.join(["timestamp_us", "event_type", "key_or_button"])
        lines = [mark.join([f"{t * 1000 * UNITS[unit]:.15g}", event, name]) for t, event, name in rows]
        text = data.draw(st.sampled_from(["\n", "\r\n"])).join([header, *lines, ""])
        encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
        (folder / "inputs.csv").write_bytes(text.encode(encoding))
        actions = {name: {"index": i, device: bound[name]} for i, (name, (device, _)) in enumerate(SPELLINGS.items())}
        binds = session / "binds.json"
        binds.write_text(json.dumps({"version": "2.0", "actions": actions}))
        damage = data.draw(st.sampled_from([None, None, None, "inputs.csv", "video.mp4", "binds"]))
        if damage is not None:
            change_file(data, binds if damage == "binds" else folder / damage)
        out = session / "out.zarr"
        dataset, error = converted(folder.parent, out, "sessions", keybinds=binds, time_unit=stated)
        if damage is None and error is not None:
            assert unit != stated, error
        if damage is not None or error is not None:
            return
        expected = np.zeros((FRAMES, len(SPELLINGS)), bool)
        for column, name in enumerate(SPELLINGS):
            for start, stop in truth[name]:
                expected[start // 50 : stop // 50 + 1, column] = True
        np.testing.assert_array_equal(dataset.actions(0), expected)
        assert [number_of(frame) for frame in dataset.frames(0, range(FRAMES))] == list(range(FRAMES))

    check()


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def lerobot(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot")
    {"v2.1": write_v21, "v3.0": write_v30}[request.param](folder / "buttons")
    act()(shutil.copytree(folder / "buttons", folder / "axes"))
    return folder


@by_examples(8, 500)
def test_a_damaged_lerobot_dataset_is_converted_correctly_or_refused(lerobot, examples):
    @settings(max_examples=examples, **OPTIONS)
    @given(st.data())
    def check(data):
        root = lerobot / "copy"
        shutil.rmtree(root, ignore_errors=True)
        kind = data.draw(st.sampled_from(["buttons", "axes"]))
        shutil.copytree(lerobot / kind, root)
        files = sorted(file for file in root.rglob("*") if file.is_file())
        file = data.draw(st.sampled_from(sorted((root / "meta").glob("*.json"))) | st.sampled_from(files))
        if file.suffix == ".jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            file.write_text("".join(json.dumps(row) + "\n" for row in data.draw(changed(rows))))
        elif file.parent.parent.name == "episodes":
            rows = data.draw(changed(pq.read_table(file).to_pylist()))
            try:
                table = pa.Table.from_pylist(rows)
            except (pa.ArrowException, TypeError, OverflowError, AttributeError):
                return  # no file can hold it
            pq.write_table(table, file)
        else:
            change_file(data, file)
        dataset, _ = converted(root, lerobot / "out.zarr", "lerobot")
        if dataset is None or file.name != "info.json":
            return
        for episode in range(len(dataset.episodes)):
            found = [numbers(frame) for frame in dataset.frames(episode, range(dataset.episodes[episode].length))]
            number = found[0][0]
            assert found == [(number, i) for i in range(LENGTHS[number])]
            expected = actions(number, LENGTHS[number]) if kind == "buttons" else amounts(LENGTHS[number])
            found = dataset.actions(episode) if kind == "buttons" else dataset.axes(episode)
            np.testing.assert_array_equal(found, expected)

    check()


IMAGES = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
PRESSED = np.random.default_rng(1).integers(0, 2, (8, 2))
AMOUNTS = np.random.default_rng(2).normal(size=(8, 2))
METADATA = {"dataset_id": "game/person-v0", "total_episodes": 2, "total_steps": 16, "render_fps": 20}
METADATA |= {"action_space": {"type": "MultiBinary", "n": 2}, "action_names": ["jump", "fire"]}


@by_examples(20, 1500)
def test_a_damaged_hdf5_file_is_converted_correctly_or_refused(tmp_path_factory, examples):
    @settings(max_examples=examples, **OPTIONS)
    @given(st.data())
    def check(data):
        folder = tmp_path_factory.getbasetemp() / "fuzzed_hdf5"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        kind = data.draw(st.sampled_from(["minari", "robomimic"]))
        done = data.draw(st.sampled_from([PRESSED, AMOUNTS]))
        told = METADATA if done is PRESSED else METADATA | {"action_space": {"type": "Box", "shape": [2]}}
        if kind == "minari":
            metadata = {k: json.dumps(v) if k == "action_space" else v for k, v in told.items()}
            minari(folder, {"pixels": IMAGES, "pos": IMAGES[:, 0, 0].astype(float)}, done, None, 2, **metadata)
            source, file = folder, folder / "data" / "main_data.hdf5"
            if data.draw(st.booleans()):
                raw = data.draw(changed(told))
                if isinstance(raw.get("action_space"), dict):
                    raw["action_space"] = json.dumps(raw["action_space"])
                (folder / "data" / "metadata.json").write_text(json.dumps(raw))
        else:
            source = file = robomimic(folder / "demos.hdf5", {"pixels": IMAGES[:8]}, done, done, env=20)
        what = data.draw(st.sampled_from(["attribute", "delete", "bytes", "nothing"]))
        with h5py.File(file, "r+") as opened:
            names = []
            opened.visit(names.append)
            place = opened[data.draw(st.sampled_from(sorted(names)))]
            if what == "attribute":
                name = data.draw(st.sampled_from(["env_args", "num_samples", "total_steps", "action_space", "id"]))
                value = data.draw(WEIRD)
                place.attrs[name] = json.dumps(value) if value is None or isinstance(value, list | dict) else str(value)
            elif what == "delete":
                del opened[place.name]
        if what == "bytes":
            change_file(data, file)
        dataset, _ = converted(source, folder / "out.zarr", kind, fps=data.draw(st.sampled_from([None, 20.0])))
        if dataset is None or what == "bytes" or not len(dataset.episodes):
            return
        found = dataset.axes(0) if dataset.axis_names else dataset.actions(0)
        if found.shape == done.shape and dataset.episodes[0].length == len(done):
            np.testing.assert_array_equal(dataset.frames(0, range(8)), IMAGES[:8].transpose(0, 3, 1, 2))
            np.testing.assert_array_equal(found, done.astype(np.float32))

    check()
