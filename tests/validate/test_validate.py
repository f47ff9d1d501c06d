"""Every fault is planted in a clean dataset and found: its kind, episode and frames, and nothing else."""

import hashlib
import json
import shutil
import struct
import sys
from io import StringIO
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from dataset_files import array_metadata, chunk_file, cut_off_end, edit_json, file_server, flip_bit, rewrite
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc, Zstd
from rich.console import Console

from BC_training import __main__ as command_line
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.schema import RecordConfig
from BC_training.play.record import record
from BC_training.validate import scan
from BC_training.validate.findings import KINDS, spans_of
from BC_training.validate.validate import validate

QUIET = Console(file=StringIO())
FORMATS = pytest.mark.parametrize("zarr_format", [3, 2])


def found(path: Path | str, **options) -> list[tuple]:
    """(kind, episode's number or None, spans) of every finding."""
    findings = validate(path, QUIET, workers=1, **options)
    return [(f.kind, f.episode and int(f.episode.removeprefix("episode_")), f.spans) for f in findings]


def sized(file: Path, size: int) -> bytes:
    """A sound chunk of ``size`` bytes for this file, which may be another than the metadata requires."""
    if "/c/" not in str(file):  # zarr v2
        return Blosc().encode(bytes(size))
    packed = Zstd(level=1).encode(bytes(size))
    return packed + struct.pack("<I", google_crc32c.value(packed))


def smooth(rng: np.random.Generator, length: int) -> np.ndarray:
    """uint8 [length, 3, 24, 32] frames that look a little like a place: warm ground, a bluish sky."""
    place = np.zeros((3, 24, 32))
    place[:, :10] = np.array([90, 110, 180])[:, None, None]
    place[:, 10:] = np.array([140, 100, 60])[:, None, None]
    light = rng.normal(0, 6, (length, 1, 1, 1))
    return np.clip(place + light + rng.normal(0, 8, (length, 3, 24, 32)), 0, 255).astype(np.uint8)


# --- the dataset's attributes


