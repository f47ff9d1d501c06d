"""Small trainings on a recording of the real game."""

import json
import os
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import wandb
import zarr
from rich.console import Console
from trainings import SMALL, settings

from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.common.schema import RecordConfig
from BC_training.evaluation.evaluate import evaluate
from BC_training.inference import Policy
from BC_training.play.record import record
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.setup import Setup
from BC_training.training.train_state import abstract_model, abstract_state, make_optimizer

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.zarr"
    record(path, RecordConfig("doom/deadly_corridor", episodes=4, frame_size=(24, 32)), 1, Console(file=StringIO()))
    return path


def run(folder: Path, data: Path, *overrides: str) -> tuple[Path, str]:
    """Trains into ``folder``, without a report, and returns the run's checkpoint folder and the printed text."""
    screen = StringIO()
    config = load_config("configs/pure_cnn.yaml", settings(folder, data, "logging.report=false", *overrides))
    return train(config, Console(file=screen, width=200)), screen.getvalue()


def rows(folder: Path, kind: str) -> list[dict]:
    lines = (folder / "l/pure_cnn/metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, recording) -> tuple[Path, Path, str]:
    """A run that also plays and reports: its folder, its checkpoints, its output."""
    folder = tmp_path_factory.mktemp("run")
    # At skill 5 an untrained policy does not live long.
    play = "evaluation.rollout={game: 'doom/deadly_corridor?skill=5', episodes: 1, seed: 0, every_n_epochs: 1}"
    changes = [play, "evaluation.best_metric=rollout", "system.workers=1", "logging.report=true"]
    return folder, *run(folder, recording, *changes)


def test_a_run_leaves_every_file_that_it_names(trained):
    folder, run_dir, printed = trained
    for place in ("evaluation.json", "rollout.json", "rollout.mp4", "report.html", "metrics.jsonl", "config.yaml"):
        assert (folder / "l/pure_cnn" / place).stat().st_size > 0
        assert place == "config.yaml" or place in printed
    steps = sorted(int(p.name) for p in (run_dir / "last").iterdir())
    per_epoch = steps[-1] // 2
    assert steps == [per_epoch, 2 * per_epoch]
    assert str(checkpoint.find(run_dir)) in printed
    report = json.loads((folder / "l/pure_cnn/evaluation.json").read_text())
    assert {"exact_match", "macro_f1", "per_action", "l1", "l2", "kl", "baselines"} <= set(report)
    assert set(report["baselines"]) == {"majority", "repeat_previous"}
    result = json.loads((folder / "l/pure_cnn/rollout.json").read_text())
    assert len(result["returns"]) == 1


def test_the_best_checkpoint_is_the_one_that_played_best(trained):
    folder, run_dir, _ = trained
    played, (final,) = rows(folder, "rollout"), rows(folder, "final")
    assert [row["epoch"] for row in played] == [1, 2]
    assert final["random_mean"] != played[0]["random_mean"]  # other seeds
    means = [row["mean"] for row in played]
    assert [row["rollout"] for row in rows(folder, "val")] == means
    assert checkpoint.read(run_dir).step == played[means.index(max(means))]["step"]
    assert checkpoint.find(run_dir).parent.name == "best"
    span = played[0]["expert_mean"] - played[0]["random_mean"]
    assert played[0]["normalized"] == pytest.approx((means[0] - played[0]["random_mean"]) / span)


def test_the_metrics_file_has_every_step_and_epoch(trained):
    folder, _, _ = trained
    steps = [row["step"] for row in rows(folder, "train")]
    assert steps == list(range(1, max(steps) + 1))
    assert [row["epoch"] for row in rows(folder, "epoch")] == [1, 2]
    values = rows(folder, "val")[-1]
    assert values["step"] == max(steps)
    assert "per_action/attack/frequency" in values
    assert {"loss", "grad_norm", "param_norm", "learning_rate", "frames_per_second"} <= set(rows(folder, "train")[0])
    assert rows(folder, "train")[-1]["learning_rate"] < rows(folder, "train")[-2]["learning_rate"]  # the cosine


def test_a_copied_checkpoint_is_enough_to_play_and_evaluate(trained, recording, tmp_path):
    _, run_dir, _ = trained
    alone = tmp_path / "alone"
    shutil.copytree(checkpoint.find(run_dir), alone)
    policy = Policy.load(alone)
    dataset = ZarrGameplayDataset(recording)
    policy.reset()
    action = policy.act(dataset.frames(0, [3])[0], dataset.state(0)[3]).buttons
    assert action.dtype == bool
    assert action.shape == (7,)
    first = evaluate(run_dir, Console(file=StringIO()))
    assert evaluate(alone, Console(file=StringIO()), json_file=tmp_path / "r.json") == first
    assert json.loads((tmp_path / "r.json").read_text()) == first.to_dict()


def test_evaluation_agrees_with_playing_every_frame(trained, recording):
    _, run_dir, _ = trained
    saved = checkpoint.read(run_dir)
    dataset = ZarrGameplayDataset(recording)
    policy = Policy.load(run_dir)
    right = frames = 0
    for e in dataset.find(saved.split["val"]):
        actions = dataset.actions(e)
        predicted = [policy.act(frame).buttons for frame in dataset.frames(e, range(len(actions)))]
        right += int((np.stack(predicted) == actions).all(axis=1).sum())
        frames += len(actions)
    report = evaluate(run_dir, Console(file=StringIO()))
    assert report.frames == frames
    assert report.exact_match == pytest.approx(right / frames, abs=1.5 / frames)  # a logit at 0 may round


@pytest.mark.slow
def test_two_runs_are_bit_identical(tmp_path, recording):
    models = []
    for name, change in (("a", "dataset.cache=device"), ("b", "dataset.cache=none"), ("c", "system.seed=1")):
        run_dir, _ = run(tmp_path / name, recording, change)
        models.append(checkpoint.read_model(checkpoint.read(run_dir / "last")))
    jax.tree.map(np.testing.assert_array_equal, models[0].params, models[1].params)
    jax.tree.map(np.testing.assert_array_equal, models[0].batch_stats, models[1].batch_stats)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), models[0].params, models[2].params)
    assert not all(jax.tree.leaves(same))


