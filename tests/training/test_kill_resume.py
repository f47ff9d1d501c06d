"""A training that is killed (SIGKILL) and started again ends as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.data.order import SampleOrder
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.checkpoint_writer import CheckpointWriter

REPO = Path(__file__).resolve().parents[2]
STEPS = 12  # in 2 epochs
SETTINGS = [
    *("dataset.record=null", "dataset.cache=none", "dataset.split={train: 0.5, val: 0.5, test: 0.0}"),
    *("model.conv_features=[4]", "model.conv_strides=[4]", "model.dense_features=[8]", "evaluation.rollout=null"),
    *("training.num_epochs=2", "training.batch_size=4", "training.warmup_steps=2", "logging.wandb.enabled=false"),
    "logging.log_every_steps=1",
]


def settings(folder: Path) -> list[str]:
    data = folder.with_name("data.zarr")
    return [*SETTINGS, f"dataset.path={data}", f"training.checkpoint_dir={folder}", f"logging.log_dir={folder}/logs"]


def note_samples(folder: Path, kill_at: int, patch: Callable[[object, str, object], None] = setattr) -> None:
    """Makes this process write the samples of each step into ``folder``.

    At step ``kill_at`` it waits until half of all steps are saved and kills itself; at -1 it never does.
    """
    get_batch = SampleOrder.batch

    def batch(order: SampleOrder, step: int) -> np.ndarray:
        samples = get_batch(order, step)
        if step == kill_at:
            while not (folder / f"pure_cnn/last/{STEPS // 2}").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        with open(folder / "samples.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps([step, samples.tolist()]) + "\n")
        return samples

    folder.mkdir(exist_ok=True)
    patch(SampleOrder, "batch", batch)


def run(folder: Path, kill_at: int) -> subprocess.CompletedProcess:
    """The command line, with ``note_samples``."""
    program = (
        "from pathlib import Path; from BC_training.__main__ import main; "
        "from tests.training.test_kill_resume import note_samples; "
        f"note_samples(Path({str(folder)!r}), {kill_at}); main()"
    )
    command = [sys.executable, "-c", program, "--config", "configs/pure_cnn.yaml", *settings(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def samples(folder: Path) -> list[list]:
    """The (step, samples) that were asked for; the first are those of step 0, to compile."""
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def log(folder: Path) -> list[tuple]:
    """The rows of the log, without what is timed."""
    rows = map(json.loads, (folder / "logs/pure_cnn/metrics.jsonl").read_text().splitlines())
    return [(row["kind"], row["step"], row.get("loss")) for row in rows]


def test_a_training_killed_and_resumed_takes_the_same_steps_as_one_undisturbed(tmp_path, make_dataset, monkeypatch):
    make_dataset(tmp_path / "data.zarr", [24, 24])
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    with monkeypatch.context() as patch:
        note_samples(whole, -1, patch.setattr)
        train(load_config("configs/pure_cnn.yaml", settings(whole)), Console(file=StringIO()))
    killed = run(halves, kill_at=STEPS - 2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with open(
        halves / "logs/pure_cnn/metrics.jsonl", "a", encoding="utf-8"
    ) as file:  # a row that no checkpoint has, and a torn one
        file.write(json.dumps({"kind": "train", "step": STEPS // 2 + 1, "loss": 0.5}) + '\n{"kind"')
    first = samples(halves)
    resumed = run(halves, kill_at=-1)
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on after step {STEPS // 2}, epoch 1 of 2 done" in resumed.stdout
    assert [step for step, _ in samples(whole)] == [0, *range(STEPS)]
    assert first == samples(whole)[: len(first)]
    assert [step for step, _ in first] == [0, *range(STEPS - 2)]
    second = samples(halves)[len(first) :]
    assert second == [samples(whole)[0], *samples(whole)[1 + STEPS // 2 :]]
    assert log(halves) == log(whole)
    for item in ("model", "optimizer"):
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            found, wanted = (reader.restore(f / f"pure_cnn/last/{STEPS}" / item) for f in (halves, whole))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert checkpoint.find(halves / "pure_cnn").name == checkpoint.find(whole / "pure_cnn").name


def test_a_superfluous_checkpoint_that_a_killed_training_left_is_removed(tmp_path):
    for place in ("best/4", "best/8", "last/4", "last/8"):
        (tmp_path / place).mkdir(parents=True)
    with CheckpointWriter(tmp_path, keep_last=2, console=Console(file=StringIO())):
        pass
    assert sorted(str(step.relative_to(tmp_path)) for step in tmp_path.glob("*/*")) == ["best/8", "last/4", "last/8"]


@pytest.mark.slow
def test_kills_at_random_instants_change_nothing():
    command = [sys.executable, "benchmarks/kill_resume.py", "--kills", "3"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 bit-identical" in done.stdout