@FORMATS
@pytest.mark.parametrize("root", [{"keys": ["a"] * 7}, {"keys": "a0"}, {"attributes": 3}, {"attributes": [1, 2, 3]}])
def test_bad_names_are_one_finding_and_keep_the_dataset_from_repair(tmp_path, make_dataset, zarr_format, root):
    make_dataset(tmp_path / "x.zarr", [12, 10], zarr_format=zarr_format, root_attributes=root)
    assert found(tmp_path / "x.zarr") == [("names", None, ())]
    with pytest.raises(UserError, match=r"name each once, in Python: .*; then --repair it"):
        validate(tmp_path / "x.zarr", QUIET, workers=1, repair_to=tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("mirror", [3, ["a0"], {"a0": 1}, {"a0": "nobody"}, {"a0": "a1", "a1": "a2"}, {"a0": "-a1"}])
def test_a_bad_mirror_table_is_one_finding(tmp_path, make_dataset, mirror):
    make_dataset(tmp_path / "x.zarr", [12, 10], root_attributes={"mirror": mirror})
    assert found(tmp_path / "x.zarr") == [("mirror", None, ())]


@pytest.mark.parametrize("count", [5, 39, "12", True, [12], 1e400, 10**400, {"a": 1}], ids=range(8))
def test_a_frame_count_other_than_the_frames_is_a_finding(tmp_path, make_dataset, count):
    make_dataset(tmp_path / "x.zarr", [12, 10])
    zarr.open_group(tmp_path / "x.zarr/episode_0").attrs["frame_count"] = count
    assert found(tmp_path / "x.zarr", repair_to=tmp_path / "y.zarr") == [("length", 0, ())]
    assert found(tmp_path / "y.zarr") == []


@pytest.mark.parametrize("fps", ["17", -1, 0, True, None, 1e400, np.nan, 10**400, [17.0]], ids=range(9))
def test_a_rate_that_is_not_a_number_above_0_is_a_finding_and_not_used(tmp_path, make_dataset, fps):
    make_dataset(tmp_path / "x.zarr", [12, 10])
    zarr.open_group(tmp_path / "x.zarr/episode_0").attrs["fps"] = fps
    assert found(tmp_path / "x.zarr") == [("fps", 0, ())]
    assert ZarrGameplayDataset(tmp_path / "x.zarr").fps == 17.0
    make_dataset(tmp_path / "y.zarr", [12, 10], fps=None)
    assert found(tmp_path / "y.zarr") == [("fps", None, ())]


@FORMATS
def test_an_array_of_millions_of_rows_of_which_few_are_there_is_not_searched(tmp_path, make_dataset, zarr_format):
    make_dataset(tmp_path / "x.zarr", [12, 10], zarr_format=zarr_format)
    for array in ("frames", "actions", "state"):
        file = array_metadata(tmp_path / "x.zarr", array)
        edit_json(file, lambda document: document.update(shape=[90_000_000, *document["shape"][1:]]))
    assert {f[:2] for f in found(tmp_path / "x.zarr")} == {("shape", 0)}


def test_ids_that_float32_merges_are_found(tmp_path, make_dataset):
    state = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    state[:, 1] = 23_000_008 + 2 * np.arange(40)
    state[5, 2] = 3e7  # among values that are not whole: no id
    make_dataset(tmp_path / "x.zarr", [40])
    rewrite(tmp_path / "x.zarr", 0, "state", state)
    assert found(tmp_path / "x.zarr") == [("rounded", None, ())]
    exact = state.astype(np.float64)
    exact[7:, 1] += 1
    rewrite(tmp_path / "x.zarr", 0, "state", exact)
    assert ("inexact", 0, ((7, 39),)) in found(tmp_path / "x.zarr", repair_to=tmp_path / "y.zarr")
    np.testing.assert_array_equal(ZarrGameplayDataset(tmp_path / "y.zarr").state(0), state[:7])


# --- clean datasets


def test_an_older_dataset_with_gaps_and_left_out_zeros_has_no_finding(tmp_path, make_older_dataset):
    make_older_dataset(tmp_path / "x.zarr", [40, 30, 20], numbers=[2, 7, 11], state=0, write_empty_chunks=False)
    assert len(list((tmp_path / "x.zarr").glob("*/actions/*.0"))) < 90
    assert found(tmp_path / "x.zarr") == []


def test_a_recording_of_the_game_is_clean_and_one_with_swapped_channels_is_not(tmp_path):
    path = tmp_path / "x.zarr"
    record(path, RecordConfig("doom/deadly_corridor", "expert", episodes=3, frame_size=(24, 32)), 1, QUIET)
    assert {kind for kind, *_ in found(path)} <= {"never"}
    for number, expected in ((1, [("channels", 1, ())]), (0, [("channels", 2, ())]), (2, [])):
        frames = zarr.open_group(path, mode="r+")[f"episode_{number}/frames"]
        frames[:] = frames[:][:, ::-1]  # type: ignore[index]
        assert [f for f in found(path) if f[0] != "never"] == expected  # where all are swapped, it cannot be found


# --- errors


CHUNK_FAULTS = {
    "missing": (Path.unlink, "missing"),
    "truncated": (cut_off_end, "damaged"),
    "emptied": (lambda file: file.write_bytes(b""), "damaged"),
    "too large": (lambda file: file.write_bytes(sized(file, 3 * 2304)), "damaged"),
    "too small": (lambda file: file.write_bytes(sized(file, 100)), "damaged"),
    "bit flipped": (flip_bit, "damaged"),
}


@FORMATS
@pytest.mark.parametrize("fault", CHUNK_FAULTS)
def test_faulty_chunks_of_frames_are_found(tmp_path, make_dataset, zarr_format, fault):
    if (fault, zarr_format) == ("bit flipped", 2):
        pytest.skip("Blosc has no checksum: a flipped bit cannot be found")
    path, (plant, kind) = tmp_path / "x.zarr", CHUNK_FAULTS[fault]
    make_dataset(path, [12, 30], zarr_format=zarr_format)
    for frame in (5, 6, 7, 20, 29):
        plant(chunk_file(path, "frames", frame, 1))
    assert found(path) == [(kind, 1, ((5, 7), (20, 20), (29, 29)))]


@pytest.mark.parametrize("array", ["actions", "state"])
@pytest.mark.parametrize("fault", ["missing", "truncated", "emptied"])
def test_faulty_chunks_of_actions_and_state_are_found(tmp_path, make_dataset, array, fault):
    for zarr_format, spans in ((3, ((0, 29),)), (2, ((4, 4), (9, 9)))):  # one chunk in all, one a frame
        path, (plant, kind) = tmp_path / f"{zarr_format}.zarr", CHUNK_FAULTS[fault]
        rows = [np.ones((12, 7), bool), np.ones((30, 7), bool)]
        rows[0][::2], rows[1][::3, 1:] = False, False
        root = {"format": "framewise", "version": 1}
        make_dataset(path, [12, 30], zarr_format=zarr_format, rows=rows, root_attributes=root)
        for row in (0,) if zarr_format == 3 else (4, 9):
            plant(chunk_file(path, array, row, 1))
        assert found(path) == [(kind, 1, spans)]


def test_left_out_zeros_count_as_no_button_where_the_reader_reads_them_so(tmp_path, make_older_dataset):
    """``reader.read_actions`` does so, too, if no other chunk of zeros was written."""
    path = tmp_path / "x.zarr"
    make_older_dataset(path, [30], write_empty_chunks=False, seed=3, rows=[np.eye(30, 13, dtype=bool)])
    assert found(path) == []
    cut_off_end(chunk_file(path, "actions", 3, 0))  # damage beside them stays the only finding
    assert found(path) == [("damaged", 0, ((3, 3),))]
    make_older_dataset(tmp_path / "y.zarr", [30], rows=[np.eye(30, 13, dtype=bool)])
    chunk_file(tmp_path / "y.zarr", "actions", 20, 0).unlink()
    assert found(tmp_path / "y.zarr") == [("missing", 0, ((20, 20),))]


def set_dtype(document):
    document["data_type" if "data_type" in document else "dtype"] = "int8" if "data_type" in document else "|i1"


METADATA, SHAPE, COLUMNS, LENGTH = ([(kind, 1, ())] for kind in ("metadata", "shape", "columns", "length"))
METADATA_FAULTS = {  # planted in episode 1, which has 10 frames of 24x32, 7 actions and 3 state values
    "not a group": (lambda p: [f.unlink() for f in (p / "episode_1").iterdir() if f.is_file()], METADATA),
    "no frames": (lambda p: shutil.rmtree(p / "episode_1/frames"), METADATA),
    "no actions": (lambda p: shutil.rmtree(p / "episode_1/actions"), METADATA),
    "not JSON": (lambda p: array_metadata(p, "frames", 1).write_text("{"), METADATA),
    "no shape": (lambda p: edit_json(array_metadata(p, "frames", 1), lambda d: d.pop("shape")), METADATA),
    "no state": (lambda p: shutil.rmtree(p / "episode_1/state"), COLUMNS),
    "dtype": (lambda p: edit_json(array_metadata(p, "frames", 1), set_dtype), [("dtype", 1, ())]),
    "state bool": (lambda p: rewrite(p, 1, "state", np.ones((10, 3), bool)), [("dtype", 1, ())]),
    "dimensions": (lambda p: rewrite(p, 1, "actions", np.ones((10, 7, 1), bool)), SHAPE),
    "no channel axis": (lambda p: rewrite(p, 1, "frames", noise(10, 24, 32)), SHAPE),
    "channels": (lambda p: rewrite(p, 1, "frames", noise(10, 4, 24, 32)), SHAPE),
    "channels last": (lambda p: rewrite(p, 1, "frames", noise(10, 24, 24, 32)), SHAPE),
    "no pixels": (lambda p: rewrite(p, 1, "frames", noise(10, 3, 0, 32)), SHAPE),
    "frame size": (lambda p: rewrite(p, 1, "frames", noise(10, 3, 24, 40)), [("size", 1, ())]),
    "action columns": (lambda p: rewrite(p, 1, "actions", np.eye(10, 6, dtype=bool)), COLUMNS),
    "state columns": (lambda p: rewrite(p, 1, "state", np.ones((10, 4), np.float32)), COLUMNS),
    "state longer": (lambda p: rewrite(p, 1, "state", np.ones((11, 3), np.float32)), LENGTH),
    "frames shorter": (lambda p: rewrite(p, 1, "frames", noise(8, 3, 24, 32)), LENGTH),
    "frame_count": (lambda p: attribute(p, 1, frame_count=9), LENGTH),
    "NaN": (lambda p: put(p, 1, "state", (4, 2), np.nan), [("state_value", 1, ((4, 4),))]),
    "infinite": (lambda p: put(p, 1, "state", (9, 0), -np.inf), [("state_value", 1, ((9, 9),))]),
    "no fps": (lambda p: attribute(p, 1, fps=None), [("fps", 1, ())]),
    "fps drifts": (lambda p: attribute(p, 1, fps=18.0), [("rate", 1, ())]),
    "nothing": (lambda p: None, []),
    "fps nearly the same": (lambda p: attribute(p, 1, fps=17.5), []),
    "irregular": (lambda p: attribute(p, 1, frame_interval_cv=0.4), [("irregular", 1, ())]),
    "unmatched": (lambda p: attribute(p, 1, unmatched_presses=1, unmatched_releases=2), [("unmatched", 1, ())]),
    "few unmatched": (lambda p: attribute(p, 1, unmatched_releases=2, unbound_presses=9), []),
    "unbound": (lambda p: no_action(p, 1, unbound_presses=9), [("unbound", 1, ())]),
}


def no_action(path: Path, episode: int, **values) -> None:
    rewrite(path, episode, "actions", np.zeros((10, 7), bool))
    attribute(path, episode, **values)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def attribute(path: Path, episode: int, **values) -> None:
    attrs = zarr.open_group(path, mode="r+")[f"episode_{episode}"].attrs
    attrs.put({k: v for k, v in {**attrs, **values}.items() if v is not None})


def put(path: Path, episode: int, array: str, where: tuple, value: float) -> None:
    zarr.open_group(path, mode="r+")[f"episode_{episode}/{array}"][where] = value  # type: ignore[index]


@FORMATS
@pytest.mark.parametrize("fault", METADATA_FAULTS)
def test_faulty_metadata_and_values_are_found(tmp_path, make_dataset, zarr_format, fault):
    path, (plant, expected) = tmp_path / "x.zarr", METADATA_FAULTS[fault]
    make_dataset(path, [12, 10, 8], zarr_format=zarr_format)
    plant(path)
    assert found(path) == expected
    dataset = ZarrGameplayDataset(path, validate_episodes=True)
    dataset.load_labels()
    refused = any(KINDS[kind][0] == "error" for kind, *_ in expected) and fault != "frame_count"
    assert [skipped.name for skipped in dataset.skipped] == ["episode_1"] * refused


@FORMATS
def test_episodes_of_no_frame_and_of_one_are_found(tmp_path, make_dataset, zarr_format):
    make_dataset(tmp_path / "x.zarr", [12, 0, 1], zarr_format=zarr_format)
    assert found(tmp_path / "x.zarr") == [("empty", 1, ()), ("one_frame", 2, ())]


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize(
    ("zarr_format", "group", "file", "episode"),
    [(2, "", "episode_1/.zattrs", None), (3, "episode_0", "episode_0/state/zarr.json", 0)],
)
def test_consolidated_metadata_that_differs_is_a_finding(tmp_path, make_dataset, zarr_format, group, file, episode):
    path = tmp_path / "x.zarr"
    make_dataset(path, [12, 10], zarr_format=zarr_format)
    zarr.consolidate_metadata(path / group, zarr_format=zarr_format)
    assert found(path) == []
    edit_json(path / file, lambda document: document.update(fill_value=7.0))
    assert found(path) == [("consolidated", episode, ())]


@pytest.mark.parametrize("fault", ["missing", "truncated", None])
def test_faults_are_found_across_tasks_and_blocks(tmp_path, make_dataset, monkeypatch, fault):
    monkeypatch.setattr(scan, "BLOCK_BYTES", 3 * 2304)
    monkeypatch.setattr("BC_training.validate.validate.TASK_FRAMES", 7)
    path = tmp_path / "x.zarr"
    written = make_dataset(path, [40])[0].frames
    frozen = written.copy()
    frozen[5:30] = frozen[5]  # over several tasks
    zarr.open_group(path, mode="r+")["episode_0/frames"][:] = frozen  # type: ignore[index]
    if fault is None:
        assert found(path) == [("frozen", 0, ((5, 29),))]
    else:
        CHUNK_FAULTS[fault][0](chunk_file(path, "frames", 34, 0))
        assert found(path) == [(CHUNK_FAULTS[fault][1], 0, ((34, 34),)), ("frozen", 0, ((5, 29),))]


# --- warnings


def write(tmp_path, make_dataset, lengths, frames=None, rows=None, fps=10.0) -> Path:
    """A dataset with these frames and actions, and random ones where None."""
    path = tmp_path / "x.zarr"
    made = make_dataset(path, lengths, actions=3, rows=rows, fps=fps)
    for e, replaced in (frames or {}).items():
        made[e].frames[:] = replaced(made[e].frames)
        zarr.open_group(path, mode="r+")[f"episode_{e}/frames"][:] = made[e].frames  # type: ignore[index]
    return path


def repeat(*runs: tuple[int, int]):
    """Frames with frame ``first`` shown until before ``stop``."""

    def replaced(frames):
        for first, stop in runs:
            frames[first:stop] = frames[first]
        return frames

    return replaced


def test_a_picture_that_stands_still_for_a_second_is_a_finding(tmp_path, make_dataset):
    path = write(tmp_path, make_dataset, [110, 90], {0: repeat((20, 30), (40, 49), (60, 85)), 1: repeat((20, 29))})
    assert found(path) == [("frozen", 0, ((20, 29), (60, 84)))]


def test_repeats_of_every_other_frame_are_a_finding(tmp_path, make_dataset):
    path = write(tmp_path, make_dataset, [40, 40], {1: repeat(*((t, t + 2) for t in range(0, 40, 2)))})
    assert found(path) == [("duplicates", 1, tuple((t, t) for t in range(1, 40, 2)))]


def test_a_copied_episode_is_a_finding(tmp_path, make_dataset):
    path = write(tmp_path, make_dataset, [20, 20, 20])
    shutil.copytree(path / "episode_0", path / "episode_3")
    assert found(path) == [("copy", 3, ())]
    put(path, 3, "frames", (19, 2, 23, 31), int(zarr.open_group(path)["episode_0/frames"][19, 2, 23, 31]) ^ 1)
    assert found(path) == []  # one bit is no copy


def test_a_key_held_for_a_minute_or_throughout_is_a_finding(tmp_path, make_dataset):
    rng = np.random.default_rng(0)
    rows = [rng.random((n, 3)) < 0.3 for n in (160, 140, 24, 24)]  # at 2 frames/s
    rows[0][20:140, 1] = True  # 60 s
    rows[0][19, 1] = rows[0][140, 1] = False
    rows[1][10:128, 1] = True  # 59 s
    rows[1][9, 1] = rows[1][128, 1] = False
    rows[2][:, 2] = True  # throughout
    path = write(tmp_path, make_dataset, [len(r) for r in rows], rows=rows, fps=2.0)
    assert found(path) == [("stuck", 0, ((20, 139),)), ("stuck", 2, ((0, 23),))]


def test_keys_never_or_always_pressed_are_findings(tmp_path, make_dataset):
    rows = [np.array([[True, False, bool(t % 2)] for t in range(20)])] * 2
    assert found(write(tmp_path, make_dataset, [20, 20], rows=rows)) == [("always", None, ()), ("never", None, ())]


def test_five_seconds_without_play_at_the_start_or_the_end_are_a_finding(tmp_path, make_dataset):
    rows = [np.ones((80, 3), bool) for _ in range(3)]
    for r in rows:
        r[::2] = False
    rows[0][:24], rows[1][:24], rows[2][60:] = False, False, False

    def flicker(first, stop):
        def replaced(frames):
            frames[first:stop] = frames[first]
            frames[first:stop:2, 0, 0, 0] ^= 1  # nearly the same
            return frames

        return replaced

    frames = {0: flicker(0, 22), 1: flicker(0, 18), 2: flicker(59, 80)}
    path = write(tmp_path, make_dataset, [80] * 3, frames, rows=rows, fps=4.0)
    assert found(path) == [("idle", 0, ((0, 21),)), ("idle", 2, ((60, 79),))]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda frames: frames[:, ::-1], [("channels", 3, ())]),
        (lambda frames: frames[:, :, ::-1] // 3, []),  # another place: of another brightness and shape
    ],
)
def test_swapped_channels_are_found_and_another_place_is_not_taken_for_a_swap(tmp_path, make_dataset, change, expected):
    rng = np.random.default_rng(0)
    frames = {e: lambda f: smooth(rng, len(f)) for e in range(5)}
    path = write(tmp_path, make_dataset, [20] * 5, frames | {3: lambda f: change(smooth(rng, len(f)))})
    assert found(path) == expected


