"""The benchmark of a person's window runs here, too: its inputs are recorded frame by frame."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

import person


@pytest.mark.parametrize(
    ("game", "by"), [("gym/CartPole-v1", "keys"), ("doom/basic?mouse=true", "keys and mouse"), ("doom/basic", "pad")]
)
def test_random_inputs_are_recorded_frame_by_frame(tmp_path, monkeypatch, game, by):
    monkeypatch.setattr(person.person, "FrameClock", None)  # so that it is put back
    found = person.measure(game, by, 40, tmp_path / "x.zarr")
    assert (found["recorded"], found["right"]) == (40, 40)
