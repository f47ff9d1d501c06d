"""LeRobot datasets as other programs and people's hands leave them: read where the meaning is clear, or one line."""

import io
import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot_datasets import (
    CAMERA,
    HEIGHT,
    LENGTHS,
    NAMES,
    WIDTH,
    WRITERS,
    actions,
    check,
    edit_column,
    edit_info,
    error_of,
    imported,
    picture,
    state,
    write_v21,
    write_v30,
)
from PIL import Image

from BC_training.common.errors import UserError
from BC_training.convert import Options
from BC_training.convert.lerobot.parquet import numbers, read_columns
from BC_training.convert.lerobot.reader import LeRobotSource, open_source
from BC_training.convert.pictures import decode_picture

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """A dataset of either version with its pictures among the rows."""
    folder = tmp_path_factory.mktemp("lerobot")
    return {version: write(folder / version, camera="image") for version, write in WRITERS.items()}


@pytest.fixture(params=list(WRITERS))
def source(request, written, tmp_path) -> Path:
    return Path(shutil.copytree(written[request.param], tmp_path / "source"))


@pytest.fixture
def v21(written, tmp_path) -> Path:
    return Path(shutil.copytree(written["v2.1"], tmp_path / "source"))


@pytest.fixture
def v30(written, tmp_path) -> Path:
    return Path(shutil.copytree(written["v3.0"], tmp_path / "source"))


def opened(root: Path, **options: Any) -> LeRobotSource:
    return open_source(root, Options("lerobot", **options))


def first(root: Path, **options: Any) -> list[Any]:
    """The steps of the first episode."""
    found = opened(root, **options)
    return list(found.read(found.episodes[0]).steps)


def check_first(root: Path) -> None:
    frames, pressed, values = zip(*first(root), strict=True)
    np.testing.assert_array_equal(pressed, actions(0, LENGTHS[0]))
    np.testing.assert_array_equal(values, state(0, LENGTHS[0]))
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame, picture(0, i).transpose(2, 0, 1))


def edit_tables(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        for file in root.glob("data/*/*.parquet"):
            pq.write_table(change(pq.read_table(file)), file)

    return edit


def edit_tasks(root: Path, tasks: list[Any]) -> None:
    """Gives the episodes ``tasks`` in their list of either version."""
    lines, table = root / "meta/episodes.jsonl", root / "meta/episodes/chunk-000/file-000.parquet"
    if lines.exists():
        rows = [json.loads(line) for line in lines.read_text().split("\n") if line]
        rows = [row | {"tasks": task} for row, task in zip(rows, tasks, strict=True)]
        lines.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    else:
        stored = pq.read_table(table)
        pq.write_table(stored.drop_columns("tasks").append_column("tasks", pa.array(tasks)), table)


def tasks_of(root: Path) -> list[Any]:
    found = opened(root)
    return [found.read(episode).attrs.get("tasks") for episode in found.episodes]


def test_a_text_for_a_list_of_tasks_is_one_task(source):
    edit_tasks(source, ["pick up the key", None, f"a{SEPARATORS}b"])
    assert tasks_of(source) == [["pick up the key"], None, [f"a{SEPARATORS}b"]]


def test_lists_of_tasks_may_hold_line_separators_and_nulls(source):
    edit_tasks(source, [["look", f"a{SEPARATORS}b"], [None], []])
    assert tasks_of(source) == [["look", f"a{SEPARATORS}b"], None, None]


def test_numbers_of_tasks_are_looked_up(source):
    edit_tasks(source, [[1, 0], [1], None])
    assert "has the task '1', no text and no number in meta/tasks" in error_of(opened, source.rename(f"{source}_"))
    source = Path(f"{source}_")
    if (source / "meta/tasks.jsonl").exists():
        (source / "meta/tasks.jsonl").write_text(
            '{"task_index": 0, "task": "play"}\n{"task_index": 1, "task": "a\u2028b"}\n', "utf-8"
        )
    else:
        table = pa.table({"task_index": [0, 1], "__index_level_0__": ["play", "a\u2028b"]})
        pq.write_table(table, source / "meta/tasks.parquet")
    assert tasks_of(source) == [["a\u2028b", "play"], ["a\u2028b"], None]


@pytest.mark.parametrize("task", [True, 2.5, {"text": "play"}, [["play"]], "\ud83d"])
def test_a_task_that_is_no_text_is_refused(v21, task):
    lines = (v21 / "meta/episodes.jsonl").read_text().split("\n")
    lines[1] = json.dumps(json.loads(lines[1]) | {"tasks": task})
    (v21 / "meta/episodes.jsonl").write_text("\n".join(lines))
    assert "episodes.jsonl, line 2 has the task" in error_of(opened, v21)


def test_a_list_of_episodes_in_another_encoding(v21):
    file = v21 / "meta/episodes.jsonl"
    text = file.read_text()
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        file.write_text(text.replace("\n", "\r\n"), encoding)
        check_first(v21)
    info = v21 / "meta/info.json"
    info.write_text(info.read_text(), "utf-8-sig")
    check_first(v21)


@pytest.mark.parametrize(
    "names", [None, [], {}, {"motors": None}, {"axes": []}, {"a": {"b": None}}, [None], [[None] * 3], [None] * 3]
)
def test_a_feature_that_names_nothing_has_its_values_numbered(v21, names):
    edit_info(lambda i: i["features"]["action"].update(names=names))(v21)
    assert opened(v21).keys == ("action_0", "action_1", "action_2")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"motors": {"axes": NAMES}}, NAMES),
        ([[NAMES]], NAMES),
        ({"motors": [{"axes": NAMES}]}, NAMES),
        ("button", ["button_0", "button_1", "button_2"]),
        ({"motors": "button"}, ["button_0", "button_1", "button_2"]),
        ([0, 1, 2], ["0", "1", "2"]),
        ({"jump": 1, "fire": 2, "left": 3}, NAMES),
    ],
)
def test_names_in_unusual_nesting(v21, names, expected):
    edit_info(lambda i: i["features"]["action"].update(names=names))(v21)
    assert opened(v21).keys == tuple(expected)


