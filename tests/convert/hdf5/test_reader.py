"""Minari's and robomimic's files, as those write them."""

import io
import json
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from hdf5_recordings import minari, put, robomimic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.convert import Options, convert
from BC_training.convert.hdf5.reader import open_source

RNG = np.random.default_rng(0)
N = 70  # more than are read at once
IMAGES = RNG.integers(0, 256, (N + 1, 24, 32, 3), np.uint8)
DISCRETE = RNG.integers(0, 3, N)
BINARY = RNG.integers(0, 2, (N, 2), np.int8)
POSITION = RNG.normal(size=(N + 1, 2)).astype(np.float32)
HEALTH = np.arange(N + 1)
MINARI_DICT = {"pixels": IMAGES, "pos": POSITION, "health": HEALTH}
SPACES = {"discrete": {"type": "Discrete", "n": 3, "start": 0}, "binary": {"type": "MultiBinary", "n": 2}}


def read(source, kind="minari", fps=20.0, camera=None):
    opened = open_source(source, Options(kind, fps=fps, camera=camera))
    recording = opened.read(opened.episodes[0])
    frames, actions, state = zip(*recording.steps, strict=True)
    return opened, recording, np.array(frames), np.array(actions), state


def jpeg(image, quality=90):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.frombuffer(file.getvalue(), np.uint8)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_minari_frames_actions_and_no_last_observation(tmp_path, layout, as_file):
    images = IMAGES if layout == "hwc" else IMAGES.transpose(0, 3, 1, 2)
    folder = minari(tmp_path / "d", images, DISCRETE, SPACES["discrete"], episodes=11)
    opened, recording, frames, actions, state = read(folder / "data" / "main_data.hdf5" if as_file else folder)
    np.testing.assert_array_equal(frames, IMAGES[:N].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(actions, np.eye(3, dtype=bool)[DISCRETE])
    assert actions.dtype == bool
    assert set(state) == {None}
    assert opened.keys == ("action_0", "action_1", "action_2")
    assert opened.episodes == tuple(f"episode_{i}" for i in range(11))
    assert recording.fps == 20


def test_minari_dictionary_buttons_state_names_and_metadata(tmp_path):
    names = ["jump", "duck"]
    observations = MINARI_DICT | {"inner": {"flag": HEALTH % 2 == 0}, "depth": np.zeros((N + 1, 9, 9, 1))}
    folder = minari(tmp_path, observations, BINARY, SPACES["binary"], fps=30, action_names=names)
    opened, recording, frames, actions, state = read(folder, fps=None)
    assert opened.keys == ("jump", "duck")
    assert opened.attributes == ("health", "inner/flag", "pos_0", "pos_1")
    np.testing.assert_array_equal(frames, IMAGES[:N].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(actions, BINARY == 1)
    np.testing.assert_array_equal(np.array(state), np.c_[HEALTH, HEALTH % 2 == 0, POSITION].astype(np.float32)[:N])
    assert recording.fps == 30
    assert recording.attrs["not_converted"] == ["depth"]
    assert "depth" in recording.notes[0]
    _, recording, frames, actions, _ = read(folder, fps=15)
    assert recording.fps == 15
    np.testing.assert_array_equal(frames, IMAGES[:N:2].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(actions, (BINARY[::2] | BINARY[1::2]) == 1)


@pytest.mark.parametrize("same_length", [False, True])
def test_minari_jpeg_files(tmp_path, same_length):
    files = [jpeg(image) for image in IMAGES]
    if same_length:  # then Minari writes a plain matrix; a JPEG may be followed by anything
        longest = max(map(len, files))
        stored = np.stack([np.pad(f, (0, longest - len(f))) for f in files])
    else:
        stored = files
    _, _, frames, _, _ = read(minari(tmp_path, {"pixels": stored, "pos": POSITION}, DISCRETE, SPACES["discrete"]))
    expected = [np.asarray(Image.open(io.BytesIO(f.tobytes()))).transpose(2, 0, 1) for f in files[:N]]
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize(
    ("actions", "space", "expected"),
    [
        (DISCRETE + 1, SPACES["discrete"] | {"start": 1}, np.eye(3, dtype=bool)[DISCRETE]),
        (DISCRETE, None, np.eye(3, dtype=bool)[DISCRETE]),
        (BINARY, None, BINARY == 1),
        (BINARY.astype(int), {"type": "MultiDiscrete", "nvec": [2, 2], "start": [0, 0]}, BINARY == 1),
        (BINARY + np.array([1, 5]), {"type": "MultiDiscrete", "nvec": [2, 2], "start": [1, 5]}, BINARY == 1),
        (BINARY[:, None], {"type": "MultiDiscrete", "nvec": [[2, 2]]}, BINARY == 1),
        (BINARY[..., None], {"type": "MultiBinary", "n": [2, 1]}, BINARY == 1),
        (BINARY[:, 0], {"type": "MultiBinary", "n": 1}, BINARY[:, :1] == 1),
        (BINARY[:, 0] == 1, None, BINARY[:, :1] == 1),
        (BINARY[:, 0] * 2 - 1, None, BINARY[:, :1] == 1),
        (BINARY[:, 0], None, np.eye(2, dtype=bool)[BINARY[:, 0]]),
        (DISCRETE * 1.0, SPACES["discrete"], np.eye(3, dtype=bool)[DISCRETE]),
        (DISCRETE[:, None, None], SPACES["discrete"] | {"n": "3"}, np.eye(3, dtype=bool)[DISCRETE]),
        (DISCRETE[:, None] * 1.0, None, np.eye(3, dtype=bool)[DISCRETE]),
        (DISCRETE, SPACES["discrete"] | {"n": [3.0], "start": None}, np.eye(3, dtype=bool)[DISCRETE]),
    ],
)
def test_minari_actions(tmp_path, actions, space, expected):
    np.testing.assert_array_equal(read(minari(tmp_path, IMAGES, actions, space))[3], expected)


@pytest.mark.parametrize("scale", [lambda a: a.astype(float), lambda a: a * 2.0 - 1])
def test_robomimic_buttons_cameras_and_rate(tmp_path, scale):
    observations = {"b_image": IMAGES[:N], "a_image": IMAGES[1:], "pos": POSITION[:N]}
    path = robomimic(tmp_path / "x.hdf5", observations, scale(BINARY), scale(BINARY), env=20)
    opened, recording, frames, actions, state = read(path, "robomimic", fps=None, camera="b_image")
    assert opened.keys == ("action_0", "action_1")
    assert opened.attributes == ("pos_0", "pos_1")
    assert opened.episodes == ("demo_0", "demo_1")
    np.testing.assert_array_equal(frames, IMAGES[:N].transpose(0, 3, 1, 2))  # none is left out
    np.testing.assert_array_equal(actions, BINARY == 1)
    np.testing.assert_array_equal(np.array(state), POSITION[:N])
    assert recording.fps == 20
    assert recording.attrs["not_converted"] == ["a_image"]
    assert recording.notes == ()
    with pytest.raises(UserError, match=r"choose one with --camera \(a_image, b_image\)"):
        read(path, "robomimic")
    with pytest.raises(UserError, match="did you mean 'a_image'"):
        read(path, "robomimic", camera="a_imag")


def test_whole_conversion_resized(tmp_path):
    folder = minari(tmp_path / "d", MINARI_DICT, DISCRETE, SPACES["discrete"], episodes=2)
    options = Options("minari", size=(12, 16), fps=10)
    convert(folder, tmp_path / "x.zarr", options, 1, Console(file=StringIO()))
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert [e.attrs["source"].split("/")[-1] for e in dataset.episodes] == ["episode_0", "episode_1"]
    blocks = IMAGES[:N].reshape(N, 12, 2, 16, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(dataset.frames(1, range(N)), blocks, atol=1)
    np.testing.assert_array_equal(dataset.actions(1), np.eye(3, dtype=bool)[DISCRETE])
    for out in (Path("/proc/x.zarr"), Path(f"{__file__}/x.zarr"), tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=f"cannot create {out}"):
            convert(folder, out, options, 1, Console(file=StringIO()))


def nan_at(frame):
    return np.where(np.arange(N + 1)[:, None] == frame, np.nan, POSITION)


def cut_jpeg(frame):
    return [jpeg(image)[: 400 if i == frame else None] for i, image in enumerate(IMAGES)]


BOX = {"type": "Box", "shape": [2]}


@pytest.mark.parametrize(
    ("observations", "actions", "space", "parts"),
    [
        (IMAGES, POSITION[:N], BOX, ("continuous", "episode_0 column 0", "press buttons", "columns of 0 and 1")),
        (IMAGES, POSITION[:N], None, ("continuous", "episode_0 column 0", "press buttons")),
        (IMAGES, DISCRETE, {"type": "MultiDiscrete", "nvec": [3]}, ("MultiDiscrete", "press buttons")),
        (IMAGES, DISCRETE + (np.arange(N) == 9), {"type": "Discrete", "n": 2}, ("episode_0 frame", "0 to 1")),
        (IMAGES, BINARY[:, :1], SPACES["binary"], ("numbers [N, 2]", "[70, 1]")),
        (IMAGES, BINARY + 2 * (np.arange(N) == 5)[:, None], SPACES["binary"], ("episode_0 frame 5",)),
        (IMAGES, DISCRETE, {"type": "Discrete"}, ("Discrete with no entries", "correct it, or remove it")),
        (IMAGES, DISCRETE, {"type": "Discrete", "n": 10**9}, ("n 1000000000", "from 1 to 4096")),
        (IMAGES, BINARY, {"type": "MultiBinary", "n": [0]}, ("MultiBinary with n [0]",)),
        (IMAGES, BINARY, {"type": "MultiDiscrete", "nvec": [2, 2], "start": [1]}, ("start [1]",)),
        (IMAGES, BINARY + 1, {"type": "MultiDiscrete", "nvec": [2, 2], "start": [0, 1]}, ("frame", "[0, 1] and one")),
        (IMAGES, DISCRETE + 0.5, SPACES["discrete"], ("episode_0 frame 0", "0 to 2")),
        (IMAGES, DISCRETE + 0.5, None, ("continuous", "episode_0 column 0")),
        (IMAGES, DISCRETE - 2, None, ("continuous", "episode_0 column 0")),
        (IMAGES, BINARY[:, 0] * 0.5, None, ("continuous",)),
        (IMAGES, {"keys": BINARY, "camera": POSITION}, None, ("actions are in parts (a group: camera, keys)",)),
        (IMAGES, {"keys": BINARY}, {"type": "Dict", "subspaces": {"keys": SPACES["binary"], "camera": BOX}},
         ("in parts (the space Dict: keys MultiBinary, camera Box)", "as one array 'actions'")),
        (IMAGES, {"_0": BINARY}, {"type": "Tuple", "subspaces": [BOX]}, ("in parts (the space Tuple: 0 Box)",)),
        (IMAGES, None, SPACES["discrete"], ("episode_0 has no array 'actions'",)),
        (None, DISCRETE, SPACES["discrete"], ("episode_0 has no 'observations'",)),
        ({"pos": POSITION}, DISCRETE, SPACES["discrete"], ("has no image", "pos float32 [71, 2]")),
        (IMAGES[:N], DISCRETE, SPACES["discrete"], ("70 of 'observations' for 70 actions, 71 are needed",)),
        (MINARI_DICT | {"pos": POSITION[:9]}, DISCRETE, SPACES["discrete"], ("9 of 'pos' for 70 actions",)),
        (MINARI_DICT | {"pos": nan_at(7)}, DISCRETE, SPACES["discrete"], ("0: 'pos_0' is not finite in row 7",)),
        (MINARI_DICT | {"more": IMAGES}, DISCRETE, SPACES["discrete"], ("several images", "--camera (more, pixels)")),
        (cut_jpeg(8), DISCRETE, SPACES["discrete"], ("episode_0 frame 8", "cannot decode the picture")),
        ([*map(jpeg, IMAGES[:N]), jpeg(IMAGES[0])][:3] + [jpeg(i[2:]) for i in IMAGES[3:]], DISCRETE, None,
         ("episode_0 frame 3 has another size",)),
    ],
)  # fmt: skip
def test_minari_refused(tmp_path, observations, actions, space, parts):
    folder = minari(tmp_path / "d", observations, actions, space)
    with pytest.raises(UserError) as raised:
        read(folder)
    assert "\n" not in str(raised.value)
    for part in ("d/data/main_data.hdf5", *parts):
        assert part in str(raised.value)


def test_other_faults(tmp_path):
    folder = minari(tmp_path / "d", IMAGES, DISCRETE, SPACES["discrete"])
    file = folder / "data" / "main_data.hdf5"
    with pytest.raises(UserError, match="frames a second it has: state it, such as --fps 20"):
        read(folder, fps=None)
    with pytest.raises(UserError, match="holds no data/main_data"):
        read(tmp_path)
    with pytest.raises(UserError, match="is a folder: name the HDF5 file"):
        read(tmp_path, "robomimic")
    with pytest.raises(UserError, match="does not hold data/demo_0"):
        read(file, "robomimic")
    (folder / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"metadata\.json is not a JSON object"):
        read(folder)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(UserError, match="truncated file"):
        read(folder)
    path = robomimic(tmp_path / "x.hdf5", {"image": IMAGES[:N]}, BINARY * 1.0, samples=3)
    with pytest.raises(UserError, match="70 actions, its num_samples says 3"):
        read(path, "robomimic")
    robomimic(path, {"image": IMAGES[:N]}, BINARY * 1.0, BINARY * 0.5)
    with pytest.raises(UserError, match=r"demo_1 column 0 holds .*0\.5"):
        read(path, "robomimic")
    minari(folder, IMAGES, DISCRETE, SPACES["discrete"], action_names=["a", "a", "b"])
    with pytest.raises(UserError, match="3 different texts"):
        read(folder)


def test_an_episode_unlike_the_first(tmp_path):
    folder = minari(tmp_path, MINARI_DICT, DISCRETE, SPACES["discrete"], episodes=3)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/observations/pos"], file["episode_2/observations/pos"]
        file["episode_2/observations/pos"] = POSITION[:, :1]
    opened = open_source(folder, Options("minari", fps=20))
    with pytest.raises(UserError, match="episode_1 has no observation 'pos'"):
        opened.read("episode_1")
    with pytest.raises(UserError, match=r"episode_2: 'pos' is float32 \[70, 1\], others have 2 numbers a frame"):
        opened.read("episode_2")


def test_numbers_of_the_metadata_as_text_bytes_and_arrays(tmp_path):
    space = np.array([json.dumps(SPACES["binary"]).encode()])
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        put(file.create_group("episode_0"), "observations", IMAGES)
        file["episode_0/actions"] = BINARY
        file["episode_0"].attrs["total_steps"] = np.array([N])
        file.attrs.update({"fps": b"30", "action_space": space, "action_names": np.array([b"jump", b"duck"])})
        file.attrs["other"] = h5py.Empty("f")
    opened, recording, *_ = read(tmp_path, fps=None)
    assert opened.keys == ("jump", "duck")
    assert recording.fps == 30
    with h5py.File(tmp_path / "main_data.hdf5", "a") as file:
        file["episode_0"].attrs["total_steps"] = "sixty"
    with pytest.raises(UserError, match="episode_0 has 70 actions, its total_steps says sixty"):
        read(tmp_path)


@pytest.mark.parametrize("said", ["fast", float("nan"), float("inf"), -3, 0, None, [1, 2], {}, True, "1e999", 10**400])
def test_a_rate_that_cannot_be_used_is_stated_by_the_option(tmp_path, said):
    folder = minari(tmp_path, IMAGES, DISCRETE, SPACES["discrete"], fps=said)
    with pytest.raises(UserError, match=r"frames a second.*: state it, such as --fps 20"):
        read(folder, fps=None)
    assert read(folder, fps=20.0)[1].fps == 20


@pytest.mark.parametrize("arguments", [b"{", "null", '{"env_kwargs": null}', '{"env_kwargs": {}}', h5py.Empty("S1")])
def test_a_robot_without_a_control_frequency(tmp_path, arguments):
    path = robomimic(tmp_path / "x.hdf5", {"image": IMAGES[:N]}, BINARY * 1.0)
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = arguments
    assert read(path, "robomimic", fps=20.0)[1].fps == 20


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_metadata_with_a_byte_order_mark(tmp_path, encoding):
    folder = minari(tmp_path, IMAGES, BINARY, SPACES["binary"], action_names=["jümp", "duck"])
    file = folder / "data" / "metadata.json"
    file.write_bytes(json.dumps(json.loads(file.read_bytes()), ensure_ascii=False).encode(encoding))
    assert read(folder)[0].keys == ("jümp", "duck")


NUMBERS = st.integers(-3, 5) | st.sampled_from([10**15, 2.0, 0.5, float("nan"), "2", "x", True])
VALUES = st.recursive(st.none() | NUMBERS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
ANY_SPACE = st.fixed_dictionaries(
    {"type": st.sampled_from(["Discrete", "MultiBinary", "MultiDiscrete", "Dict", "Tuple", "Box", None, 3])},
    optional={"n": VALUES, "nvec": VALUES, "start": VALUES, "subspaces": VALUES},
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return minari(tmp_path_factory.mktemp("fuzzed"), IMAGES[:, :4, :4], BINARY)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(space=ANY_SPACE | VALUES, names=VALUES, as_text=st.booleans())
def test_whatever_the_metadata_hold_it_is_read_or_one_line(fuzzed, space, names, as_text):
    text = json.dumps(space) if as_text else space
    file = fuzzed / "data" / "metadata.json"
    file.write_text(json.dumps({"action_space": text, "action_names": names, "fps": names}))
    line = ""
    try:
        keys = open_source(fuzzed, Options("minari", fps=20)).keys
    except UserError as error:
        keys, line = None, str(error)
    if keys is None:
        assert "\n" not in line
    else:
        assert len(set(keys)) == len(keys) > 0


def test_an_empty_episode_is_no_fault_and_does_not_decide_what_the_others_hold(tmp_path):
    folder = minari(tmp_path, {"pixels": [jpeg(image) for image in IMAGES]}, DISCRETE, None, episodes=3)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for name in ("episode_0/actions", "episode_0/observations/pixels"):
            kind = file[name].dtype
            del file[name]
            file.create_dataset(name, (0,), float if name.endswith("actions") else kind)
    console = Console(file=StringIO(), width=200)
    for _ in range(2):
        convert(folder, tmp_path / "out.zarr", Options("minari", fps=20), 1, console)
        assert "episode_0: left out, it has no frame" in console.file.getvalue()  # pyright: ignore
    assert len(ZarrGameplayDataset(tmp_path / "out.zarr").episodes) == 2


def test_state_values_of_one_name_are_renamed_and_ids_are_exact_or_left_out(tmp_path):
    observations = {"image": IMAGES[:N], "pos": POSITION[:N], "pos_0": HEALTH[:N], "id": HEALTH[:N] + 2**24}
    path = robomimic(tmp_path / "x.hdf5", observations, BINARY * 1.0)
    with pytest.raises(UserError, match=r"'id' is 16777217 in row 1.*add --leave-out"):
        read(path, "robomimic")

    def leaving_out(*names):
        opened = open_source(path, Options("robomimic", fps=20, leave_out=names))
        recording = opened.read("demo_0")
        return opened.attributes, np.array([state for _, _, state in recording.steps]), recording

    attributes, state, recording = leaving_out("id")
    assert attributes == ("pos/0", "pos/1", "pos_0")
    np.testing.assert_array_equal(state, np.c_[POSITION, HEALTH][:N])
    assert recording.notes == ("the values of 'pos' are called pos/0, pos/1: others have the names pos_0, ...",)
    attributes, state, _ = leaving_out("id", "pos_0")  # the observation of that name
    assert attributes == ("pos_0", "pos_1")
    np.testing.assert_array_equal(state, POSITION[:N])
    assert leaving_out("id", "pos")[0] == ("pos_0",)
    assert leaving_out("id", "pos/1")[0] == ("pos/0", "pos_0")
    with pytest.raises(UserError, match="unknown state value of --leave-out 'poss'; did you mean 'pos"):
        leaving_out("id", "poss")


def test_pictures_that_were_only_allotted_are_told_and_a_bomb_is_refused(tmp_path, monkeypatch):
    black = np.where(np.arange(N + 1)[:, None, None, None] < 40, IMAGES, 0).astype(np.uint8)
    _, recording, frames, _, _ = read(minari(tmp_path / "a", black, DISCRETE, SPACES["discrete"]))
    np.testing.assert_array_equal(frames, black[:N].transpose(0, 3, 1, 2))
    assert recording.notes == ("its last 30 frames are all zeros: if recording stopped there, cut the episode",)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # between one and two times that is a warning, above an error
    for side in (24, 32):
        files = [jpeg(np.zeros((side, 24, 3), np.uint8))] * (N + 1)
        folder = minari(tmp_path / f"b{side}", files, DISCRETE, SPACES["discrete"])
        with pytest.raises(UserError, match=r"episode_0 frame 0: cannot decode the picture .*bomb"):
            read(folder)


def test_the_other_kind_is_named(tmp_path):
    folder = minari(tmp_path / "d", IMAGES, DISCRETE)
    with pytest.raises(UserError, match=r"does not hold data/demo_0, .*: it looks like --from minari"):
        read(folder / "data" / "main_data.hdf5", "robomimic")
    path = robomimic(tmp_path / "x.hdf5", {"image": IMAGES[:N]}, BINARY * 1.0)
    with pytest.raises(UserError, match=r"does not hold episode_0, .*: it looks like --from robomimic"):
        read(path)


def test_a_box_of_0_and_1_is_buttons_and_one_of_fractions_is_not(tmp_path):
    box = {"type": "Box", "shape": [2], "low": [0, 0], "high": [1, 1]}
    _, _, _, actions, _ = read(minari(tmp_path / "a", IMAGES, BINARY.astype(np.float32), box))
    np.testing.assert_array_equal(actions, BINARY == 1)
    fraction = BINARY.astype(float)
    fraction[5] = 0.5, np.nan
    with pytest.raises(UserError, match=r"column 0 holds 0\.5, 0, 1"):
        read(minari(tmp_path / "b", IMAGES, fraction, box))


@pytest.mark.parametrize("names", [[None, 1], [["jump"], ["duck"]], "jump,duck", ["jump"], {"jump": 0, "duck": 1}])
def test_action_names_that_are_no_texts_are_refused(tmp_path, names):
    with pytest.raises(UserError, match="a list of 2 different texts"):
        read(minari(tmp_path, IMAGES, BINARY, SPACES["binary"], action_names=names))


def test_a_name_that_is_not_utf8_is_not_skipped_and_can_be_left_out(tmp_path):
    folder = minari(tmp_path, MINARI_DICT, DISCRETE, SPACES["discrete"])
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/observations"].create_dataset(b"caf\xe9", data=HEALTH)
    with pytest.raises(UserError, match="not in UTF-8: rename it, or add --leave-out") as raised:
        read(folder)
    name = str(raised.value).split('--leave-out "')[1].rstrip('"')
    opened = open_source(folder, Options("minari", fps=20, leave_out=(name,)))
    assert opened.read("episode_0").attrs["not_converted"] == [name]


def test_state_values_that_are_left_out_need_not_have_been_written(tmp_path):
    folder = minari(tmp_path, MINARI_DICT, DISCRETE, SPACES["discrete"])
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations/pos"]
        file["episode_0/observations"].create_dataset("pos", (N + 1, 2), "f4", chunks=(4, 2))
    assert open_source(folder, Options("minari", fps=20)).attributes == ("health", "pos_0", "pos_1")
    opened = open_source(folder, Options("minari", fps=20, leave_out=("pos_0", "pos_1")))
    assert opened.attributes == ("health",)
    recording = opened.read("episode_0")
    assert (recording.attrs["not_converted"], recording.notes) == (["pos"], ())
