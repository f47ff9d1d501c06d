"""Minari's and robomimic's files are read as those programs write them, and faults are refused with their place."""

import io
import json
import re
from pathlib import Path

import conversions
import h5py
import numpy as np
import pytest
from conversions import converted
from dataset_files import user_error
from hdf5_recordings import minari, put, robomimic
from PIL import Image

from BC_training.common.dataset import ZarrGameplayDataset

RNG = np.random.default_rng(0)
N = 70  # more than are read at once
IMAGES = RNG.integers(0, 256, (N + 1, 24, 32, 3), np.uint8)
FRAMES = IMAGES[:N].transpose(0, 3, 1, 2)
DISCRETE = RNG.integers(0, 3, N)
BINARY = RNG.integers(0, 2, (N, 2), np.int8)
POSITION = RNG.normal(size=(N + 1, 2)).astype(np.float32)
HEALTH = np.arange(N + 1)
MINARI_DICT = {"pixels": IMAGES, "pos": POSITION, "health": HEALTH}
THREE, TWO = {"type": "Discrete", "n": 3, "start": 0}, {"type": "MultiBinary", "n": 2}


def opened(source, kind="minari", fps: float | None = 20, **options):
    return conversions.opened(source, kind, fps=fps, **options)


def read(source, kind="minari", fps: float | None = 20, **options):
    """The source, and the first episode's recording, frames, buttons or axes, and states."""
    found = opened(source, kind, fps, **options)
    recording = found.read(found.episodes[0])
    frames, actions, state = zip(*recording.steps, strict=True)
    acted = np.array([np.concatenate(action) if found.axis_names else action.buttons for action in actions])
    return found, recording, np.array(frames), acted, state


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return np.frombuffer(file.getvalue(), np.uint8)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_minaris_last_observation_is_left_out(tmp_path, layout, as_file):
    images = IMAGES if layout == "hwc" else IMAGES.transpose(0, 3, 1, 2)
    folder = minari(tmp_path / "d", images, DISCRETE, THREE, episodes=11)
    found, recording, frames, actions, state = read(folder / "data" / "main_data.hdf5" if as_file else folder)
    np.testing.assert_array_equal(frames, FRAMES)
    np.testing.assert_array_equal(actions, np.eye(3, dtype=bool)[DISCRETE], strict=True)
    assert set(state) == {None}
    assert found.button_names == ("action_0", "action_1", "action_2")
    assert found.episodes == tuple(f"episode_{i}" for i in range(11))
    assert recording.fps == 20


def test_a_dictionary_of_observations_becomes_frames_and_state(tmp_path):
    observations = MINARI_DICT | {"inner": {"flag": HEALTH % 2 == 0}, "depth": np.zeros((N + 1, 9, 9, 1))}
    folder = minari(tmp_path, observations, BINARY, TWO, fps=30, action_names=["jump", "duck"])
    found, recording, frames, actions, state = read(folder, fps=None)
    assert (found.button_names, found.attributes) == (("jump", "duck"), ("health", "inner/flag", "pos_0", "pos_1"))
    np.testing.assert_array_equal(frames, FRAMES)
    np.testing.assert_array_equal(actions, BINARY == 1)
    np.testing.assert_array_equal(np.array(state), np.c_[HEALTH, HEALTH % 2 == 0, POSITION].astype(np.float32)[:N])
    assert (recording.fps, recording.attrs["not_converted"]) == (30, ["depth"])
    assert "depth" in recording.notes[0]
    _, recording, frames, actions, _ = read(folder, fps=15)
    assert recording.fps == 15
    np.testing.assert_array_equal(frames, FRAMES[::2])
    np.testing.assert_array_equal(actions, (BINARY[::2] | BINARY[1::2]) == 1)
    _, _, _, axes, _ = read(minari(tmp_path, observations, POSITION[:N], fps=30), fps=15)
    np.testing.assert_array_equal(axes, POSITION[:N:2])


