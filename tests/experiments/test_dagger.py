"""Rounds of DAgger in the real game, with trainings of seconds."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.schema import RecordConfig
from BC_training.experiments import dagger as dagger_module
from BC_training.experiments.dagger import dagger
from BC_training.experiments.rounds import Rounds
from BC_training.games import make_game
from BC_training.play.players import make_player
from BC_training.play.record import record
from BC_training.training import checkpoint

GAME = "doom/deadly_corridor"
ROUNDS = {"rounds": 1, "episodes": 2, "mix": 0.5}
SMALL = [
    *("dataset.record.episodes=3", "dataset.record.frame_size=[24,32]", "dataset.record.noise=0"),
    *("dataset.frame_size=[24,32]", "dataset.split={train: 0.6, val: 0.4, test: 0.0}"),
    *("model.conv_features=[4,8]", "model.conv_strides=[2,2]", "model.dense_features=[16]"),
    *("training.num_epochs=1", "training.batch_size=16", "evaluation.rollout.episodes=2"),
    *("evaluation.rollout.video=false", "logging.report=false", "logging.wandb.enabled=false"),
    *("logging.run_name=x", "system.workers=1"),
]
QUIET = Console(file=StringIO())


def settings(folder: Path, *overrides: str) -> list[str]:
    places = [f"dataset.path={folder}/x.zarr", f"training.checkpoint_dir={folder}/c", f"logging.log_dir={folder}/l"]
    return [*SMALL, *places, *overrides]


def run(folder: Path, *overrides: str, **rounds) -> Rounds:
    return dagger(load_config("configs/pure_cnn_small.yaml", settings(folder, *overrides)), QUIET, **(ROUNDS | rounds))


def files(folder: Path) -> dict[str, int]:
    """When each file below ``folder`` was written, in ns."""
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in sorted(folder.rglob("*")) if f.is_file()}


def require_same(one: Path, other: Path) -> None:
    """The datasets and the last checkpoints of round 1 are equal, and so are the tables but for times and places."""
    a, b = (ZarrGameplayDataset(folder / "x-round1.zarr") for folder in (one, other))
    assert [e.name for e in a.episodes] == [e.name for e in b.episodes]
    assert [e.attrs["seed"] for e in a.episodes] == [e.attrs["seed"] for e in b.episodes]
    for e, episode in enumerate(a.episodes):
        np.testing.assert_array_equal(a.frames(e, range(episode.length)), b.frames(e, range(episode.length)))
        np.testing.assert_array_equal(a.actions(e), b.actions(e))
    arrays = []
    for folder in (one, other):
        last = checkpoint.find(folder / "c/x-round1/last")
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            arrays.append([reader.restore(last.resolve() / item) for item in ("model", "optimizer")])
    jax.tree.map(np.testing.assert_array_equal, *arrays)
    tables = [json.loads((folder / "l/x-dagger/dagger.json").read_text()) for folder in (one, other)]
    for table in tables:
        for row in table["rounds"]:
            assert row.pop("minutes") > 0
            del row["dataset"], row["checkpoint"]
    assert tables[0] == tables[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder of rounds that ran without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_rounds_add_to_a_copy_of_the_dataset(whole):
    own, grown = ZarrGameplayDataset(whole / "x.zarr"), ZarrGameplayDataset(whole / "x-round1.zarr")
    assert [e.attrs["seed"] for e in own.episodes] == [10_000, 10_001, 10_002]
    assert [e.attrs["seed"] for e in grown.episodes] == list(range(10_000, 10_005))
    first, second = (checkpoint.read(whole / f"c/x-round{k}") for k in (0, 1))
    for episode in grown.episodes[3:]:
        assert episode.attrs["player"] == str(first.path)
        assert episode.attrs["label"] == "expert"
        assert episode.attrs["mix"] == 0.5
        assert episode.attrs["noise"] == 0
    for split in ("train", "val"):
        assert set(first.split[split]) < set(second.split[split])
        assert len(second.split[split]) == len(first.split[split]) + 1


def test_the_table_holds_the_scores_of_the_runs(whole):
    table = json.loads((whole / "l/x-dagger/dagger.json").read_text())
    assert [row["round"] for row in table["rounds"]] == [0, 1]
    assert [row["mix"] for row in table["rounds"]] == [None, 0.5]
    assert [row["episodes"] for row in table["rounds"]] == [3, 5]
    for row in table["rounds"]:
        logs = whole / "l" / row["run"]
        play = json.loads((logs / "rollout.json").read_text())
        assert row["mean_return"] == play["mean"]
        assert row["normalized"] == pytest.approx(play["normalized"])
        assert row["normalized_low"] <= row["normalized"] <= row["normalized_high"]
        assert row["exact_match"] == json.loads((logs / "evaluation.json").read_text())["exact_match"]
        assert row["frames"] == len(ZarrGameplayDataset(row["dataset"]))
        assert checkpoint.read(row["checkpoint"]).step == play["step"]
    lines = (whole / "l/x-dagger/dagger.md").read_text().splitlines()
    assert lines[0].startswith("doom/deadly_corridor, seeds 0 to 1 (random ")
    assert len(lines) == 2 + 2 + 2
    assert lines[-2].startswith("| 0 | – | 3 | ")


def test_a_policys_frames_are_labelled_by_the_expert(whole, tmp_path):
    """The policy's buttons, played again, lead to the same frames, in which a new expert presses the labels."""
    policy = str(checkpoint.find(whole / "c/x-round0"))
    config = RecordConfig(GAME, policy, episodes=1, frame_size=(24, 32), label="expert")
    record(tmp_path / "p.zarr", config, 1, QUIET)
    dataset = ZarrGameplayDataset(tmp_path / "p.zarr")
    length = dataset.episodes[0].length
    frames, actions = dataset.frames(0, range(length)), dataset.actions(0)
    env = make_game(GAME, frame_size=(24, 32))
    try:
        player, expert = (make_player(name, GAME, env) for name in (policy, "expert"))
        observation, _ = env.reset(seed=10_000)
        player.reset(10_000)
        differing = 0
        for t in range(length):
            np.testing.assert_array_equal(frames[t], observation["frame"])
            np.testing.assert_array_equal(actions[t], expert.act(observation).buttons)
            executed = player.act(observation)
            differing += (executed.buttons != actions[t]).any()
            observation, _, terminated, truncated, _ = env.step(executed)
        assert terminated or truncated
        assert differing > 0
    finally:
        env.close()