def test_a_finished_run_is_scored_again_or_kept_beside_a_new_one(tmp_path, recording):
    run_dir, _ = run(tmp_path, recording, "training.num_epochs=1")
    log, scores = (tmp_path / "l/pure_cnn" / name for name in ("metrics.jsonl", "evaluation.json"))
    before, (step,) = log.read_text(), (run_dir / "last").iterdir()
    expected = scores.read_text()
    scores.unlink()
    _, printed = run(tmp_path, recording, "training.num_epochs=1")
    assert "the run is finished" in printed
    assert log.read_text() == before
    assert scores.read_text() == expected
    assert list((run_dir / "last").iterdir()) == [step]
    _, printed = run(tmp_path, recording, "training.num_epochs=1", "training.resume=never")
    assert "kept as 'pure_cnn.1'" in printed
    assert (tmp_path / "l/pure_cnn.1/metrics.jsonl").read_text() == before
    checkpoint.read_model(checkpoint.read(tmp_path / "c/pure_cnn.1"))


def test_early_stopping_ends_the_run_with_its_best_checkpoint(tmp_path, recording):
    stopping = "training.early_stopping={metric: loss, patience: 1, min_delta: 1000}"
    run_dir, _ = run(tmp_path, recording, stopping, "training.num_epochs=5", "evaluation.best_metric=loss")
    values = rows(tmp_path, "val")
    assert [row["epoch"] for row in values] == [1, 2]  # the first counts, the second is no gain of 1000
    best = min(values, key=lambda row: row["loss"])
    assert checkpoint.read(run_dir).step == best["step"]
    report = json.loads((tmp_path / "l/pure_cnn/evaluation.json").read_text())
    assert report["exact_match"] == best["exact_match"]


def test_averaged_parameters_are_validated_saved_and_played(tmp_path, recording):
    run_dir, _ = run(tmp_path, recording, "training.ema_decay=0.9", "training.num_epochs=1")
    report = evaluate(run_dir / "last", Console(file=StringIO()))
    (row,) = rows(tmp_path, "val")
    assert report.exact_match == row["exact_match"]
    saved = checkpoint.read(run_dir)
    optimizer, _ = make_optimizer(saved.config.training, saved.step)
    like = abstract_state(abstract_model(saved.config, saved.inputs), optimizer, averaged=True)
    state = checkpoint.read_state(saved.path, like)
    played = checkpoint.read_model(saved)
    jax.tree.map(np.testing.assert_array_equal, played.params, state.ema["params"])
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (played.params, state.params)), strict=True))


def test_a_run_that_diverges_keeps_the_checkpoint_before(tmp_path, recording):
    constant = "training.schedule=constant"
    run_dir, _ = run(tmp_path, recording, constant, "training.num_epochs=1")
    (step,) = (run_dir / "last").iterdir()
    changes = [constant, "training.learning_rate=1e38", "training.num_epochs=2"]
    with pytest.raises(UserError, match=r"was trained with other settings \(training.learning_rate 0.0\d+ -> 1e\+38\)"):
        run(tmp_path, recording, *changes)
    with pytest.raises(UserError, match=r"step \d+ is not finite .*the checkpoints before it are kept.*episode_\d+:\d"):
        run(tmp_path, recording, *changes, "training.resume_changed=true")
    assert list((run_dir / "last").iterdir()) == [step]
    checkpoint.verify(step)


