"""Several datasets as one: names, labels, frames, split, and what cannot go together."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from dataset_files import user_error
from trainings import run

from BC_training.common import metrics
from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.preprocess import Window
from BC_training.common.schema import DatasetConfig
from BC_training.data.frame_readers import DecodedFrames
from BC_training.data.samples import Samples
from BC_training.data.several_datasets import SeveralDatasets, labelled_buttons, open_configured
from BC_training.training.losses import make_loss
from BC_training.training.resume import fingerprint

LENGTHS = {"one": (20, 30, 25, 21), "two": (24, 22, 26)}


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    """``one`` has buttons a, b and state s0, s1, s2; ``two`` c, b and s1, s9, and larger frames."""
    folder = tmp_path_factory.mktemp("several")
    make_dataset(folder / "one.zarr", LENGTHS["one"], actions=2, root_attributes={"keys": ["a", "b"]})
    names = {"keys": ["c", "b"], "attributes": ["s1", "s9"]}
    make_dataset(folder / "two.zarr", LENGTHS["two"], actions=2, state=2, size=(48, 40), seed=1, root_attributes=names)
    return folder


def options(data: Path, **changes: Any) -> DatasetConfig:
    paths = {"path": str(data / "one.zarr"), "also": (str(data / "two.zarr"),)}
    return DatasetConfig(**paths | {"frame_size": (24, 32)} | changes)


def parts_of(data: Path) -> list[ZarrGameplayDataset]:
    return [ZarrGameplayDataset(data / f"{name}.zarr") for name in ("one", "two")]


def test_labels_and_frames_are_those_of_each_dataset_by_name(data):
    both, parts = open_configured(options(data)), parts_of(data)
    assert both.action_names == ("a", "b", "c")
    assert both.state_names == ("s1",)
    assert [e.name for e in both.episodes][3:5] == ["one.zarr/episode_3", "two.zarr/episode_0"]
    wanted = [(5, np.array([3, 1])), (0, np.array([2])), (4, np.array([7]))]
    read = both.read_frames(wanted)
    places = [(part, e) for part in parts for e in range(len(part.episodes))]
    for frames, (episode, rows) in zip(read, wanted, strict=True):
        part, e = places[episode]
        np.testing.assert_array_equal(frames, part.frames(e, rows))
    for episode, (part, e) in enumerate(places):
        for column, name in enumerate(both.action_names):
            has = name in part.action_names
            assert labelled_buttons(both, episode)[column] == has
            expected = part.actions(e)[:, part.action_names.index(name)] if has else np.zeros(part.episodes[e].length)
            np.testing.assert_array_equal(both.actions(episode)[:, column], expected)
        np.testing.assert_array_equal(both.state(episode)[:, 0], part.state(e)[:, part.state_names.index("s1")])


def test_buttons_are_chosen_and_ordered_by_name(data):
    both = open_configured(options(data, actions=("c", "b")))
    assert both.action_names == ("c", "b")
    first = ZarrGameplayDataset(data / "one.zarr")
    np.testing.assert_array_equal(both.actions(1)[:, 1], first.actions(1)[:, 1])
    assert not both.actions(1)[:, 0].any()
    assert labelled_buttons(both, 1).tolist() == [False, True]


def test_each_dataset_is_split_by_itself_as_if_it_were_alone(data):
    shares = {"train": 0.6, "val": 0.4, "test": 0.0}
    split, parts = open_configured(options(data)).split(shares, 3), parts_of(data)
    own = [part.split(shares, 3) for part in parts]
    for name in ("train", "val"):
        assert split[name] == [*own[0][name], *(4 + e for e in own[1][name])]


def test_the_fingerprint_is_of_all_episodes(data):
    both = open_configured(options(data))
    found = {fingerprint(both), fingerprint(both, [0, 1, 2, 3]), fingerprint(ZarrGameplayDataset(data / "one.zarr"))}
    assert len(found) == 3
    assert fingerprint(open_configured(options(data))) in found


def test_one_dataset_is_read_as_ever(data):
    assert type(open_configured(options(data, also=()))) is ZarrGameplayDataset
    assert type(open_configured(options(data), str(data / "two.zarr"))) is ZarrGameplayDataset
    alone = Samples(ZarrGameplayDataset(data / "one.zarr"), [0, 1], Window())
    assert alone.known is None
    assert "known" not in alone.labels(np.arange(4))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frame_size": None}, "have frames of 24x32, 48x40: set dataset.frame_size"),
        ({"actions": ("a", "d")}, "unknown action 'd'"),
        ({"actions": ("a",)}, "two.zarr has none of the actions a: leave it out"),
        ({"cache": "disk"}, "dataset.cache=disk is for one dataset"),
        ({"also": ("elsewhere/one.zarr",)}, "elsewhere/one.zarr"),
    ],
)
def test_what_cannot_go_together_is_refused_in_a_line(data, changes, said):
    assert said in user_error(open_configured, options(data, **changes))


def test_datasets_of_one_name_or_of_other_axes_are_refused(data, make_dataset, tmp_path):
    make_dataset(tmp_path / "one.zarr", [12, 12], actions=1, root_attributes={"keys": ["a"]})
    assert "two datasets are called one.zarr" in user_error(
        open_configured, options(data, also=(str(tmp_path / "one.zarr"),))
    )
    make_dataset(tmp_path / "axes.zarr", [12, 12], actions=1, axes=1, root_attributes={"keys": ["a"]})
    refused = user_error(open_configured, options(data, also=(str(tmp_path / "axes.zarr"),)))
    assert "has axes x0" in refused
    assert "dataset.axes" in refused
    assert isinstance(open_configured(options(data, also=(str(tmp_path / "axes.zarr"),), axes=())), SeveralDatasets)


def test_a_sample_says_which_of_its_buttons_were_recorded(data):
    both = open_configured(options(data))
    samples = Samples(both, [0, 4], Window(history=2, every_frame=True))
    assert samples.known is not None
    rows = np.array([0, 19, 20, 43])
    labels = samples.labels(rows)
    assert labels["known"].shape == labels["action"].shape == (4, 2, 3)
    for row, known in zip(rows, labels["known"], strict=True):
        assert known.tolist() == [[True, True, False] if row < 20 else [False, True, True]] * 2
        assert samples.known[row].tolist() == known[0].tolist()
    out = np.empty((4, 3, 24, 32), np.uint8)
    DecodedFrames(samples, (24, 32)).read(rows, out)
    np.testing.assert_array_equal(out[0], both.frames(0, [0])[0])
    frequencies = samples.frequencies(samples.order(4, 0))
    ones = both.actions(0).sum(axis=0) + both.actions(4).sum(axis=0)
    np.testing.assert_allclose(frequencies, ones / np.array([20, 44, 24]), rtol=0.1)


@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_a_button_that_was_not_recorded_has_no_gradient(loss):
    """The loss is the mean over actions of the mean over their own buttons."""
    config = load_config("configs/pure_cnn.yaml", [f"training.loss={loss}", "training.label_smoothing=0.1"]).training
    rng = np.random.default_rng(0)
    logits, actions = rng.normal(size=(5, 3)).astype(np.float32), rng.random((5, 3)) < 0.5
    known = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 1]], bool)
    weights = np.array([2.0, 0.5, 1.0], np.float32)
    of = make_loss(config, weights)
    gradient = np.asarray(jax.grad(lambda x: of(x, actions, known=known))(logits))
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()
    rows = [
        make_loss(config, weights[k])(logits[i : i + 1][:, k], actions[i : i + 1][:, k]) for i, k in enumerate(known)
    ]
    np.testing.assert_allclose(of(logits, actions, known=known), np.mean(rows), rtol=1e-6)


def test_scores_are_those_of_the_frames_that_have_the_button():
    rng = np.random.default_rng(1)
    known = np.repeat([[True, True, False], [False, True, True]], 30, axis=0)
    true = (rng.random((60, 3)) < 0.5) & known
    probability = rng.random((60, 3))
    majority = np.array([True, False, True])
    found = metrics.report([true[:30], true[30:]], probability, majority, ("a", "b", "c"), 0.5, known=known)
    for column, name in enumerate("abc"):
        rows = known[:, column]
        alone = metrics.scores(true[rows][:, [column]], probability[rows][:, [column]] >= 0.5, (name,))
        assert found["per_action"][name] == alone["per_action"][name]
    right = ((true == (probability >= 0.5)) | ~known).all(axis=1)
    assert found["exact_match"] == right.mean()
    held = found["baselines"]["majority"]["per_action"]["c"]
    assert held["predicted_frequency"] == 1.0
    assert held["precision"] == true[30:, 2].mean()


def test_a_training_on_two_datasets_is_scored_and_goes_on(tmp_path, data):
    two = f"dataset.also=['{data / 'two.zarr'}']"
    shown = run(tmp_path, data / "one.zarr", two, "training.num_epochs=1", "logging.report=false")
    assert "7 episodes, 168 frames" in " ".join(shown.split())
    result = json.loads((tmp_path / "l/pure_cnn/evaluation.json").read_text())
    assert set(result["per_action"]) == {"a", "b", "c"}
    val = next(
        json.loads(line)
        for line in (tmp_path / "l/pure_cnn/metrics.jsonl").read_text().splitlines()
        if '"kind": "val"' in line or '"per_action"' in line or "val/per_action/c/f1" in line
    )
    assert val
    shown = run(tmp_path, data / "one.zarr", two, "training.num_epochs=2", "training.resume_changed=true")
    assert "going on after step" in shown
    refused = user_error(run, tmp_path, data / "one.zarr", two, "training.weight_by_return={top: 0.5}")
    assert "compares scores of one game" in refused
    refused = user_error(run, tmp_path, data / "one.zarr", "training.num_epochs=2", "training.resume_changed=true")
    assert "is of another training" in refused