# --- the property


@settings(max_examples=12)
@given(data=st.data())
def test_exactly_what_is_planted_is_found(tmp_path_factory, make_dataset, data):
    zarr_format = data.draw(st.sampled_from([2, 3]))
    clean = tmp_path_factory.getbasetemp() / f"clean-{zarr_format}.zarr"
    if not clean.exists():
        make_dataset(clean, [12, 9, 15], zarr_format=zarr_format)
    path = tmp_path_factory.mktemp("planted") / "x.zarr"
    shutil.copytree(clean, path)
    places = st.tuples(st.integers(0, 2), st.integers(0, 8))
    faults = st.sampled_from(["missing", "truncated", "emptied", "NaN"])
    planted = data.draw(st.dictionaries(places, faults, max_size=8))
    expected: dict[tuple[str, int], list[int]] = {}
    for (episode, frame), fault in planted.items():
        if fault == "NaN":
            put(path, episode, "state", (frame, 1), np.nan)
            kind = "state_value"
        else:
            plant, kind = CHUNK_FAULTS[fault]
            plant(chunk_file(path, "frames", frame, episode))
        expected.setdefault((kind, episode), []).append(frame)
    assert set(found(path)) == {(kind, episode, spans_of(rows)) for (kind, episode), rows in expected.items()}
    if planted:
        out = path.with_name("good.zarr")
        try:
            validate(path, QUIET, workers=1, repair_to=out)
        except UserError:
            assert all(any(e == k and frame < 2 for k, frame in planted) for e in range(3))
        else:
            first = {e: min((f for k, f in planted if k == e), default=[12, 9, 15][e]) for e in range(3)}
            assert {e.name: e.length for e in ZarrGameplayDataset(out).episodes} == {
                f"episode_{e}": n for e, n in first.items() if n >= 2
            }
            assert [kind for kind, *_ in found(out) if KINDS[kind][0] == "error"] == []
    shutil.rmtree(path.parent)


