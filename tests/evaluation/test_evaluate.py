"""A checkpoint is scored on its own dataset and on others."""

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from untrained import save_run

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.common.schema import DatasetConfig
from BC_training.evaluation.evaluate import evaluate
from BC_training.evaluation.predict import open_episode
from BC_training.reports.run.report import report
from BC_training.training import checkpoint
from BC_training.training.resume import fingerprint

QUIET = Console(file=StringIO())


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_dataset, make_config, make_inputs) -> Path:
    """A run whose validation split is the second of three episodes."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_dataset(folder / "x.zarr", [4, 6, 5], actions=3)
    config = make_config({"conv_features": (4,), "conv_strides": (2,)})
    config = replace(config, dataset=DatasetConfig(path=str(folder / "x.zarr")))
    split = {"train": ["episode_0", "episode_2"], "val": ["episode_1"], "test": []}
    return save_run(folder / "run", config, make_inputs(), split=split)


def test_another_dataset_is_scored_whole(run):
    """Its episodes may have the names of the validation split and are still other episodes."""
    data = run.parent / "x.zarr"
    assert evaluate(run, QUIET).frames == 6
    assert evaluate(run, QUIET, data=data).frames == 15
    assert evaluate(run, QUIET, data=data, split="train").frames == 9


def test_the_split_of_another_dataset_is_refused(run, tmp_path, make_dataset, monkeypatch):
    saved = checkpoint.read(run)
    data = run.parent / "x.zarr"
    own = fingerprint(ZarrGameplayDataset.from_config(saved.config.dataset, data))
    monkeypatch.setattr(checkpoint, "read", lambda path: replace(saved, fingerprint=own))
    shutil.copytree(data, tmp_path / "moved.zarr")
    make_dataset(tmp_path / "other.zarr", [4, 6, 5], actions=3, seed=1)
    assert evaluate(run, QUIET, data=tmp_path / "moved.zarr", split="val").frames == 6
    assert evaluate(run, QUIET, data=tmp_path / "other.zarr").frames == 15
    with pytest.raises(UserError, match=r"other\.zarr is not the dataset .*: use --split all"):
        evaluate(run, QUIET, data=tmp_path / "other.zarr", split="val")
    # The dataset of the training may have got episodes since.
    monkeypatch.setattr(checkpoint, "read", lambda path: replace(saved, fingerprint="older"))
    assert evaluate(run, QUIET, data=data, split="val").frames == 6
    with pytest.raises(UserError, match="is not a zarr group"):
        evaluate(run, QUIET, data="")


def test_another_dataset_in_place_of_the_one_trained_on_is_noticed(run, tmp_path, make_dataset, monkeypatch):
    """Whatever opens it without ``data`` notices; a dataset that has only grown is still the one trained on."""
    data = tmp_path / "my data.zarr"
    shutil.copytree(run.parent / "x.zarr", data)
    saved = checkpoint.read(run)
    config = replace(saved.config, dataset=replace(saved.config.dataset, path=str(data)))
    own = fingerprint(ZarrGameplayDataset.from_config(config.dataset))
    known = replace(saved, config=config, fingerprint=own)
    monkeypatch.setattr(checkpoint, "read", lambda path: known)
    assert evaluate(run, QUIET).frames == 6
    make_dataset(tmp_path / "more.zarr", [3], actions=3)
    shutil.copytree(tmp_path / "more.zarr/episode_0", data / "episode_3")
    assert evaluate(run, QUIET).frames == 6
    assert open_episode(run, None, 1)[2] == 1
    shutil.rmtree(data)
    make_dataset(data, [4, 6, 5], actions=3, seed=1)
    message = r"my data\.zarr is not the dataset that .* was trained on.*: restore that, or .* --data '.*my data\.zarr'"
    for act in (
        lambda: evaluate(run, QUIET),
        lambda: evaluate(run, QUIET, tune=True),
        lambda: evaluate(run, QUIET, split="train"),
        lambda: open_episode(run, None, 0),  # inference, and visualize episode and saliency
        lambda: report(run, QUIET, out=tmp_path / "r.html"),
    ):
        with pytest.raises(UserError, match=message) as error:
            act()
        assert "\n" not in str(error.value)
    scores = evaluate(run, QUIET, data=data)  # the remedy
    assert (scores.frames, scores.chosen_here) == (15, [])
    assert open_episode(run, data, 1)[2] == 1
    shutil.rmtree(data / "episode_0")
    with pytest.raises(UserError, match=message):
        evaluate(run, QUIET)


def test_other_state_values_are_an_error_where_the_model_sees_them(run, tmp_path, make_dataset, monkeypatch):
    saved = checkpoint.read(run)
    inputs = replace(saved.inputs, state_names=("s0", "health", "s2"), window=Window(state=True))
    monkeypatch.setattr(checkpoint, "read", lambda path: replace(saved, inputs=inputs))
    with pytest.raises(UserError, match=r"has state values s0, s1, s2; .* was trained on s0, health, s2"):
        evaluate(run, QUIET)
    make_dataset(tmp_path / "none.zarr", [3], actions=3, state=0)
    with pytest.raises(UserError, match="has state values none"):
        evaluate(run, QUIET, data=tmp_path / "none.zarr")