@pytest.mark.parametrize(
    "names",
    [
        3,
        True,
        2.5,
        ["jump", "fire", "left", "right"],
        ["jump", "jump", "left"],
        ["jump", "", "left"],
        ["jump", " ", "left"],
        ["jump", "fi\nre", "left"],
        ["jump", None, "left"],
        ["jump", 1.0, "left"],
        ["jump", True, "left"],
        ["jump", {"name": "fire"}, "left"],
        ["jump", ["fire"], "left"],
        ["1", 1, "left"],
        ["\ud800", "fire", "left"],
        {"jump": 0, "fire": 0, "left": 1},
        {"jump": None, "fire": None, "left": None},
        {"a": "jump", "b": "fire", "c": "left"},
        [[["jump"], ["fire"], ["left"]]],
    ],
)
def test_names_that_do_not_name_each_value_once_are_refused(v21, names):
    edit_info(lambda i: i["features"]["action"].update(names=names))(v21)
    assert "feature 'action' has 3 values and the names" in error_of(opened, v21)
    edit_info(lambda i: i["features"]["action"].update(names=NAMES))(v21)
    edit_info(lambda i: i["features"]["observation.state"].update(names=names))(v21)
    assert "feature 'observation.state' has 2 values and the names" in error_of(opened, v21)


@pytest.mark.parametrize("shape", [[0], [-3], [10**15], [3, 1], [1, 3]])
def test_an_action_of_an_impossible_shape_is_refused(v21, shape):
    edit_info(lambda i: i["features"]["action"].update(shape=shape))(v21)
    assert f"feature 'action' has shape {shape}" in error_of(opened, v21)


def rename(root: Path, names: dict[str, str]) -> None:
    edit_info(lambda i: i.update(features={names.get(n, n): f for n, f in i["features"].items()}))(root)
    edit_tables(lambda t: t.rename_columns([names.get(n, n) for n in t.schema.names]))(root)


def test_the_names_of_openpi_are_read(source, tmp_path):
    rename(source, {"action": "actions", "observation.state": "state", CAMERA: "image"})
    edit_info(lambda i: i["features"]["actions"].update(names=None))(source)
    edit_info(lambda i: i["features"]["state"].update(names=None))(source)
    dataset = imported(source, tmp_path / "x.zarr")
    check(dataset)
    assert dataset.action_names == ("action_0", "action_1", "action_2")
    assert dataset.state_names == ("state_0", "state_1")