# --- repair


def snapshot(path: Path) -> dict[str, tuple]:
    return {
        str(f.relative_to(path)): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns, f.stat().st_mode)
        for f in path.rglob("*")
        if f.is_file()
    }


@pytest.mark.parametrize(("zarr_format", "workers"), [(3, 1), (2, 1), (3, 2)])
def test_a_repair_keeps_good_starts_bit_for_bit_and_never_touches_the_original(
    tmp_path, make_dataset, zarr_format, workers
):
    path, out = tmp_path / "x.zarr", tmp_path / "good.zarr"
    written = make_dataset(
        path,
        [12, 10, 9, 8, 8, 40],
        zarr_format=zarr_format,
        numbers=[0, 3, 4, 5, 6, 7],
        root_attributes={"note": "mine"},
    )
    chunk_file(path, "frames", 6, 3).unlink()
    put(path, 4, "state", (1, 0), np.nan)  # one good frame: left out
    rewrite(path, 5, "frames", written[3].frames[:5])
    attribute(path, 6, frame_count=3, player="someone")
    folders = [path, *(f for f in path.rglob("*") if f.is_dir())]
    for file in (*(f for f in path.rglob("*") if f.is_file()), *folders):
        file.chmod(0o555 if file.is_dir() else 0o444)
    before = snapshot(path)
    validate(path, QUIET, workers=workers, repair_to=out)
    assert snapshot(path) == before
    for folder in folders:
        folder.chmod(0o755)
    assert found(out) == []
    kept = {"episode_0": (0, 12), "episode_3": (1, 6), "episode_5": (3, 5), "episode_6": (4, 8), "episode_7": (5, 40)}
    dataset = ZarrGameplayDataset(out)
    assert [e.name for e in dataset.episodes] == list(kept)
    for position, (name, (e, length)) in enumerate(kept.items()):
        np.testing.assert_array_equal(dataset.frames(position, range(length)), written[e].frames[:length])
        np.testing.assert_array_equal(dataset.actions(position), written[e].actions[:length])
        np.testing.assert_array_equal(dataset.state(position), written[e].state[:length])
        attrs = dataset.episodes[position].attrs
        assert attrs["repaired_from"] == name
        assert attrs["repaired_from_frames"] == len(written[e].frames)
        assert attrs["frame_count"] == length
        assert attrs["fps"] == 17.0
    assert dataset.episodes[3].attrs["player"] == "someone"
    assert zarr.open_group(out).attrs["note"] == "mine"
    report = json.loads((tmp_path / "good.zarr.repair.json").read_text())
    assert [(e["episode"], e["what"], e["frames"]) for e in report["episodes"]] == [
        ("episode_0", "whole", 12),
        ("episode_3", "cut", 6),
        ("episode_4", "left out", 0),
        ("episode_5", "cut", 5),
        ("episode_6", "whole", 8),
        ("episode_7", "whole", 40),
    ]
    assert report["episodes"][1]["why"] == ["chunks of 'frames' are missing"]


