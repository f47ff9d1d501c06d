"""Trainings that weigh episodes by their scores."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import zarr
from rich.console import Console
from trainings import final_state, run, settings

from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.common.metrics import class_weights
from BC_training.data.samples import Samples
from BC_training.training.setup import Setup

LENGTHS = (40, 30, 50, 35, 45, 60, 33, 37)
FAST = ("training.schedule=constant", "logging.report=false")


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    path = tmp_path_factory.mktemp("scored") / "x.zarr"
    make_dataset(path, LENGTHS)
    for number in range(len(LENGTHS)):
        zarr.open_group(path / f"episode_{number}").attrs["score"] = number * 7 % 8
    return path


def build(folder: Path, data: Path, *overrides: str) -> Setup:
    return Setup.build(
        load_config("configs/pure_cnn.yaml", settings(folder, data, *overrides)), Console(file=StringIO())
    )


def test_filtering_trains_on_the_best_episodes_and_changes_nothing_else(tmp_path, data):
    plain, best = build(tmp_path, data), build(tmp_path, data, "training.weight_by_return.top=0.5")
    scores = {e: e * 7 % 8 for e in plain.split["train"]}
    kept = sorted(sorted(scores, key=lambda e: -scores[e])[:2])
    assert plain.train_samples.episodes == plain.split["train"] == best.split["train"]
    assert best.train_samples.episodes == kept
    alone = Samples(plain.dataset, kept, plain.inputs.window, plain.inputs.axis_bins).order(16, 0)
    np.testing.assert_array_equal([best.order.batch(s) for s in range(20)], [alone.batch(s) for s in range(20)])
    for name in ("inputs", "split", "seeds", "decoding", "fingerprint"):
        assert getattr(best, name) == getattr(plain, name)
    assert best.val_samples.episodes == plain.val_samples.episodes
    pressed = np.concatenate([plain.dataset.actions(e) for e in kept]).mean(axis=0)
    np.testing.assert_allclose(best.class_weights, class_weights(pressed, "sqrt", 10.0), rtol=1e-6)


def test_keeping_all_and_weighing_all_alike_are_the_plain_training(tmp_path, data):
    plain = build(tmp_path, data)
    for setting in ("{top: 1}", "{temperature: 1e300}"):
        alike = build(tmp_path, data, f"training.weight_by_return={setting}")
        np.testing.assert_array_equal(
            [alike.order.batch(s) for s in range(40)], [plain.order.batch(s) for s in range(40)]
        )
        np.testing.assert_array_equal(alike.class_weights, plain.class_weights)
        assert alike.train_samples.episodes == plain.train_samples.episodes


def test_a_weighted_training_goes_on_to_the_same_bits_and_never_with_other_scores(tmp_path, data):
    weighted = (*FAST, "training.weight_by_return.temperature=0.5")
    printed = run(tmp_path / "whole", data, *weighted)
    assert "training.weight_by_return: 4 training episodes, scores" in printed
    run(tmp_path / "parts", data, *weighted, "training.num_epochs=1")
    (tmp_path / "scores.yaml").write_text("".join(f"episode_{e}: {e * 3 % 8}\n" for e in range(len(LENGTHS))))
    with pytest.raises(UserError, match=r"is of another training \(training.weight_by_return.digest \w+ -> \w+\)"):
        run(tmp_path / "parts", data, *weighted, f"training.weight_by_return.scores={tmp_path}/scores.yaml")
    assert "going on after" in run(tmp_path / "parts", data, *weighted)
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
    with pytest.raises(UserError, match=r"is of another training \(.*weight_by_return.temperature 0.5 -> null"):
        run(tmp_path / "parts", data, *FAST)