def test_an_action_of_another_name_is_guessed_at_but_not_taken(v21):
    rename(v21, {"action": "action.keyboard"})
    message = error_of(opened, v21)
    assert "no feature 'action'" in message
    assert "is it action.keyboard? Then rename that" in message


def test_what_is_neither_action_nor_state_is_named(source, tmp_path):
    extra = {"dtype": "float32", "shape": [2], "names": None}
    names = ("next.reward", "observation.environment_state", "state")
    edit_info(lambda i: i["features"].update(dict.fromkeys(names, extra)))(source)
    edit_info(lambda i: i["features"].update({"observation.images.wrist": i["features"][CAMERA]}))(source)
    edit_tables(lambda t: t.append_column("undeclared", pa.array([1] * t.num_rows)))(source)
    recording = opened(source, camera=CAMERA).read("source/episode_000001")
    assert recording.notes == (
        "left out, neither action nor state: next.reward, observation.environment_state, state, undeclared",
    )
    assert recording.attrs["not_converted"] == sorted([*names, "undeclared", "observation.images.wrist"])
    check(imported(source, tmp_path / "x.zarr", camera=CAMERA))


def test_nothing_is_said_to_be_left_out_of_a_plain_dataset(source):
    recording = opened(source).read("source/episode_000001")
    assert recording.notes == ()
    assert recording.attrs == {"tasks": ["play"]}


def edit_camera(**changes: Any) -> Callable[[Path], None]:
    return edit_info(lambda i: i["features"][CAMERA].update(changes))


@pytest.mark.parametrize(
    ("shape", "names"),
    [
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
    ],
)
def test_the_size_of_pictures_in_any_order(v21, shape, names):
    edit_camera(shape=shape, names=names)(v21)
    check_first(v21)


@pytest.mark.parametrize("shape", [[], [HEIGHT], [0, WIDTH, 3], [HEIGHT, -WIDTH], [HEIGHT, WIDTH, 2], [1, 1, 2, 3]])
def test_a_camera_whose_shape_is_no_pictures_is_refused(v21, shape):
    edit_camera(shape=shape)(v21)
    assert f"camera '{CAMERA}' has shape {shape}" in error_of(opened, v21)


def test_shapes_that_are_no_whole_numbers_are_refused(v21):
    for shape in (None, "3", [3.0], [True], {"0": 3}, ["a"]):
        edit_info(lambda i, shape=shape: i["features"]["action"].update(shape=shape))(v21)
        assert "feature 'action' needs a 'dtype' and a 'shape' of whole numbers" in error_of(opened, v21)
    edit_info(lambda i: i["features"]["action"].update(shape=3))(v21)
    check_first(v21)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def test_pictures_of_any_mode_become_rgb():
    image = picture(1, 2)
    grey = image[..., 0]
    alpha = np.dstack([image, np.full(grey.shape, 77, np.uint8)])
    palette = Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    np.testing.assert_array_equal(decode_picture(encoded(image), "x", ""), image)
    np.testing.assert_array_equal(decode_picture(encoded(grey), "x", ""), np.dstack([grey] * 3))
    np.testing.assert_array_equal(decode_picture(encoded(alpha), "x", ""), image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transparent = decode_picture(encoded(palette, transparency=bytes([0, 128, 255])), "x", "")
    np.testing.assert_array_equal(transparent, np.asarray(palette.convert("RGB")))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    turned = decode_picture(encoded(image, exif=exif), "x", "")
    np.testing.assert_array_equal(turned, np.rot90(image, -1))


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG that says to have that many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (bomb(), "cannot decode the picture (Image size (900000000 pixels) exceeds"),
        (bomb(10_000, 10_000), "cannot decode the picture (Image size (100000000 pixels) exceeds"),
        (encoded(picture(0, 0))[:60], "cannot decode the picture"),
        (b"no picture", "is no picture in a known format: restore"),
        (b"\xff\xd8\xff", "is no picture in a known format"),
        (encoded(np.full((4, 4), 40_000, np.uint16)), "has one channel of more than 8 bits (mode I;16)"),
        (encoded(np.full((4, 4), 0.5, np.float32), "TIFF"), "(mode F)"),
    ],
    ids=["bomb", "small bomb", "cut off", "text", "three bytes", "16 bits", "floats"],
)
def test_a_picture_that_cannot_be_shown_costs_its_episode_alone(v21, tmp_path, content, part):
    edit_column(CAMERA, 3, {"bytes": content, "path": None})(v21)
    message = error_of(imported, v21, tmp_path / "x.zarr")
    assert "1 of 3 recordings" in message
    assert f"episode 2, frame 3: '{CAMERA}'" in message
    assert part in message
    assert " at 0x" not in message


