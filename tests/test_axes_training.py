"""Whole trainings on axes, alone and with a button, on frames that show what is done."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import trainings
from axis_datasets import write_axis_dataset
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.evaluation.predict import open_episode, predict_episode
from BC_training.evaluation.split_predictions import predict_split
from BC_training.inference import Policy
from BC_training.train import train

QUIET = Console(file=StringIO())
AXES = {"steer": 1.0, "gas": 40.0}


def test_a_dataset_of_axes_alone_trains_and_is_learned(tmp_path):
    write_axis_dataset(tmp_path / "d.zarr", [240, 160], buttons=(), axes=AXES)
    settings = ("training.num_epochs=20", "training.learning_rate=0.01")
    trainings.run(tmp_path, tmp_path / "d.zarr", *settings, "logging.report=false")
    scores = json.loads((tmp_path / "l/pure_cnn/evaluation.json").read_text())
    assert scores["macro_f1"] is None
    for name, ours in scores["per_axis"].items():
        zero, previous = (scores["baselines"][b]["per_axis"][name] for b in ("majority", "repeat_previous"))
        assert ours["mean_absolute_error"] < 0.6 * zero["mean_absolute_error"]
        assert ours["correlation"] > 0.5
        assert (zero["predicted_zeros"], previous["predicted_zeros"]) == (1, pytest.approx(ours["zeros"], abs=0.05))
    assert scores["exact_match"] > scores["baselines"]["majority"]["exact_match"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("axes")
    write_axis_dataset(folder / "d.zarr", [60, 40], axes=AXES)
    overrides = [
        *(item for item in trainings.settings(folder, folder / "d.zarr") if "dense_features" not in item),
        *("model.position_features=2", "model.features=16", "dataset.history=4", "dataset.action_history=2"),
        *("training.num_epochs=1", "training.batch_size=4", "training.augmentation={flip: 0.5}"),
        "dataset.split={train: 0.5, val: 0.5, test: 0}",
    ]
    return train(load_config("configs/temporal_cnn.yaml", overrides), QUIET)


def test_in_play_axes_are_those_of_the_forward_pass_of_training(run):
    predictions = predict_split(run, QUIET, split="val")
    done = predictions.decoded(predictions.saved.decoding, predictions.logits)
    (position,) = predictions.episodes
    shown = predict_episode(Policy.load(run), predictions.dataset, position, QUIET)
    np.testing.assert_array_equal(shown.predicted_axes, done.axes)
    np.testing.assert_array_equal(shown.predicted, done.buttons)
    assert len(np.unique(shown.predicted_axes)) > 1


def test_a_policy_with_axes_samples_by_its_seed(run):
    policy, dataset, position = open_episode(run, None, 0)
    policy = Policy.load(run, policy.decoding.override(["temperature=1"]))
    frames = dataset.frames(position, range(8))
    played = []
    for seed in (1, 1, 2):
        policy.reset(seed)
        played.append(np.stack([np.concatenate(policy.act(frame)) for frame in frames]))
    np.testing.assert_array_equal(played[0], played[1])
    assert (played[0] != played[2]).any()