def test_a_checkpoint_that_does_not_fit_is_refused_with_both_sizes(whole, tmp_path):
    for who in ({"player": str(whole / "c/x-round0")}, {"player": "noop", "label": str(whole / "c/x-round0")}):
        config = RecordConfig(GAME, frame_size=(48, 64), **who)
        with pytest.raises(UserError, match=r"frame size \[24, 32\], the game has \[48, 64\]"):
            record(tmp_path / "p.zarr", config, 1, QUIET)
    config = RecordConfig("doom/basic", str(whole / "c/x-round0"), frame_size=(24, 32))
    with pytest.raises(UserError, match=r"buttons \[move_left, .*, the game has \["):
        record(tmp_path / "p.zarr", config, 1, QUIET)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("logs", ["l", "m"])
def test_finished_rounds_are_neither_trained_nor_played_again_even_where_their_logs_moved(whole, monkeypatch, logs):
    before = files(whole / "c") | files(whole / "x-round1.zarr")
    monkeypatch.setattr(dagger_module, "train", None)
    (whole / "l").rename(whole / logs)
    try:
        result = run(whole, f"logging.log_dir={whole}/{logs}")
        assert result == Rounds.from_dict(json.loads((whole / logs / "x-dagger/dagger.json").read_text()))
    finally:
        (whole / logs).rename(whole / "l")
    assert files(whole / "c") | files(whole / "x-round1.zarr") == before


@pytest.mark.parametrize(
    ("overrides", "rounds", "message"),
    [
        ([], {"mix": 0.25}, "x-round1.zarr does not hold what this command says"),
        (["training.learning_rate=0.1"], {}, "trained with other settings"),
        (["model.dropout=0.4"], {}, "of another training"),
    ],
)
def test_rounds_begun_with_other_settings_are_refused(whole, overrides, rounds, message):
    before = files(whole / "c") | files(whole / "x-round1.zarr")
    with pytest.raises(UserError, match=message):
        run(whole, *overrides, **rounds)
    assert files(whole / "c") | files(whole / "x-round1.zarr") == before


@pytest.mark.parametrize(
    ("overrides", "rounds", "message"),
    [
        ([], {"label": "expret"}, "did you mean 'expert'"),
        ([], {"mix": 1.5}, "mix=1.5 is out of range"),
        (["evaluation.rollout=null"], {}, "needs an evaluation.rollout section"),
        (["training.resume=never"], {}, "choose another logging.run_name"),
        (["dataset.path=s3://bucket/x.zarr"], {}, "is remote"),
        (["dataset.path=[x.zarr,y.zarr]", "dataset.record=null"], {}, "dagger adds to one dataset"),
        (["dataset.channel_order=bgr"], {}, "channel_order=bgr"),
        (["dataset.record=null"], {}, "x.zarr"),
    ],
)
def test_bad_input_is_found_before_anything_is_written(tmp_path, overrides, rounds, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, *overrides, **rounds)
    assert not list(tmp_path.iterdir())


def test_a_dataset_with_other_buttons_is_refused_before_anything_is_written(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [9, 9], actions=3)
    with pytest.raises(UserError, match="holds other actions"):
        run(tmp_path, "dataset.record=null", f"evaluation.rollout.game={GAME}")
    with pytest.raises(UserError, match=r"do not name one game: set evaluation\.rollout\.game"):
        run(tmp_path, "dataset.record=null")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]


def test_new_episodes_have_other_seeds_than_the_scores(whole):
    config = load_config("configs/pure_cnn_small.yaml", settings(whole))
    play = config.evaluation.rollout
    assert play is not None

    def seed(**options: int) -> int:
        return dagger_module._recording(
            config.dataset, replace(play, game=GAME, **options), whole / "x.zarr", 20, "expert", 0, "noop"
        ).seed

    assert seed() == 10_003
    assert seed(seed=10_010, episodes=40) == 10_050
    assert seed(seed=9_990, episodes=20) == 10_010
    assert seed(seed=10_010, episodes=40, validation_seed=10_055) == 10_095
    assert seed(seed=10_055, episodes=40, validation_seed=10_010) == 10_095


@pytest.mark.slow
def test_rounds_that_are_killed_end_like_rounds_that_are_not(whole, tmp_path):
    command = [sys.executable, "-m", "BC_training", "dagger", "--config", "configs/pure_cnn_small.yaml"]
    command += ["--rounds", "1", "--episodes", "2", "--mix", "0.5", *settings(tmp_path)]
    for moment, number, code in (
        ("c/x-round0/last/*", signal.SIGKILL, -signal.SIGKILL),
        ("x-round1.zarr/episode_3", signal.SIGTERM, 75),  # while it records
        ("c/x-round1/last/*", signal.SIGKILL, -signal.SIGKILL),
        ("l/x-dagger/no-such-file", None, 0),
    ):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(tmp_path.glob(moment)):
            time.sleep(0.02)
        if number is not None:
            process.send_signal(number)
        errors = process.communicate()[1]
        assert process.returncode == code, errors
    require_same(whole, tmp_path)