@given(st.binary(max_size=200), st.integers(0, 199), st.binary(min_size=1, max_size=20))
def test_damaged_pictures_raise_a_line_and_nothing_else(content, place, damage):
    whole = bytearray(encoded(picture(0, 0)))
    whole[place : place + len(damage)] = damage
    for raw in (content, bytes(whole)):
        try:
            frame = decode_picture(raw, "x", "restore it")
        except UserError:
            continue
        else:
            assert frame.dtype == np.uint8
            assert frame.shape[2:] == (3,)


def write_files(root: Path, name: Callable[[int, int], str], place: Callable[[int, int], str]) -> None:
    """Moves the pictures out of the rows into files at ``place``, which the rows call ``name``."""
    for file in sorted(root.glob("data/*/*.parquet")):
        table = pq.read_table(file)
        content = table.to_pylist()
        for row in content:
            numbered = row["episode_index"], row["frame_index"]
            target = root / place(*numbered)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(row[CAMERA]["bytes"])
            row[CAMERA] = {"bytes": None, "path": name(*numbered)}
        pq.write_table(pa.Table.from_pylist(content, table.schema), file)


def in_images(episode: int, frame: int) -> str:
    return f"images/{CAMERA}/episode_{episode:06d}/frame_{frame:06d}.png"


@pytest.mark.parametrize("style", ["relative", "alone", "windows", "absolute", "beside"])
def test_pictures_in_files_that_the_rows_name(source, tmp_path, style):
    names = {
        "relative": in_images,
        "alone": lambda e, i: f"frame_{i:06d}.png",
        "windows": lambda e, i: in_images(e, i).replace("/", "\\"),
        "absolute": lambda e, i: f"{source}/{in_images(e, i)}",
        "beside": lambda e, i: f"pictures/{e}_{i}.png",
    }
    write_files(source, names[style], names[style] if style == "beside" else in_images)
    check(imported(source, tmp_path / "x.zarr"))


def test_a_column_of_bytes_alone(source):
    for change in (
        lambda c: c.combine_chunks().field("bytes"),
        lambda c: c.cast(pa.large_binary()),
        pa.ChunkedArray.dictionary_encode,
    ):
        replace_column(CAMERA, change)(source)
        check_first(source)


def test_a_column_of_paths_alone(source):
    write_files(source, in_images, in_images)
    for change in (lambda c: c.combine_chunks().field("path"), lambda c: c.cast(pa.large_string())):
        replace_column(CAMERA, change)(source)
        check_first(source)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("../secret.png", "outside the dataset: copy the pictures"),
        ("/etc/hostname", "outside the dataset"),
        ("C:\\pictures\\1.png", "outside the dataset"),
        ("images/gone.png", "images/gone.png, which is missing: restore the file"),
        ("x" * 300, "which is missing"),
        ("data", "which is missing"),
        ("", "holds no image, but nothing"),
        (None, "holds no image, but nothing"),
    ],
)
def test_a_file_that_is_not_there_or_outside_is_named(v21, tmp_path, name, part):
    (tmp_path / "secret.png").write_bytes(encoded(picture(2, 3)))
    edit_column(CAMERA, 3, {"bytes": None, "path": name})(v21)
    message = error_of(imported, v21, tmp_path / "x.zarr")
    assert f"episode 2, frame 3: '{CAMERA}'" in message
    assert part in message
    assert "1 of 3 recordings" in message


ROWS = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
ITEMS = [pa.float64(), pa.float16(), pa.int8(), pa.uint64(), pa.bool_(), pa.decimal128(25, 2), None]
LISTS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "list": lambda flat: pa.ListArray.from_arrays([0, 3, 6, 9], flat),
    "large_list": lambda flat: pa.LargeListArray.from_arrays([0, 3, 6, 9], flat),
    "fixed_size_list": lambda flat: pa.FixedSizeListArray.from_arrays(flat, 3),
}