@pytest.mark.parametrize("same_length", [False, True])
def test_jpeg_files_are_decoded(tmp_path, same_length):
    files = stored = [jpeg(image) for image in IMAGES]
    if same_length:  # then Minari writes a plain matrix; a JPEG may be followed by anything
        stored = np.stack([np.pad(f, (0, max(map(len, files)) - len(f))) for f in files])
    _, _, frames, _, _ = read(minari(tmp_path, {"pixels": stored, "pos": POSITION}, DISCRETE, THREE))
    expected = [np.asarray(Image.open(io.BytesIO(f.tobytes()))).transpose(2, 0, 1) for f in files[:N]]
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("scale", [lambda a: a.astype(float), lambda a: a * 2.0 - 1])
def test_robomimic_has_cameras_and_a_rate(tmp_path, scale):
    observations = {"b_image": IMAGES[:N], "a_image": IMAGES[1:], "pos": POSITION[:N]}
    path = robomimic(tmp_path / "x.hdf5", observations, scale(BINARY), scale(BINARY), env=20)
    found, recording, frames, actions, state = read(path, "robomimic", fps=None, camera="b_image")
    assert (found.button_names, found.attributes) == (("action_0", "action_1"), ("pos_0", "pos_1"))
    assert found.episodes == ("demo_0", "demo_1")
    np.testing.assert_array_equal(frames, FRAMES)  # none is left out
    np.testing.assert_array_equal(actions, BINARY == 1)
    np.testing.assert_array_equal(np.array(state), POSITION[:N])
    assert (recording.fps, recording.attrs["not_converted"], recording.notes) == (20, ["a_image"], ())
    refused(path, r"choose one with --camera \(a_image, b_image\)", kind="robomimic")
    refused(path, "did you mean 'a_image'", kind="robomimic", camera="a_imag")


@pytest.mark.parametrize("kind", ["minari", "robomimic"])
def test_continuous_actions_become_axes(tmp_path, kind):
    amounts, out = np.c_[POSITION[:N], BINARY], tmp_path / "x.zarr"
    if kind == "minari":
        names = ["steer", "gas", "jump", "fire"]
        source = minari(tmp_path / "d", IMAGES, amounts, {"type": "Box", "shape": [4]}, 2, action_names=names)
    else:
        names = [f"action_{i}" for i in range(4)]
        source = robomimic(tmp_path / "d.hdf5", {"image": IMAGES[:N]}, amounts[:, ::-1] * 0.0, amounts)
    printed = converted(source, out, kind, fps=20)
    place = "episode_0" if kind == "minari" else "demo_1"
    assert re.search(rf"the actions become axes, not buttons: column 0 holds \S+ in {place}\n", printed)
    dataset = ZarrGameplayDataset(out)
    assert (dataset.action_names, dataset.axis_names) == ((), tuple(names))
    np.testing.assert_array_equal(dataset.axes(1), amounts.astype(np.float32))
    np.testing.assert_array_equal(dataset.frames(1, range(N)), FRAMES)
    assert converted(source, out, kind, fps=20) == f"{out}: 2 of 2 recordings are there\n"


