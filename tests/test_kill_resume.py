"""A training that is killed (SIGKILL) and started again ends as one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from BC_training.common import checkpoint

REPO = Path(__file__).resolve().parent.parent
SETTINGS = [
    *("dataset.record=null", "dataset.path=../data.zarr", "dataset.split={train: 0.5, val: 0.5, test: 0.0}"),
    *("dataset.cache=none", "model.conv_features=[4,8]", "model.conv_strides=[2,2]", "model.dense_features=[16]"),
    *("training.num_epochs=2", "training.batch_size=4", "training.warmup_steps=2", "training.checkpoint_dir=."),
    *("evaluation.rollout=null", "logging.log_dir=logs", "logging.wandb.enabled=false", "logging.log_every_steps=1"),
]
STEPS = 12  # of 2 epochs
# The command line, writing down the samples of every step that is taken. With a step as its first
# argument it kills itself there, once the checkpoint of half of them is written.
COMMAND = f"""
import json, os, signal, sys, time
from BC_training import train
from BC_training.common.samples import SampleOrder

kill_at, taken, get_batch = int(sys.argv.pop(1)), open("samples.jsonl", "a"), SampleOrder.batch

def batch(order, step):
    samples = get_batch(order, step)
    if step == kill_at:
        while not os.path.exists("pure_cnn/last/{STEPS // 2}"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps([step, samples.tolist()]), file=taken, flush=True)
    return samples

def train_epoch(*arguments):
    SampleOrder.batch = batch  # from here on, not while compiling
    return of_train(*arguments)

of_train, train.train_epoch = train.train_epoch, train_epoch
from BC_training.__main__ import main
main()
"""


def start(folder: Path, kill_at: int) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", COMMAND, str(kill_at), "--config", "configs/pure_cnn.yaml", *SETTINGS]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def samples(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_half_the_steps_a_kill_and_the_rest_are_as_all_the_steps(tmp_path, make_dataset):
    make_dataset(tmp_path / "data.zarr", [24, 24])
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    killed = start(halves, kill_at=STEPS - 2)
    printed, _ = killed.communicate()
    assert killed.returncode == -9, printed
    taken = samples(halves)
    assert [step for step, _ in taken] == list(range(STEPS - 2))
    trainings = [start(halves, kill_at=-1), start(whole, kill_at=-1)]
    outputs = [training.communicate()[0] for training in trainings]
    assert [training.returncode for training in trainings] == [0, 0], outputs
    assert f"going on after step {STEPS // 2}, epoch 1 of 2 done" in outputs[0]
    resumed = samples(halves)[len(taken) :]
    assert taken[: STEPS // 2] + resumed == samples(whole)
    assert len(samples(whole)) == STEPS
    for item in ("model", "optimizer"):
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            found, wanted = (reader.restore(f / f"pure_cnn/last/{STEPS}" / item) for f in (halves, whole))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    found, wanted = (checkpoint.read(folder / "pure_cnn") for folder in (halves, whole))
    assert (found.step, found.split) == (wanted.step, wanted.split)


@pytest.mark.slow
def test_kills_at_random_instants_change_nothing():
    command = [sys.executable, "benchmarks/kill_resume.py", "--kills", "3"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 bit-identical" in done.stdout