@pytest.mark.parametrize("item", ITEMS, ids=str)
@pytest.mark.parametrize("of", LISTS)
def test_columns_of_any_kind_of_list_and_number(tmp_path, item, of):
    flat = pa.array(np.ravel(ROWS), pa.int64())
    column = LISTS[of](flat.dictionary_encode() if item is None else flat.cast(item))
    pq.write_table(pa.table({"action": column, "episode_index": [0, 0, 1]}), tmp_path / "x.parquet")
    table = read_columns(tmp_path / "x.parquet", ["action"], 0)
    np.testing.assert_array_equal(numbers(table, "action", 3, "x"), ROWS[:2])


@pytest.mark.parametrize("kind", [pa.list_view(pa.int8()), pa.large_list_view(pa.int8())], ids=str)
def test_list_views(kind):
    table = pa.table({"action": pa.array(ROWS, kind)}).slice(1)
    np.testing.assert_array_equal(numbers(table, "action", 3, "x"), ROWS[1:])


def test_lists_within_lists_and_tensors():
    nested = pa.table({"action": pa.array([[row] for row in ROWS])})
    np.testing.assert_array_equal(numbers(nested, "action", 3, "x"), ROWS)
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(ROWS, np.float32))
    np.testing.assert_array_equal(numbers(pa.table({"action": tensor}), "action", 3, "x"), ROWS)
    words = pa.array(["a", "b"]).dictionary_encode()
    assert "holds dictionary" in error_of(numbers, pa.table({"action": words}), "action", 1, "x")


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([[1, 0, 0], [1, 0], [1, 0, 0, 0]], 1),  # as many numbers as are needed
        ([[1, 0, 0], None, [0, 0, 0]], 1),
        ([[1, 0, 0], [0, 0, 0], [0, None, 0]], 2),
        ([[], [0, 0, 0], [0, 0, 0]], 0),
        ([[[1, 0, 0]], [[1, 0], [0]], [[0, 0, 0]]], 1),
        ([[[1, 0, 0]], [None], [[0, 0, 0]]], 1),
        ([1, 0, 1], 0),
        ([[1, 0], [0, 1]], 0),
        ([[1, 0, 0, 1]], 0),
    ],
)
def test_a_row_that_lacks_values_is_named(values, row):
    message = error_of(numbers, pa.table({"action": pa.array(values)}), "action", 3, "x")
    assert message.startswith(f"x, frame {row}: the column 'action' lacks values, it needs 3 in each row")


def test_other_columns_are_named_with_what_to_write(v21):
    for column in (pa.array(["a", "b"]), pa.array([{"jump": 1}, {"jump": 0}]), pa.nulls(2), pa.array([["a"] * 3] * 2)):
        message = error_of(numbers, pa.table({"action": column}), "action", 3, "x")
        assert "not numbers: write 3 in each row, as a list" in message
    edit_tables(lambda t: t.append_column("action", t["action"]))(v21)
    assert "has two columns of a name: rename or remove one" in error_of(opened(v21).read, "source/episode_000000")


def replace_column(name: str, change: Callable[[pa.ChunkedArray], Any]) -> Callable[[Path], None]:
    return edit_tables(lambda t: t.set_column(t.schema.get_field_index(name), name, change(t[name])))


def test_episode_numbers_of_other_types(source):
    for change in (lambda c: c.cast(pa.float64()), lambda c: c.cast(pa.int32()), pa.ChunkedArray.dictionary_encode):
        replace_column("episode_index", change)(source)
        check_first(source)
    replace_column("episode_index", lambda c: pa.array([[value] for value in c.to_pylist()]))(source)
    found = opened(source)
    message = error_of(found.read, found.episodes[0])
    assert "'episode_index' holds list<" in message
    assert "write a whole number in each row" in message


CHUNKS = ["{episode_chunk:03}", "{episode_chunk:0>3}", "{episode_chunk:0>3d}", "00{episode_chunk}"]
NUMBERS = ["{episode_index:06}", "{episode_index:0>6}", "{episode_index:06d}", "00000{episode_index:d}"]