def test_frames_may_be_resized_and_the_place_must_be_writable(tmp_path):
    folder = minari(tmp_path / "d", MINARI_DICT, DISCRETE, THREE, episodes=2)
    converted(folder, tmp_path / "x.zarr", "minari", size=(12, 16), fps=10)
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert [e.attrs["source"].split("/")[-1] for e in dataset.episodes] == ["episode_0", "episode_1"]
    blocks = IMAGES[:N].reshape(N, 12, 2, 16, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(dataset.frames(1, range(N)), blocks, atol=1)
    np.testing.assert_array_equal(dataset.actions(1), np.eye(3, dtype=bool)[DISCRETE])
    for out in (Path("/proc/x.zarr"), Path(f"{__file__}/x.zarr"), tmp_path / ("x" * 300)):
        assert f"cannot create {out}" in user_error(converted, folder, out, "minari", fps=10)


def refused(source, match, episode=None, **options):
    message = user_error(lambda: opened(source, **options).read(episode) if episode else read(source, **options))
    assert re.search(match, message), message
    return message


@pytest.mark.parametrize(("observations", "actions", "match"), [
    (IMAGES, {"keys": BINARY, "camera": POSITION}, r"actions are in parts \(a group: camera, keys\)"),
    (IMAGES, None, "episode_0 has no array 'actions'"),
    (IMAGES, 3, "a single value as 'actions', one a frame is needed"),
    (None, DISCRETE, "episode_0 has no 'observations'"),
    ({"pos": POSITION}, DISCRETE, r"has no image.* only pos float32 \[71, 2\]"),
    (IMAGES[:N], DISCRETE, "70 of 'observations' for 70 actions, 71 are needed"),
    (MINARI_DICT | {"pos": POSITION[:9]}, DISCRETE, "9 of 'pos' for 70 actions"),
    (MINARI_DICT | {"pos": np.where(np.arange(N + 1)[:, None] == 7, np.nan, POSITION)}, DISCRETE,
     "episode_0: 'pos_0' is not finite in row 7"),
    (MINARI_DICT | {"more": IMAGES}, DISCRETE, r"several images: .* --camera \(more, pixels\)"),
    ([jpeg(image)[: 400 if i == 8 else None] for i, image in enumerate(IMAGES)], DISCRETE,
     "episode_0 frame 8: cannot decode the picture"),
    ([jpeg(image[2:] if i > 2 else image) for i, image in enumerate(IMAGES)], DISCRETE,
     "episode_0 frame 3 has another size"),
])  # fmt: skip
def test_an_episode_with_a_fault_is_refused(tmp_path, observations, actions, match):
    assert "d/data/main_data.hdf5" in refused(minari(tmp_path / "d", observations, actions), match)


def test_a_file_with_a_fault_is_refused(tmp_path):
    folder = minari(tmp_path / "d", IMAGES, DISCRETE, THREE)
    file, path = folder / "data" / "main_data.hdf5", tmp_path / "x.hdf5"
    refused(folder, "frames a second: state it, such as --fps 20", fps=None)
    refused(tmp_path, "holds no data/main_data")
    refused(tmp_path, "is a folder: name the HDF5 file", kind="robomimic")
    refused(file, r"does not hold data/demo_0, .*: it looks like --from minari", kind="robomimic")
    (folder / "data" / "metadata.json").write_text("{")
    refused(folder, r"metadata\.json is not a JSON object")
    robomimic(path, {"image": IMAGES[:N]}, BINARY * 1.0)
    refused(path, r"does not hold episode_0, .*: it looks like --from robomimic")
    robomimic(path, {"image": IMAGES[:N]}, BINARY * 1.0, samples=3)
    refused(path, "70 actions, its num_samples is 3", kind="robomimic")


def test_an_episode_unlike_the_first_is_refused(tmp_path):
    folder = minari(tmp_path, MINARI_DICT, DISCRETE, THREE, episodes=4)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for name in ("episode_1/observations/pos", "episode_2/observations/pos", "episode_3/observations/pixels"):
            del file[name]
        file["episode_2/observations/pos"] = POSITION[:, :1]
        file["episode_3/observations/pixels"] = HEALTH
    refused(folder, "episode_1 has no observation 'pos'", "episode_1")
    refused(folder, r"episode_2: 'pos' is float32 \[70, 1\], others have 2 numbers a frame", "episode_2")
    refused(folder, "episode_3: 'pixels' holds no images, others do", "episode_3")


def test_metadata_may_be_text_bytes_and_arrays(tmp_path):
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        put(file.create_group("episode_0"), "observations", IMAGES)
        file["episode_0/actions"] = BINARY
        file["episode_0"].attrs["total_steps"] = np.array([N])
        space = np.array([json.dumps(TWO).encode()])
        file.attrs.update({"fps": b"30", "action_space": space, "action_names": np.array([b"jump", b"duck"])})
        file.attrs["other"] = h5py.Empty("f")
    found, recording, *_ = read(tmp_path, fps=None)
    assert (found.button_names, recording.fps) == (("jump", "duck"), 30)
    with h5py.File(tmp_path / "main_data.hdf5", "a") as file:
        file["episode_0"].attrs["total_steps"] = "sixty"
    refused(tmp_path, "episode_0 has 70 actions, its total_steps is sixty")


def test_a_rate_that_cannot_be_used_is_asked_for(tmp_path):
    for rate in ("fast", float("nan"), float("inf"), -3, 0, None, [1, 2], {}, True, "1e999", 10**400):
        folder = minari(tmp_path, IMAGES, DISCRETE, THREE, fps=rate)
        refused(folder, r"frames a second.*: state it, such as --fps 20", fps=None)
        assert opened(folder).read("episode_0").fps == 20


@pytest.mark.parametrize("arguments", [b"{", "null", '{"env_kwargs": null}', '{"env_kwargs": {}}', h5py.Empty("S1")])
def test_robomimic_without_a_control_frequency_needs_the_option(tmp_path, arguments):
    path = robomimic(tmp_path / "x.hdf5", {"image": IMAGES[:N]}, BINARY * 1.0)
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = arguments
    assert opened(path, "robomimic").read("demo_0").fps == 20


def test_an_empty_episode_is_left_out_and_the_others_are_converted(tmp_path):
    folder = minari(tmp_path, {"pixels": [jpeg(image) for image in IMAGES]}, DISCRETE, None, episodes=3)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for name in ("episode_0/actions", "episode_0/observations/pixels"):
            kind = file[name].dtype
            del file[name]
            file.create_dataset(name, (0,), float if name.endswith("actions") else kind)
    for _ in range(2):
        printed = converted(folder, tmp_path / "out.zarr", "minari", fps=20)
        assert "episode_0: left out, it has no frame" in printed
    assert len(ZarrGameplayDataset(tmp_path / "out.zarr").episodes) == 2


def test_state_values_of_one_name_are_renamed_and_ids_are_exact_or_left_out(tmp_path):
    observations = {"image": IMAGES[:N], "pos": POSITION[:N], "pos_0": HEALTH[:N], "id": HEALTH[:N] + 2**24}
    path = robomimic(tmp_path / "x.hdf5", observations, BINARY * 1.0)
    refused(path, r"'id' is 16777217 in row 1.*add --leave-out", kind="robomimic")
    for left_out, attributes, state in (
        (("id",), ("pos/0", "pos/1", "pos_0"), np.c_[POSITION, HEALTH]),
        (("id", "pos_0"), ("pos_0", "pos_1"), POSITION),  # the observation of that name
        (("id", "pos"), ("pos_0",), HEALTH[:, None]),
        (("id", "pos/1"), ("pos/0", "pos_0"), np.c_[POSITION[:, 0], HEALTH]),
    ):
        found, recording, _, _, values = read(path, "robomimic", leave_out=left_out)
        assert found.attributes == attributes
        np.testing.assert_array_equal(np.array(values), state[:N])
        if len(left_out) == 1:
            note = "the values of 'pos' are called pos/0, pos/1: others have the names pos_0, ..."
            assert recording.notes == (note,)
    unknown = "unknown state value of --leave-out 'poss'; did you mean 'pos"
    refused(path, unknown, kind="robomimic", leave_out=("id", "poss"))


def test_black_frames_at_the_end_are_noted_and_too_many_pixels_are_refused(tmp_path, monkeypatch):
    black = np.where(np.arange(N + 1)[:, None, None, None] < 40, IMAGES, 0).astype(np.uint8)
    _, recording, frames, _, _ = read(minari(tmp_path / "a", black, DISCRETE, THREE))
    np.testing.assert_array_equal(frames, black[:N].transpose(0, 3, 1, 2))
    assert recording.notes == ("its last 30 frames are all zeros: if recording stopped there, cut the episode",)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # between one and two times that is a warning, above an error
    for side in (24, 32):
        files = [jpeg(np.zeros((side, 24, 3), np.uint8))] * (N + 1)
        folder = minari(tmp_path / f"b{side}", files, DISCRETE, THREE)
        refused(folder, r"episode_0 frame 0: cannot decode the picture .*bomb")


def test_a_name_that_is_not_utf8_is_refused_or_left_out(tmp_path):
    folder = minari(tmp_path, MINARI_DICT, DISCRETE, THREE)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/observations"].create_dataset(b"caf\xe9", data=HEALTH)
    message = refused(folder, "not in UTF-8: rename it, or add --leave-out")
    name = message.split('--leave-out "')[1].rstrip('"')
    assert opened(folder, leave_out=(name,)).read("episode_0").attrs["not_converted"] == [name]


def test_state_values_that_are_left_out_need_not_have_been_written(tmp_path):
    folder = minari(tmp_path, MINARI_DICT, DISCRETE, THREE)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations/pos"]
        file["episode_0/observations"].create_dataset("pos", (N + 1, 2), "f4", chunks=(4, 2))
    assert opened(folder).attributes == ("health", "pos_0", "pos_1")
    found = opened(folder, leave_out=("pos_0", "pos_1"))
    recording = found.read("episode_0")
    assert found.attributes == ("health",)
    assert (recording.attrs["not_converted"], recording.notes) == (["pos"], ())


@pytest.mark.parametrize(
    ("rewards", "score"),
    [
        (np.full(N, 0.1, np.float32), N * float(np.float32(0.1))),
        (np.arange(N), N * (N - 1) / 2),
        (np.zeros(N), 0.0),
        (np.zeros(N + 1), None),
        (np.where(np.arange(N) == 3, np.nan, 1.0), None),
        (np.full(N, b"1"), None),
        (None, None),
    ],
)
def test_the_sum_of_an_episodes_rewards_is_its_score(tmp_path, rewards, score):
    path = minari(tmp_path, MINARI_DICT, DISCRETE, THREE, episodes=2) / "data" / "main_data.hdf5"
    with h5py.File(path, "r+") as file:
        put(file["episode_0"], "rewards", rewards)
        file["episode_1"].create_dataset("rewards", (N,), float)  # never written
    assert opened(path).read("episode_0").attrs.get("score") == (
        None if score is None else pytest.approx(score, rel=1e-9)
    )
    assert "score" not in opened(path).read("episode_1").attrs