@pytest.mark.parametrize("name", ["loss", "grad_norm", "param_norm"])
def test_a_loss_or_norm_that_is_not_finite_stops_the_training(name):
    values = {"loss": 1.0, "grad_norm": 1.0, "param_norm": 1.0}
    order = SimpleNamespace(batch=lambda step: np.array([step]))
    samples = SimpleNamespace(locate=lambda batch: [("episode_0", int(batch[0]))])
    setup: Any = SimpleNamespace(order=order, train_samples=samples)
    Setup.require_finite(setup, values, 8)
    with pytest.raises(UserError, match=r"step 8 is not finite .*episode_0:7"):
        Setup.require_finite(setup, values | {name: float("nan")}, 8)


def test_the_options_of_the_optimization_work_together(tmp_path, recording):
    options = {"num_epochs": 1, "schedule": "constant", "gradient_accumulation": 3}
    options |= {"precision": "bfloat16", "ema_decay": 0.9, "loss": "focal"}
    run(tmp_path, recording, *(f"training.{name}={value}" for name, value in options.items()))
    steps = rows(tmp_path, "train")
    rates = [row["learning_rate"] for row in steps]
    assert rates == pytest.approx([0.001 * min(i // 3 / 4, 1) for i in range(len(rates))])
    assert all(row["param_norm"] > 0 for row in steps)
    assert len({row["param_norm"] for row in steps}) == len(rates) // 3  # one an update: the first rate is 0
    assert np.isfinite(rows(tmp_path, "val")[-1]["loss"])


@pytest.mark.slow
def test_a_dataset_of_an_older_recorder_trains(tmp_path, make_older_dataset):
    path = tmp_path / "old.zarr"
    make_older_dataset(path, [30, 30, 30], size=(48, 64), numbers=[1, 2, 10])
    assert json.loads((path / "episode_1/frames/.zarray").read_text())["compressor"]["id"] == "blosc"
    run_dir, printed = run(tmp_path, path, "training.num_epochs=1")
    assert "3 episodes, 90 frames at 17.08/s, 13 actions, 19 state values" in printed
    assert len(checkpoint.read(run_dir).inputs.action_names) == 13


def test_faulty_episodes_are_named_or_skipped_and_counted(tmp_path, recording):
    data = tmp_path / "faulty.zarr"
    shutil.copytree(recording, data)
    actions = zarr.open_group(data)["episode_2/actions"]
    actions.resize((actions.shape[0] - 1, 7))
    with pytest.raises(UserError, match=r"episode_2: lengths differ"):
        run(tmp_path, data)
    assert not (tmp_path / "c").exists()
    _, printed = run(tmp_path, data, "dataset.validate_episodes=true", "training.num_epochs=1")
    assert "skipped 1 faulty episodes (episode_2: lengths differ" in printed


def test_a_damaged_chunk_stops_training_with_its_episode(tmp_path, recording):
    data = tmp_path / "damaged.zarr"
    shutil.copytree(recording, data)
    for chunk in sorted((data / "episode_1/frames").glob("c.*"))[:40]:
        chunk.unlink()
    with pytest.raises(UserError, match="episode_1: cannot read 'frames'"):
        run(tmp_path, data)


def test_a_choice_of_buttons_trains_and_an_unknown_button_is_named(tmp_path, recording):
    rules = ("evaluation.thresholds.attack=0.3", "evaluation.exclusive=[[turn_left,attack]]")
    run_dir, _ = run(tmp_path, recording, "dataset.actions=[attack,turn_left]", "training.num_epochs=1", *rules)
    expected = Decoding({"attack": 0.3, "turn_left": 0.5}, exclusive=(("turn_left", "attack"),))
    assert checkpoint.read(run_dir).decoding == expected
    assert checkpoint.read(run_dir).inputs.action_names == ("attack", "turn_left")
    assert list(evaluate(run_dir, Console(file=StringIO())).per_action) == ["attack", "turn_left"]
    whole = ZarrGameplayDataset(recording)
    chosen = ZarrGameplayDataset(recording, actions=["attack", "turn_left"])
    np.testing.assert_array_equal(chosen.actions(1), whole.actions(1)[:, [2, 5]])
    with pytest.raises(UserError, match="unknown action 'atack'; did you mean 'attack'"):
        run(tmp_path, recording, "dataset.actions=[atack]")
    with pytest.raises(UserError, match=r"unknown action 'atack'; did you mean 'attack'.*see thresholds"):
        run(tmp_path / "x", recording, "evaluation.thresholds.atack=0.3")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluation.rollout={game: doom/deadly_corridor}", r"buttons \[key_0.*the game has \[move_left"),
        ("training.augmentation.flip=0.5", r"no mirror image is known for actions 'key_0', .*attrs\['mirror'\]"),
    ],
)
def test_buttons_that_the_game_or_a_flip_does_not_know_are_refused_before_training(
    tmp_path, recording, setting, message
):
    data = tmp_path / "renamed.zarr"
    shutil.copytree(recording, data)
    zarr.open_group(data).attrs["keys"] = [f"key_{i}" for i in range(7)]
    with pytest.raises(UserError, match=message):
        run(tmp_path, data, setting)
    assert not (tmp_path / "c").exists()


def test_a_history_longer_than_the_shortest_episode_gives_one_warning(tmp_path, make_dataset):
    data, warnings = tmp_path / "x.zarr", []
    make_dataset(data, [5, 30, 30], actions=7)
    for history in (3, 4):  # which span 5 and 7 frames
        screen = StringIO()
        changes = [*SMALL, f"dataset.path={data}", f"dataset.history={history}", "dataset.frame_skip=2"]
        Setup.build(load_config("configs/pure_cnn.yaml", changes), Console(file=screen))
        warnings.append(screen.getvalue().count("is longer than the shortest episode (5)"))
    assert warnings == [0, 1]


@pytest.mark.parametrize("key", [None, pytest.param("0" * 40, marks=pytest.mark.slow)])
def test_wandb_is_offline_without_a_key_or_a_network_and_says_so_once(tmp_path, recording, monkeypatch, key):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    _, printed = run(tmp_path, recording, "logging.wandb.enabled=true", "training.num_epochs=1")
    assert printed.count("W&B is offline") == 1
    assert ("W&B is offline (no key)" in printed) == (key is None)
    assert list((tmp_path / "l/pure_cnn/wandb").glob("offline-run-*/*.wandb"))
    assert rows(tmp_path, "val")
    wandb.teardown()  # ends its process here, not after a later test's


def test_a_copied_variant_trains_without_another_edit(tmp_path, recording):
    package = tmp_path / "BC_training"
    ignored = shutil.ignore_patterns("checkpoints", "logs", "__pycache__")
    shutil.copytree(REPO / "BC_training", package, ignore=ignored)
    shutil.copytree(package / "models/pure_cnn", package / "models/my_model")
    shutil.copy(package / "configs/pure_cnn.yaml", package / "configs/my_model.yaml")
    overrides = [*SMALL, f"dataset.path={recording}", "training.num_epochs=1"]
    command = [sys.executable, "-m", "BC_training", "--config", "configs/my_model.yaml", *overrides]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "BC_training/logs/my_model/evaluation.json").read_text())
    assert saved["frames"] > 0
    assert "my_model: " in done.stdout
    assert (tmp_path / "BC_training/checkpoints/my_model/best").is_dir()


def test_windows_chunks_oversampling_and_augmentation_train_from_the_disk_cache(tmp_path, recording, monkeypatch):
    monkeypatch.setattr("BC_training.training.step_log._NOTEWORTHY_WAIT", -1.0)
    run_dir, printed = run(
        tmp_path,
        recording,
        "dataset.history=2",
        "dataset.frame_skip=2",
        "dataset.action_shift=1",
        "model.action_chunk=3",
        "dataset.oversample={actions: [attack], ratio: 0.5}",
        "training.augmentation={crop: 2, brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.05, flip: 0.5}",
        "training.augmentation.temporal_jitter=1",
        "dataset.cache=disk",
        f"dataset.cache_dir={tmp_path}/cache",
        "training.num_epochs=1",
    )
    assert "the step waits for data" in printed
    assert "dataset.cache=device" in printed
    (row,) = rows(tmp_path, "epoch")
    assert 0 <= row["data_wait"] <= 1
    assert all("data_wait" in row for row in rows(tmp_path, "train"))
    policy = Policy.load(run_dir)
    assert policy.inputs.window == Window(history=2, frame_skip=2, action_shift=1, action_chunk=3)
    frames = ZarrGameplayDataset(recording).frames(0, range(4))
    assert {policy.act(frame).buttons.shape for frame in frames} == {(7,)}
    report = evaluate(run_dir, Console(file=StringIO()), split="all")
    assert report.frames == sum(e.length - 1 for e in ZarrGameplayDataset(recording).episodes)