@pytest.mark.parametrize(("chunk", "episode"), list(zip(CHUNKS, NUMBERS, strict=True)))
def test_templates_in_pythons_spellings_of_a_number(v21, chunk, episode):
    edit_info(lambda i: i.update(data_path=f"data/chunk-{chunk}/episode_{episode}.parquet"))(v21)
    check_first(v21)


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("data/{episode}.parquet", "unknown placeholder {episode}; known are episode_chunk, episode_index, video_key"),
        ("data/{}.parquet", "unknown placeholder {}"),
        ("data/{0}.parquet", "unknown placeholder {0}"),
        ("data/{episode_index.__class__}", "unknown placeholder {episode_index.__class__}"),
        ("data/{video_key[0]}", "unknown placeholder {video_key[0]}"),
        ("data/{episode_index!r}", "{episode_index!r} in an unknown format: write it as {episode_index:03d}"),
        ("data/{episode_index:x}", "{episode_index:x} in an unknown format"),
        ("data/{episode_index:0999999999d}", "in an unknown format"),
        ("data/{episode_index:{episode_chunk}}", "in an unknown format"),
        ("data/{video_key:09}", "write it as {video_key}"),
        ("data/{episode_index", "is malformed"),
        ("data/episode_index}", "is malformed"),
        ("../{episode_index}", "leads out of the dataset"),
        ("data/../../x", "leads out of the dataset"),
        ("/data/x", "leads out of the dataset"),
        ("C:/data/x", "leads out of the dataset"),
        ("data\\x", "leads out of the dataset"),
        ("data/\0", "leads out of the dataset"),
        (7, "data_path 7 is not a path"),
    ],
)
def test_templates_that_name_no_file_of_the_dataset(v21, template, part):
    edit_info(lambda i: i.update(data_path=template))(v21)
    assert part in error_of(opened, v21)


def test_a_camera_name_leads_nowhere_else(written, tmp_path):
    source = write_v21(tmp_path / "lr")
    edit_info(lambda i: i["features"].update({"../../x": i["features"].pop(CAMERA)}))(source)
    assert "leads out of the dataset" in error_of(opened, source)


def test_a_damaged_row_is_a_fault_of_the_list_of_episodes(tmp_path):
    source = write_v30(tmp_path / "lr")
    file = source / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    for bad in (None, float("nan"), -1.0, 0.5):
        content = table.to_pylist()
        content[2][f"videos/{CAMERA}/file_index"] = bad
        field = table.schema.get_field_index(f"videos/{CAMERA}/file_index")
        schema = table.schema.set(field, pa.field(f"videos/{CAMERA}/file_index", pa.float64()))
        pq.write_table(pa.Table.from_pylist(content, schema), file)
        message = error_of(opened, source)
        assert message.startswith(f"{file}: episode 2 has 'videos/{CAMERA}/file_index' {bad}")


def test_ids_that_float32_cannot_hold_are_refused_by_name_or_left_out(source, tmp_path):
    ids = pa.array([[1, 2**24 + 1]] * 20, pa.list_(pa.int64()))
    replace_column("observation.state", lambda c: ids[: len(c)])(source)
    assert "'ammo' is 16777217 in row 0" in error_of(imported, source, tmp_path / "x.zarr")
    dataset = imported(source, tmp_path / "x.zarr", leave_out=("ammo",))
    assert dataset.state_names == ("health",)
    np.testing.assert_array_equal(dataset.state(0), np.ones((LENGTHS[0], 1)))
    shutil.rmtree(tmp_path / "x.zarr")
    dataset = imported(source, tmp_path / "x.zarr", leave_out=("ammo", "health"))
    assert dataset.state_names == ()


@pytest.mark.parametrize("fps", [None, "20", True, 0, -1, float("nan"), float("inf"), 10**400, [20], {}])
def test_a_rate_that_is_no_number_above_0_is_refused(v21, fps):
    edit_info(lambda i: i.update(fps=fps))(v21)
    message = error_of(opened, v21)
    assert "info.json has fps" in message
    assert len(message) < 400


@pytest.mark.parametrize("version", ["2.1", 2.1, "V2.1", "v2.1.0", " v2.1 "])
def test_spellings_of_the_version(v21, version):
    edit_info(lambda i: i.update(codebase_version=version))(v21)
    check_first(v21)


