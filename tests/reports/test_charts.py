"""Charts draw everything where its numbers say."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from BC_training.reports.charts import POINTS, Line, line_chart, precision_recall_plot, reliability_plot, thinned, ticks
from BC_training.reports.run.calibration import precision_recall, reliability

HOSTILE = '<script>"&'


def drawn(chart: str, tag: str, kind: str = "") -> list[ElementTree.Element]:
    """The elements of a chart, which must be well-formed XML."""
    return [e for e in ElementTree.fromstring(chart).iter(tag) if kind in e.get("class", "").split() or not kind]


def corners(line: ElementTree.Element) -> np.ndarray:
    """float [n, 2] of a polyline, in units of the drawing."""
    return np.array([[float(x) for x in pair.split(",")] for pair in line.get("points", "").split()])


def in_square(points: np.ndarray) -> np.ndarray:
    """Points in a square plot's units as points from 0 to 1."""
    return np.stack([(points[:, 0] - 24) / 200, 1 - points[:, 1] / 200], axis=1)


def test_lines_are_at_the_values_of_the_ticks():
    chart = line_chart("t", [Line("a", [(0, 0.2), (50, 0.4), (100, 1.0)])], 100, unit_range=True)
    height = {float(e.text or ""): float(e.get("y", "")) - 3 for e in drawn(chart, "text", "end")}
    across = {float(e.text or ""): float(e.get("x", "")) for e in drawn(chart, "text", "middle")}
    points = corners(drawn(chart, "polyline")[0])
    assert points[:, 1] == pytest.approx([height[0.2], height[0.4], height[1.0]], abs=0.11)
    assert points[[0, 2], 0] == pytest.approx([across[0], across[100]], abs=0.11)
    assert points[1, 0] == pytest.approx((across[0] + across[100]) / 2, abs=0.11)


@pytest.mark.parametrize(
    ("highest", "labels"), [(2.1e-5, ["0", "5e-6", "1e-5", "1.5e-5", "2e-5"]), (1e-3, ["0", "0.0005", "0.001"])]
)
def test_labels_of_small_values_are_those_of_the_values(highest, labels):
    chart = line_chart("t", [Line("a", [(0, 0.0), (9, highest)])], 9)
    assert [e.text for e in drawn(chart, "text", "end")] == labels


def test_an_interval_lies_around_its_line_and_within_the_chart():
    band = [(0, -10.0, 10.0), (9, 0.0, 30.0)]
    chart = line_chart("t", [Line("a", [(0, 1.0), (9, 20.0)], band=band)], 9)
    (around,), (line,) = drawn(chart, "polygon"), drawn(chart, "polyline")
    edge, middle = corners(around)[:, 1], corners(line)[:, 1]
    assert edge[0] < middle[0] < edge[3]  # downwards: high, line, low
    assert edge[1] < middle[1] < edge[2]
    assert 8 <= edge.min() < edge.max() <= 210 - 22


def test_names_are_text_and_every_point_says_its_number():
    chart = line_chart(HOSTILE, [Line(HOSTILE, [(0, 1.5), (2000, 3.0)]), Line("without", [])], 2000, mark=1000)
    assert "<script>" not in chart
    assert "without" not in chart
    titles = [e.text for e in drawn(chart, "title")]
    assert titles == [f"{HOSTILE}, step 0: 1.5", f"{HOSTILE}, step 2,000: 3"]
    assert len(drawn(chart, "line", "mark")) == 1
    assert "not in the log" in line_chart(HOSTILE, [Line("without", [])], 2000)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_within(low, room, about):
    found = ticks(low, low + room, about)
    assert 1 <= len(found) <= about + 1
    assert low - room * 1e-6 <= found[0]
    assert found[-1] <= low + room * (1 + 1e-6)
    if len(found) > 1:
        step = np.diff(found)
        assert step == pytest.approx(step[0], rel=1e-6)
        assert f"{step[0]:.3e}"[0] in "125"


def test_long_lines_are_drawn_through_means():
    y = np.random.default_rng(0).random(5 * POINTS)
    found = np.array(thinned(list(zip(range(len(y)), y.tolist(), strict=True))))
    assert found[:, 1] == pytest.approx(y.reshape(POINTS, 5).mean(axis=1))
    assert found[:, 0] == pytest.approx(np.arange(POINTS) * 5 + 2)
    assert len(thinned([(0, 1.0)] * (POINTS + 1))) <= POINTS


def test_the_area_under_precision_and_recall_is_the_average_precision():
    rng = np.random.default_rng(1)
    true = rng.random(120) < 0.4
    curve = precision_recall(true, (rng.random(120) + true) / 2)
    assert curve is not None
    chart = precision_recall_plot("a", curve, 0.4, (0.5, (0.75, 0.6)))
    (line,), (ring,) = drawn(chart, "polyline"), drawn(chart, "circle", "ring")
    points = in_square(corners(line))
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(curve.average, abs=2e-3)
    chosen = in_square(np.array([[float(ring.get("cx", "")), float(ring.get("cy", ""))]]))
    assert chosen[0] == pytest.approx([0.75, 0.6], abs=1e-3)
    assert "never held" in precision_recall_plot("a", None, 0.0, (0.5, None))


def test_reliability_has_a_dot_for_each_bin_with_predictions():
    true, probability = np.array([True, False, True, True]), np.array([0.1, 0.15, 0.9, 0.96])
    chart = reliability_plot("a", reliability(true, probability))
    dots = np.array([[float(e.get("cx", "")), float(e.get("cy", ""))] for e in drawn(chart, "circle")])
    expected = np.array([[0.1, 1.0], [0.15, 0.0], [0.9, 1.0], [0.96, 1.0]])
    assert in_square(dots) == pytest.approx(expected, abs=1e-3)
    assert len(drawn(chart, "rect")) == 10