def test_a_repair_overwrites_nothing_and_writes_nothing_if_no_episode_can_be_kept(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [12, 10])
    make_dataset(tmp_path / "taken.zarr", [3])
    (tmp_path / "free.zarr.repair.json").write_text("mine")
    before = snapshot(tmp_path)
    for name in ("taken.zarr", "free.zarr", "x.zarr"):
        with pytest.raises(UserError, match="exists, nothing is overwritten"):
            validate(tmp_path / "x.zarr", QUIET, workers=1, repair_to=tmp_path / name)
    with pytest.raises(UserError, match="local folder"):
        validate(tmp_path / "x.zarr", QUIET, workers=1, repair_to="s3://bucket/x.zarr")
    assert snapshot(tmp_path) == before
    for number in (0, 1):
        chunk_file(tmp_path / "x.zarr", "frames", 1, number).unlink()
    with pytest.raises(UserError, match="no episode of which 2 frames can be kept"):
        validate(tmp_path / "x.zarr", QUIET, workers=1, repair_to=tmp_path / "good.zarr")
    assert not (tmp_path / "good.zarr").exists()


# --- the command


def test_the_command_prints_findings_and_exits_with_0_1_or_2(tmp_path, make_dataset, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["BC_training", "validate", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        return int(exit_.value.code or 0), *capsys.readouterr()

    path = tmp_path / "x.zarr"
    make_dataset(path, [12, 10], rows=[np.tri(12, 7, dtype=bool), np.tri(10, 7, -1, dtype=bool)])
    code, output, _ = command(path)
    assert code == 0
    assert "2 episodes, 22 frames" in output
    assert "no findings" in output
    for frame in range(0, 12, 2):
        chunk_file(path, "frames", frame).unlink()
    code, output, _ = command(path, "--json", tmp_path / "findings.json", "--repair", tmp_path / "good.zarr")
    assert code == 1
    assert "1 error, 0 warnings, 0 info" in output
    table = output.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "error     missing  0        0, 2, ... (6)  chunks of 'frames' are missing" in table
    written = json.loads((tmp_path / "findings.json").read_text())
    assert (written["dataset"], written["episodes"], written["frames"]) == (str(path), 2, 22)
    assert (written["error"], written["warning"], written["info"]) == (1, 0, 0)
    assert written["findings"] == [
        {
            "severity": "error",
            "kind": "missing",
            "episode": "episode_0",
            "frames": [[f, f] for f in range(0, 12, 2)],
            "count": 6,
            "message": "chunks of 'frames' are missing",
            "remedy": KINDS["missing"][1],
        }
    ]
    assert written["repair"]["left out"] == 1
    assert command(tmp_path / "good.zarr")[0] == 0
    code, _, error = command(tmp_path / "nowhere.zarr")
    assert code == 2
    assert error.startswith("error: no dataset at")
    assert error.count("\n") == 1
    make_dataset(tmp_path / "idle.zarr", [6], actions=2, rows=[np.tile([[True, False], [False, False]], (3, 1))])
    code, output, _ = command(tmp_path / "idle.zarr")
    assert code == 0  # an info alone is clean
    assert "never pressed: a1" in output


def test_a_server_that_fails_is_an_error_and_no_finding(tmp_path, make_dataset, monkeypatch):
    """A server that fails midway must not make the dataset look damaged."""
    make_dataset(tmp_path / "x.zarr", [12])
    read = scan.reader.open_array

    class Failing:
        def __init__(self, array):
            self.shape, self.dtype, self._array = array.shape, array.dtype, array

        def __getitem__(self, _):
            return self

        def read(self):
            return self

        def result(self):
            raise ValueError("UNAVAILABLE: connection reset [source locations='x.cc']")

    monkeypatch.setattr(scan.reader, "open_array", lambda *args: Failing(read(*args)))
    with pytest.raises(UserError, match="UNAVAILABLE: connection reset; check"):
        validate(tmp_path / "x.zarr", QUIET, workers=1)


def test_a_remote_dataset_is_validated_and_repaired(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [12, 10])
    chunk_file(tmp_path / "x.zarr", "frames", 4, 1).unlink()
    cut_off_end(chunk_file(tmp_path / "x.zarr", "frames", 7, 1))
    with file_server(lambda path: tmp_path / path.strip("/")) as server:
        findings = found(f"{server.url}/x.zarr", repair_to=tmp_path / "good.zarr")
    assert findings == [("missing", 1, ((4, 4),)), ("damaged", 1, ((7, 7),))]
    assert [e.length for e in ZarrGameplayDataset(tmp_path / "good.zarr").episodes] == [12, 4]


def test_findings_are_sorted_by_severity_and_episode(tmp_path, make_dataset):
    rows = [np.eye(n, 3, dtype=bool) * [1, 1, 0] for n in (12, 1, 12)]
    make_dataset(tmp_path / "x.zarr", [12, 1, 12], actions=3, rows=rows)
    for number in (2, 0):
        chunk_file(tmp_path / "x.zarr", "frames", 4, number).unlink()
    found_kinds = [(kind, episode) for kind, episode, _ in found(tmp_path / "x.zarr")]
    assert found_kinds == [("missing", 0), ("missing", 2), ("one_frame", 1), ("never", None)]