def test_metadata_that_say_little(v21):
    for name in ("total_episodes", "total_frames", "chunks_size", "robot_type", "video_path"):
        edit_info(lambda i, name=name: i.update({name: None}))(v21)
    edit_info(lambda i: i.update(data_path="data/{episode_index}.parquet"))(v21)
    for i, file in enumerate(sorted(v21.glob("data/*/*.parquet"))):
        file.rename(v21 / "data" / f"{i}.parquet")
    check_first(v21)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"chunks_size": 0}, "chunks_size 0, not a whole number above 0"),
        ({"chunks_size": "1000"}, "chunks_size '1000'"),
        ({"chunks_size": True}, "chunks_size True"),
        ({"total_episodes": "3"}, "counts '3' episodes"),
        ({"features": []}, "no 'features'"),
        ({"features": {"action": None}}, "feature 'action' needs a 'dtype'"),
        ({"features": {"action": {"dtype": None, "shape": [3]}}}, "feature 'action' needs a 'dtype'"),
        ({"codebase_version": None}, "unknown codebase_version 'None'"),
        ({"codebase_version": ["v2.1"]}, "unknown codebase_version"),
    ],
)
def test_metadata_that_say_nonsense(v21, change, part):
    edit_info(lambda i: i.update(change))(v21)
    assert part in error_of(opened, v21)


def test_json_too_deep_to_read(v21):
    (v21 / "meta/episodes.jsonl").write_text("[" * 100_000)
    assert "episodes.jsonl, line 1 is damaged" in error_of(opened, v21)
    (v21 / "meta/info.json").write_text("[" * 100_000)
    assert "cannot read" in error_of(opened, v21)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"episode_index": -1, "length": 4}, "line 2 has 'episode_index' -1"),
        ({"episode_index": 0.5, "length": 4}, "line 2 has 'episode_index' 0.5"),
        ({"episode_index": True, "length": 4}, "line 2 has 'episode_index' True"),
        ({"episode_index": 10**30, "length": 4}, "line 2 has 'episode_index' 1000"),
        ({"episode_index": 1}, "line 2 has 'length' None"),
        ({"episode_index": 1, "length": float("nan")}, "line 2 has 'length' nan"),
        ({"episode_index": 2, "length": 5}, "lists episode 2 twice"),
        ([], "line 2 is damaged"),
    ],
)
def test_a_damaged_line_of_the_list_of_episodes(v21, row, part):
    lines = (v21 / "meta/episodes.jsonl").read_text().split("\n")
    lines[1] = json.dumps(row)
    (v21 / "meta/episodes.jsonl").write_text("\n".join(lines))
    assert part in error_of(opened, v21)


def test_an_empty_episode_has_no_steps(v21):
    lines = (v21 / "meta/episodes.jsonl").read_text().split("\n")
    lines[0] = json.dumps({"episode_index": 0, "tasks": ["play"], "length": 0})
    (v21 / "meta/episodes.jsonl").write_text("\n".join(lines))
    assert first(v21) == []
    assert first(v21, fps=10) == []


def test_a_place_in_a_video_beyond_all_numbers(tmp_path):
    source = write_v30(tmp_path / "lr")
    file = source / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    content = table.to_pylist()
    content[2][f"videos/{CAMERA}/from_timestamp"] = 9e15
    pq.write_table(pa.Table.from_pylist(content, table.schema), file)
    message = error_of(imported, source, tmp_path / "x.zarr")
    assert "file-001.mp4, episode 2" in message
    assert "1 of 3 recordings" in message


@pytest.mark.parametrize("camera", ["image", "video"])
@pytest.mark.parametrize("version", WRITERS)
def test_a_digest_tells_episodes_apart_wherever_they_lie(tmp_path, version, camera):
    source = WRITERS[version](tmp_path / "lr", camera=camera)
    found = opened(source)
    digests = [found.digest(episode) for episode in found.episodes]
    assert len(set(digests)) == len(LENGTHS)
    moved = opened(source.rename(tmp_path / "moved"))
    assert [moved.digest(episode) for episode in moved.episodes] == digests


def test_a_turned_video_is_seen_upright(tmp_path):
    source = write_v21(tmp_path / "lr")
    upright = [frame for frame, _, _ in first(source)]
    edit_camera(shape=[WIDTH, HEIGHT, 3])(source)
    for file in source.glob("videos/*/*/*.mp4"):
        plain = file.rename(file.with_suffix(".plain.mp4"))
        with av.open(str(plain)) as there, av.open(str(file), "w") as turned:
            stream = turned.add_stream_from_template(there.streams.video[0])
            stream.set_display_rotation(90)  # counterclockwise
            for packet in there.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    turned.mux(packet)
    np.testing.assert_array_equal([frame for frame, _, _ in first(source)], np.rot90(upright, axes=(2, 3)))
