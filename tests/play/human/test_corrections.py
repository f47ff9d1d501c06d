"""A person corrects a trained policy in a real game, and it is trained on what they did: rounds of HG-DAgger."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from dataset_files import user_error
from rich.console import Console
from scripted_person import Room, at

from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.evaluation.predict import predict_episode
from BC_training.experiments import dagger as dagger_module
from BC_training.experiments.dagger import dagger
from BC_training.experiments.rounds import Rounds
from BC_training.inference import Policy
from BC_training.training import checkpoint

SETTINGS = [
    "dataset.record={game: 'scripted/game?of=gym/CartPole-v1', player: random, episodes: 4, frame_size: [24, 32]}",
    *(
        "dataset.frame_size=[24,32]",
        "dataset.split={train: 0.5, val: 0.5, test: 0.0}",
        "dataset.history=4",
        "dataset.action_history=2",
    ),
    *("model.conv_features=[4,8]", "model.conv_strides=[2,2]", "model.features=16", "model.position_features=2"),
    *("training.num_epochs=1", "training.batch_size=4", "evaluation.rollout={episodes: 1, video: false}"),
    *("logging.report=false", "logging.wandb.enabled=false", "logging.run_name=x", "system.workers=1"),
]
QUIET = Console(file=StringIO())


def corrected(folder: Path, *overrides: str, **options) -> Rounds:
    places = [f"dataset.path={folder}/x.zarr", f"training.checkpoint_dir={folder}/c", f"logging.log_dir={folder}/l"]
    config = load_config("configs/temporal_cnn.yaml", [*SETTINGS, *places, *overrides])
    return dagger(config, QUIET, **({"rounds": 1, "episodes": 2, "label": "human", "takeover": "F2"} | options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of a round whose person quit before the second episode, and then went on."""
    folder = tmp_path_factory.mktemp("corrected")
    done = {2: lambda p: p.press("F2"), 3: lambda p: p.tap("Left"), 4: lambda p: p.release("F2")}
    Room.follow(at(done), {1: "F10"})
    assert "x-round1.zarr has 1 of 2 episodes: run the same command again" in user_error(corrected, folder)
    Room.follow(at(done))
    corrected(folder)
    return folder


def test_a_policy_plays_but_where_the_person_does(folder):
    data, saved = ZarrGameplayDataset(folder / "x-round1.zarr"), checkpoint.read(folder / "c/x-round0")
    assert [e.attrs["player"] for e in data.episodes] == ["random"] * 4 + [str(saved.path)] * 2
    for e in (4, 5):
        assert data.episodes[e].attrs["label"] == "human"
        assert data.episodes[e].attrs["human_frames"] == [[2, 4]]
        assert data.actions(e)[2:5, 0].tolist() == [False, True, False]
        assert not data.actions(e)[2:5, 1].any()
        shown = predict_episode(Policy.load(saved.path), data, e, QUIET)  # it sees what was done before, in play, too
        own = ~data.episodes[e].is_labelled
        assert own.sum() == data.episodes[e].length - 3
        np.testing.assert_array_equal(shown.predicted[own], data.actions(e)[own])


def test_the_next_training_learns_from_the_persons_frames_alone(folder):
    data, saved = ZarrGameplayDataset(folder / "x-round1.zarr"), checkpoint.read(folder / "c/x-round1")
    both = {split: [data.episodes[e] for e in data.find(saved.split[split])] for split in ("train", "val")}
    counts = {split: sum(3 if e.attrs["player"] != "random" else e.length for e in both[split]) for split in both}
    assert [len(both[split]) for split in both] == [3, 3]
    scores = json.loads((folder / "l/x-round1/evaluation.json").read_text(encoding="utf-8"))
    assert scores["frames"] == counts["val"]
    table = json.loads((folder / "l/x-dagger/dagger.json").read_text(encoding="utf-8"))
    assert table["label"] == "human"
    assert [row["frames"] for row in table["rounds"]] == [
        len(ZarrGameplayDataset(folder / "x.zarr")),
        sum(counts.values()),
    ]
    assert checkpoint.read(folder / "c/x-round1").step == counts["train"] // 4 // 4  # windows of 4 frames


def test_finished_rounds_ask_nobody(folder, monkeypatch):
    monkeypatch.setattr(dagger_module, "train", None)
    monkeypatch.setattr(Room, "script", None)
    assert len(corrected(folder).rounds) == 2


@pytest.mark.parametrize(("options", "message"), [
    ({"label": "expert"}, "add --label human"),
    ({"mix": 0.5}, "a person has none"),
    ({"takeover": "LEFT"}, "key LEFT is bound to both 'left' and taking over"),
    ({"keybinds": Path("no.json")}, "no.json"),
])  # fmt: skip
def test_bad_input_is_found_before_anything_is_written(tmp_path, options, message):
    assert message in user_error(corrected, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_without_a_display_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    assert "no display" in user_error(corrected, tmp_path)
    assert not list(tmp_path.iterdir())
