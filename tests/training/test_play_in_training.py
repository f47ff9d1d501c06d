"""Checkpoints play while the training runs."""

import os
import shutil
import signal
from io import StringIO
from pathlib import Path

import pytest
import zarr
from rich.console import Console
from trainings import final_state, rows, run

from BC_training import train as training
from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.play.rollout import Benchmark
from BC_training.runtime.interruption import Interrupted
from BC_training.training import checkpoint

BUTTONS = ["move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right"]
# At skill 5 an untrained policy does not live long.
PLAY = [
    "evaluation.rollout={game: 'doom/deadly_corridor?skill=5', episodes: 1, video: false, every_n_epochs: 1}",
    "evaluation.best_metric=rollout",
    "system.workers=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.zarr"
    make_dataset(path, [40, 40], state=0, root_attributes={"keys": BUTTONS, "attributes": []})
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vit_policy", "model.patch_size=[7,16]", "the frame's H of 72 cannot be cut into patches of 7"),
        ("state_cnn", "dataset.state.standardized=[amo]", "unknown state attribute 'amo'; did you mean 'ammo'"),
        ("quickstart", "dataset.actions=[atack]", "unknown action 'atack'; did you mean 'attack'"),
        ("quickstart", "dataset.oversample={actions: [atack], ratio: 0.5}", "unknown action 'atack'; did you mean"),
        ("quickstart", "evaluation.thresholds={atack: 0.4}", "unknown action 'atack'; did you mean 'attack'"),
        ("quickstart", "evaluation.exclusive=[[atack, turn_left]]", "unknown action 'atack'; did you mean 'attack'"),
        ("quickstart", "training.augmentation={temporal_jitter: 1}", "moves frames within the history"),
        (
            "quickstart",
            "evaluation.rollout.seed=9981",
            "evaluation.rollout.seed=9981: 1 of its 20 episodes are in dataset.record",
        ),
        (
            "quickstart",
            "evaluation.rollout={every_n_epochs: 1, validation_seed: 10059}",
            "evaluation.rollout.validation_seed=10059: 1 of its 20 episodes are in .*rollout.validation_seed=20 has",
        ),
    ],
)
def test_nothing_is_recorded_for_a_training_that_cannot_be_built_or_scored(
    tmp_path, monkeypatch, name, change, message
):
    monkeypatch.chdir(tmp_path)
    config = load_config(f"configs/{name}.yaml", [change, "training.checkpoint_dir=c", "logging.log_dir=l"])
    with pytest.raises(UserError, match=message):
        training.train(config, Console(file=StringIO()))
    assert not list(tmp_path.iterdir())


def test_a_dataset_with_episodes_that_are_played_for_a_score_is_refused_before_the_first_step(tmp_path, data):
    """A checkpoint stores the episodes that it was trained on."""
    shutil.copytree(data, tmp_path / "x.zarr")
    for number in (0, 1):
        episode = zarr.open_group(tmp_path / f"x.zarr/episode_{number}")
        episode.attrs.update({"game": "doom/deadly_corridor?skill=5", "seed": 7 * number})
    with pytest.raises(UserError, match=r"rollout.seed=0: 1 of its 1 episodes are in .*x\.zarr .*rollout.seed=1 has"):
        run(tmp_path, tmp_path / "x.zarr", *PLAY[:1], "training.num_epochs=1")
    assert not (tmp_path / "c").exists()
    run(tmp_path, tmp_path / "x.zarr", "training.num_epochs=1", "logging.report=false")
    saved = checkpoint.read(tmp_path / "c/pure_cnn")
    held = {name: [span[1:] for span in saved.seeds[name]] for name in ("train", "val")}
    assert sorted(held["train"] + held["val"]) == [[0, 0], [7, 7]]


def before_scoring(monkeypatch, number: int, act) -> None:
    """Calls ``act`` when a checkpoint is about to play for the ``number``-th time."""
    score, scored = Benchmark.score, []

    def acting_score(benchmark: Benchmark, folder: Path) -> dict[str, float]:
        scored.append(folder)
        if len(scored) == number:
            act()
        return score(benchmark, folder)

    monkeypatch.setattr(Benchmark, "score", acting_score)


@pytest.mark.slow
def test_a_signal_during_play_ends_it_at_once_and_the_run_goes_on_bit_for_bit(tmp_path, data, monkeypatch):
    run(tmp_path / "whole", data, *PLAY)
    with monkeypatch.context() as patch:
        before_scoring(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=r"stopped by SIGTERM; the checkpoint of step (\d+) is kept") as stopped:
            run(tmp_path / "halves", data, *PLAY)
    (step,) = (row["step"] for row in rows(tmp_path / "whole") if row["kind"] == "rollout" and row["epoch"] == 2)
    assert f"step {step} is kept" in str(stopped.value)
    assert not [row for row in rows(tmp_path / "halves") if row.get("epoch") == 2 and row["kind"] != "train"]
    assert f"going on after step {step}, epoch 1 of 2 done" in run(tmp_path / "halves", data, *PLAY)
    assert rows(tmp_path / "halves") == rows(tmp_path / "whole")
    assert final_state(tmp_path / "halves") == final_state(tmp_path / "whole")
    best = [checkpoint.find(tmp_path / name / "c/pure_cnn") for name in ("halves", "whole")]
    assert best[0].relative_to(tmp_path / "halves") == best[1].relative_to(tmp_path / "whole")
    assert best[0].parent.name == "best"


@pytest.mark.slow
def test_a_checkpoint_that_a_full_disk_did_not_take_is_not_played(tmp_path, data, monkeypatch):
    full = [0]  # saves that the disk will not take
    usage = shutil.disk_usage

    def disk_usage(path: Path):
        full[0] -= 1
        return usage(path)._replace(free=0) if full[0] >= 0 else usage(path)

    def fill() -> None:
        full[0] = 2  # that after this play, and that before the next

    monkeypatch.setattr("BC_training.training.checkpoint_writer.shutil.disk_usage", disk_usage)
    before_scoring(monkeypatch, 1, fill)
    printed = run(tmp_path, data, *PLAY)
    assert "is full" in printed
    assert "epoch 2 is not played: it could not be saved" in printed
    assert [row["epoch"] for row in rows(tmp_path) if row["kind"] == "rollout"] == [1]
    assert [row["epoch"] for row in rows(tmp_path) if row["kind"] == "val"] == [1, 2]
    saved = checkpoint.read(tmp_path / "c/pure_cnn")
    assert (saved.path.parent.name, saved.epoch) == ("best", 1)


def test_patience_counts_the_epochs_that_played(tmp_path, data, monkeypatch):
    """Every second epoch plays; of the three that do, none is better than the first by ``min_delta``."""
    scored: list[Path] = []
    monkeypatch.setattr(Benchmark, "score", lambda _, folder: scored.append(folder) or {"mean": float(len(scored))})
    monkeypatch.setattr(training, "finish", lambda *_: None)
    changes = ["training.num_epochs=9", "evaluation.rollout.every_n_epochs=2", "training.schedule=constant"]
    run(tmp_path, data, *PLAY, *changes, "training.early_stopping={patience: 2, min_delta: 10}")
    assert [row["epoch"] for row in rows(tmp_path) if row["kind"] == "rollout"] == [2, 4, 6]
    assert [row["epoch"] for row in rows(tmp_path) if row["kind"] == "val"] == [1, 2, 3, 4, 5, 6]
    assert checkpoint.read(tmp_path / "c/pure_cnn").epoch == 6
