import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from BC_training.common.errors import UserError
from BC_training.common.keybinds.play_keys import AxisBind, PlayKeys
from BC_training.play.live.events import Event, EventLog, Events, read_log
from BC_training.play.live.labels import Binding

COLUMNS = {("key", "A"): 0, ("key", "B"): 1, ("mouse", "WHEELUP"): 1, ("key", "C"): 2, ("key", "D"): 3}
BINDING = Binding(("a", "b"), ("turn",), PlayKeys(COLUMNS, (AxisBind(mouse=0, counts=2.0),), {}, {}))
TIMES = st.sampled_from([-1.0, 0.0, 3.0, 5.0, 7.0, 10.0, 10.5, 11.0, 15.0, 20.0, 25.0])
ROWS = st.one_of(
    st.builds(lambda t, kind, key: Event(t, kind, "key", key), TIMES, st.sampled_from(["press", "release"]),
              st.sampled_from("ABCDE")),
    st.builds(lambda t, x: Event(t, "motion", x=x, y=1.0), TIMES, st.integers(-9, 9)),
    st.builds(lambda t: Event(t, "wheel", "mouse", "WHEELUP", y=1.0), TIMES),
    st.builds(lambda t: Event(t, "unfocus"), TIMES),
)  # fmt: skip
EDGES = np.array([0.0, 5.0, 10.0, 11.0, 20.0])


def expected(rows: list[Event], start: float, end: float) -> tuple[set[int], float]:
    """The columns that were down at any time in [start, end), and the axis."""
    rows = sorted(rows, key=lambda row: row.time)
    down: set[tuple[str, str]] = set()
    seen, motion = set(), 0.0
    moments = [row.time for row in rows if start < row.time < end]
    for moment in (start, *moments):
        down.clear()
        for row in rows:
            if row.time > moment:
                break
            if row.kind == "press":
                if row.time == moment and (row.device, row.name) not in down:
                    seen.add(COLUMNS.get((row.device, row.name)))  # also where it is released at once
                down.add((row.device, row.name))
            elif row.kind == "release":
                down.discard((row.device, row.name))
            elif row.kind == "unfocus":
                down.clear()
        seen |= {COLUMNS.get(button) for button in down}
    for row in rows:
        if start <= row.time < end:
            motion += row.x if row.kind == "motion" else 0
            seen |= {1} if row.kind == "wheel" else set()
    return seen - {None}, motion / 2 + (3 in seen) - (2 in seen)


@settings(max_examples=200)
@given(st.lists(ROWS, max_size=12))
def test_labels_are_what_was_down_at_any_time_in_a_frame_and_the_sum_of_the_motion(rows):
    buttons, axes = BINDING.label(Events.of(rows), EDGES)
    assert buttons.dtype == bool
    assert axes.dtype == np.float32
    for t in range(4):
        held, moved = expected(rows, EDGES[t], EDGES[t + 1])
        assert set(np.flatnonzero(buttons[t])) == held & {0, 1}
        assert axes[t, 0] == pytest.approx(moved)


@given(st.lists(ROWS, max_size=12), st.integers(0, 30))
def test_labels_of_two_parts_are_those_of_the_whole_part_by_part(rows, middle):
    """So labels do not depend on the rate: those of longer frames are the sum and the union of those in them."""
    edges = np.unique([*EDGES, float(middle)])
    fine_buttons, fine_axes = BINDING.label(Events.of(rows), edges)
    coarse, _ = BINDING.label(Events.of(rows), edges[[0, -1]])
    assert (coarse[0] == fine_buttons.any(axis=0)).all()
    moved = Binding(("a",), ("x",), PlayKeys({}, (AxisBind(mouse=0),), {}, {}))
    sums = [moved.label(Events.of(rows), e)[1].sum() for e in (edges, edges[[0, -1]])]
    assert sums[0] == sums[1]
    assert len(fine_axes) == len(edges) - 1


def test_a_log_that_was_cut_anywhere_keeps_what_was_written_before(tmp_path):
    log, sizes = EventLog(tmp_path / "log"), []
    rows = [[Event(10.0 * i + j, "motion", x=i, y=j) for j in range(5)] for i in range(4)]
    for second in rows:
        log.write(second)
        sizes.append((tmp_path / "log").stat().st_size)
    log.close()
    whole = (tmp_path / "log").read_bytes()
    for size in range(0, len(whole), 29):
        for zeros in (0, 4096):  # a power cut leaves some
            (tmp_path / "cut").write_bytes(whole[:size] + bytes(zeros))
            kept = read_log(tmp_path / "cut").rows
            # The last block of bytes before a cut may be whole already.
            assert kept == list(itertools.chain(*rows[: len(kept) // 5]))
            assert len(kept) // 5 >= sum(s <= size for s in sizes)


def test_a_dataset_of_other_names_is_not_continued_with_auto():
    with pytest.raises(UserError, match="the button 'jump', which is no key: name the keybinds file"):
        Binding.of_names(("W", "jump"), (), "x.zarr")
    with pytest.raises(UserError, match="the axis 'turn', neither"):
        Binding.of_names(("W", "mouse_LEFT", "pad_A"), ("turn",), "x.zarr")
