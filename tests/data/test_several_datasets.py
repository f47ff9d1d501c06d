"""Several datasets as one: names, labels, frames, split, and what cannot go together."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jax
import numpy as np
import pytest
from dataset_files import file_server, user_error
from rich.console import Console
from trainings import run

from BC_training.common import metrics
from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.preprocess import Window
from BC_training.common.schema import DatasetConfig
from BC_training.data.frame_readers import DecodedFrames
from BC_training.data.samples import Samples
from BC_training.data.several_datasets import SeveralDatasets, labelled_buttons, open_configured
from BC_training.evaluation.evaluate import evaluate, score
from BC_training.evaluation.predict import predict
from BC_training.evaluation.split_predictions import predict_split
from BC_training.reports.compare.runs import Run
from BC_training.reports.run.findings import find
from BC_training.training import checkpoint
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


def paths(folder: Path, *names: str) -> tuple[str, ...]:
    return tuple(str(folder / name) for name in names)


def options(data: Path, **changes: Any) -> DatasetConfig:
    return DatasetConfig(**{"path": paths(data, "one.zarr", "two.zarr"), "frame_size": (24, 32)} | changes)


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
    assert type(open_configured(options(data, path=paths(data, "one.zarr")))) is ZarrGameplayDataset
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
        ({"path": ("nowhere/a.zarr", "nowhere/b.zarr")}, "nowhere/a.zarr"),
    ],
)
def test_what_cannot_go_together_is_refused_in_a_line(data, changes, said):
    assert said in user_error(open_configured, options(data, **changes))


def test_axes_that_differ_are_refused_or_left_out(data, make_dataset, tmp_path):
    make_dataset(tmp_path / "axes.zarr", [12, 12], actions=1, axes=1, root_attributes={"keys": ["a"]})
    path = (*paths(data, "one.zarr"), *paths(tmp_path, "axes.zarr"))
    refused = user_error(open_configured, options(data, path=path))
    assert "axes.zarr has axes x0" in refused
    assert "one.zarr none" in refused
    assert "dataset.axes" in refused
    assert isinstance(open_configured(options(data, path=path, axes=())), SeveralDatasets)


def test_datasets_of_axes_alone_are_read(make_dataset, tmp_path):
    make_dataset(tmp_path / "x.zarr", [12, 12], actions=0, axes=2)
    make_dataset(tmp_path / "y.zarr", [13, 12], actions=0, axes=2, seed=1)
    make_dataset(tmp_path / "z.zarr", [12, 12], actions=1, axes=2)
    both = open_configured(options(tmp_path, path=paths(tmp_path, "x.zarr", "y.zarr")))
    np.testing.assert_array_equal(both.axes(2), ZarrGameplayDataset(tmp_path / "y.zarr").axes(0))
    assert Samples(both, [0, 2], Window()).known is None
    with_buttons = options(tmp_path, path=paths(tmp_path, "x.zarr", "z.zarr"))
    assert "x.zarr has none of the actions a0: leave it out" in user_error(open_configured, with_buttons)
    assert open_configured(replace(with_buttons, actions=())).action_names == ()
    make_dataset(tmp_path / "w.zarr", [12, 12], actions=1)
    buttons = options(tmp_path, path=paths(tmp_path, "z.zarr", "w.zarr"), actions=(), axes=())
    assert "leave nothing to learn" in user_error(open_configured, buttons)


def test_one_of_several_may_lie_on_a_server(data):
    with file_server(lambda asked: data / urlsplit(asked).path.lstrip("/")) as server:
        both = open_configured(options(data, path=(*paths(data, "one.zarr"), f"{server.url}/two.zarr?sig=SECRET")))
        assert both.episodes[4].name == "two.zarr/episode_0"
        np.testing.assert_array_equal(both.frames(4, [3]), ZarrGameplayDataset(data / "two.zarr").frames(0, [3]))


def test_mirror_images_are_those_of_every_dataset(make_dataset, tmp_path):
    for name, keys, table in (("x", ["a", "b"], {"a": "b"}), ("y", ["c", "b", "a"], {"c": "c"}), ("z", ["a"], ["a"])):
        make_dataset(tmp_path / name, [9, 9], actions=len(keys), root_attributes={"keys": keys, "mirror": table})
    make_dataset(tmp_path / "w", [9, 9], actions=2, root_attributes={"keys": ["a", "b"], "mirror": {"a": "a"}})

    def mirror(*names: str) -> tuple[int, ...]:
        both = open_configured(options(tmp_path, path=paths(tmp_path, *names)))
        return both.mirror.find(both.action_names).actions

    assert mirror("x", "y") == (1, 0, 2)
    assert "z: attribute 'mirror' is not a table" in user_error(mirror, "x", "z")
    assert "w: attribute 'mirror' maps action 'a' to 'a', that of another dataset to 'b'" in user_error(
        mirror, "x", "w"
    )
    make_dataset(tmp_path / "v", [9, 9], actions=2, root_attributes={"keys": ["e", "d"], "mirror": {"d": "d"}})
    advice = f"zarr.open_group('{tmp_path / 'v'}').attrs['mirror'] = {{'d': 'd', 'e': '?'}}"
    assert advice in user_error(mirror, "x", "v")  # of the dataset that has the name, with what its table says already


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data) -> tuple[Path, str]:
    """The folder of a training on both, with a page, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(folder, both(data), "training.num_epochs=1")


