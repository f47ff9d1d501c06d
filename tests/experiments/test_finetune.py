"""Fine-tunings in a real game, of seconds: what they leave, and how they go on."""

import json
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from BC_training.common.config import load_config as load_training
from BC_training.common.errors import UserError
from BC_training.experiments.finetune import finetune
from BC_training.finetuning.setup import Setup, load_config
from BC_training.inference import Policy
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.checkpoint import read_state
from BC_training.training.progress import TrainingProgress
from BC_training.training.resume import Start

CLONE = [
    *("dataset.record={game: gym/CartPole-v1, player: expert, episodes: 4, frame_size: [24,32], seed: 50}",),
    *("dataset.frame_size=[24,32]", "dataset.split={train: 0.5, val: 0.5, test: 0.0}", "dataset.history=2"),
    *("model.conv_features=[4,8]", "model.conv_strides=[2,2]", "model.dense_features=[16]", "model.dropout=0"),
    *("training.num_epochs=1", "training.batch_size=32", "evaluation.rollout.episodes=2"),
    *("evaluation.rollout.video=false", "logging.report=false", "logging.wandb.enabled=false", "system.workers=1"),
]
GAMES, HORIZON = 4, 16
FRESH = Start(None, TrainingProgress())
BATCH = GAMES * HORIZON


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    places = [f"dataset.path={folder}/x.zarr", f"training.checkpoint_dir={folder}", f"logging.log_dir={folder}/l"]
    return train(load_training("configs/pure_cnn_small.yaml", [*CLONE, *places]), Console(file=StringIO()))


def settings(folder: Path, clone: Path, *overrides: str) -> list[str]:
    places = [f"finetune.from={clone}", f"training.checkpoint_dir={folder}/c", f"logging.log_dir={folder}/l"]
    sizes = [f"finetune.games={GAMES}", f"finetune.horizon={HORIZON}", f"finetune.steps={4 * BATCH}"]
    rest = ["finetune.value_warmup=1", "evaluation.rollout.every_n_epochs=2", "logging.wandb.enabled=false"]
    return [*places, *sizes, *rest, "evaluation.rollout.episodes=3", "system.workers=1", *overrides]


def run(folder: Path, clone: Path, *overrides: str) -> str:
    """Fine-tunes in this process and returns what was printed."""
    screen = StringIO()
    (folder / "x.yaml").write_text("")
    finetune(load_config(folder / "x.yaml", settings(folder, clone, *overrides)), Console(file=screen, width=200))
    return screen.getvalue()


def rows(folder: Path) -> list[dict]:
    return [*map(json.loads, (folder / "l/x/metrics.jsonl").read_text().splitlines())]


@pytest.fixture(scope="module")
def finished(clone, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder, clone)


def test_a_run_leaves_a_policy_that_plays_its_log_its_scores_and_a_page(finished, clone):
    folder, printed = finished
    policy = Policy.load(folder / "c/x")
    assert policy.decoding.temperature == 1
    policy.act(np.zeros((3, 24, 32), np.uint8))
    iterations = [row for row in rows(folder) if row["kind"] == "epoch"]
    assert [row["step"] for row in iterations] == [BATCH, 2 * BATCH, 3 * BATCH, 4 * BATCH]
    assert iterations[0]["kl"] == pytest.approx(0, abs=1e-6)  # only the value head learned
    assert iterations[-1]["kl"] > 1e-6
    for row in iterations:
        assert row["data_wait"] + row["inference"] + row["update"] == pytest.approx(1)
    played = [row for row in rows(folder) if row["kind"] == "rollout"]
    assert [row["epoch"] for row in played] == [2, 4]
    assert all(row["clone_mean"] == played[0]["clone_mean"] for row in played)
    scores, of_clone = (json.loads((folder / "l/x" / name).read_text()) for name in ("rollout.json", "clone.json"))
    assert scores["seed"] == of_clone["seed"] == 0
    assert of_clone["player"] == str(checkpoint.find(clone))
    page = (folder / "l/x/report.html").read_text()
    for heading in ("KL divergence from the clone", "Agent steps a second", "Return in play"):
        assert heading in page
    assert not re.search(r"</h\d>\s*</section>", page)  # a heading over nothing
    assert "steps/s" in printed


def test_the_same_command_scores_again_and_trains_no_more(finished, clone):
    folder, _ = finished
    before = checkpoint.find(folder / "c/x/last")
    assert "the run is finished" in run(folder, clone)
    assert checkpoint.find(folder / "c/x/last") == before


def arrays(folder: Path, clone: Path) -> tuple[Setup, dict[str, np.ndarray]]:
    """Every array of the newest checkpoint, by its name."""
    setup = Setup.build(load_config(folder / "x.yaml", settings(folder, clone)))
    state = read_state(checkpoint.find(folder / "c/x/last"), setup.initial_state(FRESH))
    return setup, {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(state)}


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_goes_on_where_it_was(clone, tmp_path, number):
    """With the parameters, the optimizer, the counters and the next seeds of its last checkpoint."""
    (tmp_path / "x.yaml").write_text("")
    command = [sys.executable, "-m", "BC_training", "finetune", "--config", str(tmp_path / "x.yaml")]
    command += settings(tmp_path, clone, "evaluation.rollout.every_n_epochs=1", f"finetune.steps={100 * BATCH}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while len(list(tmp_path.glob("c/x/last/*"))) < 2:
            assert time.monotonic() < end, "it saved nothing"
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(number)
        code = process.wait(30)
    assert code == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    _, before = arrays(tmp_path, clone)
    done = int(checkpoint.find(tmp_path / "c/x/last").name) // BATCH
    assert before[".step"] == done * 12
    assert before[".opt_state['episodes']"] >= GAMES

    begun = int(before[".opt_state['episodes']"])
    longer = f"finetune.steps={(done + 1) * BATCH}", "training.resume_changed=true"
    printed = run(tmp_path, clone, "evaluation.rollout.every_n_epochs=1", *longer)
    assert f"going on after step {done * BATCH}" in printed
    _, after = arrays(tmp_path, clone)
    assert after[".step"] == (done + 1) * 12
    assert after[".opt_state['episodes']"] >= begun + GAMES
    for name, array in before.items():
        if "['clone']" in name:
            np.testing.assert_array_equal(after[name], array)
    steps = [row["step"] for row in rows(tmp_path) if row["kind"] == "epoch"]
    assert steps == [BATCH * k for k in range(1, done + 2)]


def test_from_nothing_the_policy_is_not_the_clones(clone, tmp_path):
    (tmp_path / "x.yaml").write_text("")
    begins = []
    for overrides in ((), ("finetune.from_nothing=true", "finetune.kl=0")):
        setup = Setup.build(load_config(tmp_path / "x.yaml", settings(tmp_path, clone, *overrides)))
        begins.append(setup.initial_state(FRESH).params)
    firsts = [jax.tree.leaves(params)[0] for params in begins]
    theirs = checkpoint.read_model(setup.clone).params
    assert [np.array_equal(first, jax.tree.leaves(theirs)[0]) for first in firsts] == [True, False]
    # Each button is pressed half the time: the last layer hardly tells frames apart.
    of_clone, of_nothing = (np.abs(np.asarray(params["head"]["kernel"])).max() for params in (theirs, begins[1]))
    assert of_nothing < 0.1 * of_clone


def test_a_run_of_other_settings_is_not_gone_on_with(finished, clone):
    folder, _ = finished
    with pytest.raises(UserError, match=r"is of another training \(finetune.kl 0.1 -> 0.2\)"):
        run(folder, clone, "finetune.kl=0.2")
