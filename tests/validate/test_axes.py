"""Faults of axes are planted in a clean dataset and found, and play that is only unlike is not."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import zarr
from dataset_files import chunk_file, cut_off_end, rewrite
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.storage.metadata import ArrayInfo, EpisodeInfo
from BC_training.common.storage.store import LocalStore
from BC_training.validate.axes import _rescaled, describe, find_axis_oddities
from BC_training.validate.findings import WHOLE_SECONDS, Checked, Finding
from BC_training.validate.validate import validate

RATE = 10.0
LENGTH = 700  # longer than a stick may stay at its end


def findings(path: Path, **options) -> list:
    return validate(path, Console(file=StringIO()), workers=1, **options)


def found(path: Path, **options) -> list[tuple]:
    return short(findings(path, **options))


def stick(seed: int, length: int = LENGTH) -> np.ndarray:
    """float32 [N]: a stick in [-1, 1] that rests, and stays at its ends for seconds."""
    pushed = np.repeat(np.random.default_rng(seed).normal(0, 0.7, length // 10 + 1), 10)[:length]
    trembling = np.random.default_rng(seed).normal(0, 0.01, length)
    return np.where(np.abs(pushed) < 0.3, 0, np.clip(pushed + trembling, -1, 1)).astype(np.float32)


def odd(*axes: np.ndarray) -> list[Finding]:
    """The findings in episodes with these axes [N] or [N, X], which are not written."""
    columns = [np.atleast_2d(values.T).T.astype(np.float32) for values in axes]
    episodes = []
    for number, values in enumerate(columns):
        array = ArrayInfo(values.shape, "float32", values.shape, 3)
        info = EpisodeInfo(LocalStore("x.zarr"), f"episode_{number}", {"axes": array}, {})
        episodes.append((Checked(info, RATE, ("axes",), True), describe(values, int(WHOLE_SECONDS * RATE))))
    return list(find_axis_oddities(episodes, [f"x{i}" for i in range(columns[0].shape[1])]))


def short(found: list[Finding]) -> list[tuple]:
    """(kind, episode's number or None, spans) of every finding."""
    return [(f.kind, f.episode and int(f.episode[8:]), f.spans) for f in found]


def rewrite_whole(path: Path, number: int, values: np.ndarray) -> None:
    zarr.open_group(path, mode="r+")[f"episode_{number}/axes"][:] = values  # type: ignore[index]


@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize(("bad", "actions"), [(np.nan, 2), (-np.inf, 0)])
def test_amounts_that_are_not_finite_are_found_and_a_repair_keeps_the_axes_before_them(
    tmp_path, make_dataset, zarr_format, bad, actions
):
    made = make_dataset(tmp_path / "x.zarr", [12, 10], actions=actions, axes=2, zarr_format=zarr_format)
    axes = made[1].axes.copy()
    axes[(5, 7), (1, 0)] = bad
    rewrite_whole(tmp_path / "x.zarr", 1, axes)
    (finding,) = findings(tmp_path / "x.zarr", repair_to=tmp_path / "y.zarr")
    assert (finding.kind, finding.episode, finding.spans) == ("axis_value", "episode_1", ((5, 5), (7, 7)))
    assert finding.message == f"axis 'x1' is {bad}"
    assert found(tmp_path / "y.zarr") == []
    repaired = ZarrGameplayDataset(tmp_path / "y.zarr")
    assert repaired.axis_names == ("x0", "x1")
    for e, length in enumerate((12, 5)):
        np.testing.assert_array_equal(repaired.axes(e), made[e].axes[:length])
        np.testing.assert_array_equal(repaired.actions(e), made[e].actions[:length])
        np.testing.assert_array_equal(repaired.frames(e, range(length)), made[e].frames[:length])


@pytest.mark.parametrize(("damage", "kind"), [(Path.unlink, "missing"), (cut_off_end, "damaged")])
def test_chunks_of_axes_that_are_missing_or_damaged_are_found(tmp_path, make_dataset, damage, kind):
    made = make_dataset(tmp_path / "x.zarr", [12, 10], axes=2)
    rewrite(tmp_path / "x.zarr", 0, "axes", made[0].axes)  # one row a chunk
    damage(chunk_file(tmp_path / "x.zarr", "axes", 8))
    assert found(tmp_path / "x.zarr", repair_to=tmp_path / "y.zarr") == [(kind, 0, ((8, 8),))]
    np.testing.assert_array_equal(ZarrGameplayDataset(tmp_path / "y.zarr").axes(0), made[0].axes[:8])


def test_axes_of_other_shapes_than_their_names_are_found(tmp_path, make_dataset):
    made = make_dataset(tmp_path / "x.zarr", [12, 10, 9, 8], axes=2)
    rewrite(tmp_path / "x.zarr", 0, "axes", made[0].axes[:9])
    rewrite(tmp_path / "x.zarr", 1, "axes", made[1].axes[:, :1])
    rewrite(tmp_path / "x.zarr", 2, "axes", made[2].axes.astype(np.float64))  # also read
    assert found(tmp_path / "x.zarr") == [("length", 0, ()), ("columns", 1, ())]
    root = zarr.open_group(tmp_path / "x.zarr")
    root.attrs["axes"] = []
    assert [f[0] for f in found(tmp_path / "x.zarr")] == ["length", *["columns"] * 4]
    for wrong in ("x0", ["x0", "x0"], ["x0", "a0"], [1, 2]):
        root.attrs["axes"] = wrong
        assert ("names", None, ()) in found(tmp_path / "x.zarr")


def test_a_mirror_table_may_name_axes(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [12], axes=2, root_attributes={"mirror": {"x0": "-x0"}})
    assert found(tmp_path / "x.zarr") == []
    zarr.open_group(tmp_path / "x.zarr").attrs["mirror"] = {"x0": "-x9"}
    assert found(tmp_path / "x.zarr") == [("mirror", None, ())]


def test_play_with_sticks_and_a_mouse_has_no_finding():
    rng = np.random.default_rng(0)
    mouse = [np.rint(rng.normal(0, 9 * (e + 1), LENGTH)) * (rng.random(LENGTH) < 0.3) for e in range(3)]
    gas = [np.clip(stick(e + 10), 0, 1) for e in range(3)]
    gas[0][:500] = 1  # to the floor: 50 s
    axes = [np.c_[stick(e), mouse[e], gas[e]] for e in range(3)]
    assert odd(*axes) == []


def test_axes_that_never_move_or_never_change_are_found():
    still, constant = np.zeros(50), np.full(50, 0.5)
    axes = [np.c_[stick(e, 50), still, constant] for e in range(2)]
    found = [(f.kind, f.message) for f in odd(*axes)]
    assert found == [("never", "never moved: x1"), ("always", "'x2' is 0.5 in every frame")]


def test_an_axis_that_is_dead_in_one_episode_is_found():
    used = [np.where(stick(e) == 0, 0.1, stick(e)) for e in range(2)]
    axes = [used[0], np.zeros(LENGTH), used[1], np.zeros(90)]  # too short to tell
    assert short(odd(*axes)) == [("stuck", 1, ((0, LENGTH - 1),))]


@pytest.mark.parametrize(("amount", "frames", "kinds"), [
    (0.37, 100, ["stuck"]), (0.37, 99, []), (0, 690, []), (1, 590, []), (-1, 600, ["stuck"]),
    (0.99999, 100, ["stuck"]),
])  # fmt: skip
def test_an_amount_that_stays_is_found_sooner_where_it_is_no_end_of_the_axis(amount, frames, kinds):
    axes = [stick(0), stick(1), stick(2)]
    axes[1][50 : 50 + frames] = amount
    axes[1][[49, *range(50 + frames, min(51 + frames, LENGTH))]] = 0.2
    expected = [(kind, 1, ((50, 49 + frames),)) for kind in kinds]
    assert short(odd(*axes)) == expected


def test_amounts_beyond_1_are_found_where_other_episodes_stay_within():
    axes = [stick(0), stick(1), stick(2), stick(3)]
    axes[2][[7, 8, 500]] = 1.5, -3, 1.001
    (finding,) = odd(*axes)
    assert (finding.kind, finding.episode, finding.spans) == ("range", "episode_2", ((7, 8), (500, 500)))
    assert finding.message == "'x0' goes from -3 to 1.5, in other episodes it stays in [-1, 1]"
    small = [0.5 * values for values in axes]  # an axis whose ends are not at 1
    assert odd(*small) == []
    assert odd(axes[0], axes[2]) == []  # nothing to tell by


@pytest.mark.parametrize("factor", [np.pi / 180, 127, 15])
def test_an_axis_of_another_scale_is_found(factor):
    rng = np.random.default_rng(0)
    axes = [rng.normal(0, 5 * size, 200) for size in (1, 2, 0.7, 1)]
    axes[2] *= factor * 2
    (finding,) = odd(*axes)
    assert (finding.kind, finding.episode) == ("rescaled", "episode_2")
    axes[2] /= factor * 2
    assert odd(*axes) == []


@pytest.mark.parametrize(("sizes", "expected"), [
    ([1, 1, 60], [2]), ([1, 60], [1]), ([60, 1], [1]), ([60, 1, 1, 70], [1, 2]), ([1, 60, 70], [0]),
    ([1, 9, 80], []), ([1, 9.9], []), ([1, np.nan, 60], [2]), ([np.nan, 1], []), ([], []),
    ([1, 8, 60, 500, 4000], []),  # as spread as can be
])  # fmt: skip
def test_the_smaller_part_is_of_another_scale(sizes, expected):
    assert [e for e, _ in _rescaled(np.array(sizes, float))] == expected


@given(st.lists(st.floats(1e-6, 1e6), max_size=6), st.floats(1e-3, 1e3))
def test_a_unit_for_all_episodes_changes_nothing(sizes, unit):
    found = [[e for e, _ in _rescaled(np.array(sizes) * factor)] for factor in (1.0, 2.0 ** np.rint(np.log2(unit)))]
    assert found[0] == found[1]


def test_the_command_finds_what_episodes_tell_of_each_other(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [80, 80, 80], axes=3, fps=1.0)
    for number in range(3):
        axes = np.c_[stick(number, 80), np.random.default_rng(number).normal(0, 9, 80), stick(number + 6, 80)]
        axes[:, 1] *= 0.01 if number == 2 else 1
        axes[5, 0] = 2 if number == 1 else 0.4
        axes[20:35, 2] = 0.123 if number == 0 else 0
        rewrite_whole(tmp_path / "x.zarr", number, axes)
    expected = [("stuck", 0, ((20, 34),)), ("range", 1, ((5, 5),)), ("rescaled", 2, ())]
    assert found(tmp_path / "x.zarr") == expected


def test_waiting_counts_as_idle_only_while_no_axis_moves(tmp_path, make_dataset):
    axes = np.zeros((200, 1), np.float32)
    axes[80] = 0.5
    path = tmp_path / "x.zarr"
    make_dataset(path, [200], actions=0, axes=1, state=0, size=(2, 4), fps=RATE)
    rewrite_whole(path, 0, axes)
    frames = zarr.open_group(path, mode="r+")["episode_0/frames"]
    picture = np.random.default_rng(0).integers(0, 250, (200, 3, 2, 4)) * 0 + 90
    picture[:, 0, 0, 0] += np.arange(200) % 2  # never frozen, and nearly still
    frames[:] = picture.astype(np.uint8)
    assert found(path) == [("idle", 0, ((0, 79), (81, 199)))]
    axes[30] = -1
    rewrite_whole(path, 0, axes)
    assert found(path) == [("idle", 0, ((81, 199),))]