def both(data: Path) -> str:
    return f"[{', '.join(map(repr, paths(data, 'one.zarr', 'two.zarr')))}]"


def test_a_training_on_two_datasets_is_scored(trained, data):
    folder, shown = trained
    assert "7 episodes, 168 frames" in " ".join(shown.split())
    result = json.loads((folder / "l/pure_cnn/evaluation.json").read_text())
    assert set(result["per_action"]) == {"a", "b", "c"}
    screen = Console(file=StringIO(), width=200)
    again = evaluate(folder / "c/pure_cnn", screen)
    assert again.to_dict()["per_action"] == result["per_action"]
    assert "two.zarr" in (folder / "l/pure_cnn/report.html").read_text(encoding="utf-8")
    refused = user_error(evaluate, folder / "c/pure_cnn", screen, data=data / "two.zarr")
    assert "two.zarr has actions c, b; " in refused


def test_the_page_judges_a_button_by_the_frames_that_have_it(trained):
    run_dir, log_dir = (trained[0] / kind / "pure_cnn" for kind in "cl")
    predictions = predict_split(run_dir, Console(file=StringIO()))
    known = predictions.samples.known
    assert known is not None
    page = find(Run.read(run_dir, log_dir), predictions, score(predictions, predictions.saved.decoding))
    assert [of_button.size.sum() for of_button in page.reliability] == known.sum(axis=0).tolist()
    assert page.pooled is not None
    assert page.pooled.size.sum() == known.sum()
    assert page.dataset.count("two.zarr") == 1
    frames = predictions.samples.targets[known[:, 2], 2]
    assert page.scores.per_action["c"].frequency == frames.mean()
    logits = predictions.logits.copy()
    logits[~known] = 100.0
    one = replace(predictions, logits=logits)
    assert [frame.loss for frame in find(Run.read(run_dir, log_dir), one, page.scores).worst] == [
        frame.loss for frame in page.worst
    ]


def test_single_episodes_of_several_datasets_are_not_shown(trained):
    folder = trained[0]
    refused = user_error(predict, folder / "c/pure_cnn", folder / "x.csv", Console(file=StringIO()))
    assert "was trained on several datasets" in refused
    assert not (folder / "x.csv").exists()


def test_a_training_on_two_datasets_goes_on_where_they_lie_now(trained, data, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    for name in ("one.zarr", "two.zarr"):
        shutil.copytree(data / name, tmp_path / name)
    refused = user_error(run, folder, data / "one.zarr", "training.num_epochs=2", "training.resume_changed=true")
    assert "is of another training" in refused
    more = ["training.num_epochs=2", "training.resume_changed=true", "logging.report=false"]
    assert "going on after step" in run(folder, both(tmp_path), *more)
    assert checkpoint.read(folder / "c/pure_cnn/last").config.dataset.path == paths(tmp_path, "one.zarr", "two.zarr")
