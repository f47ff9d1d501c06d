"""Whether a training that is killed at any instant and started again ends as if nothing had happened.

    uv run python benchmarks/kill_resume.py --kills 50

Records a few small episodes, trains on them once undisturbed, then again and again, each time with
folders and caches of its own: killed (SIGKILL to the process group) at a random instant of the
phase whose turn it is, sometimes killed again after the restart, and started until it ends. Each
end is compared with the undisturbed one: parameters, their average, batch statistics and optimizer
by bytes, progress, rows and scores by value; only what measures time may differ. After every kill
all checkpoints have to be whole.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from BC_training.common.errors import UserError
from BC_training.training import checkpoint

EPOCHS = 2
STUCK = 300.0  # seconds; a run takes about ten
KILLED_AGAIN = 0.3  # share of the restarts
TIMINGS = {"seconds", "waited", "log_bytes", "frames_per_second", "data_wait"}
RECORD = ["record", "--out", "recording.zarr", "--episodes", "6", "--size", "24x32"]
# Dropout, augmentation, accumulated gradients and an average of the parameters: all that could be resumed wrongly.
TRAIN = [
    *("--config", "configs/pure_cnn.yaml", "dataset.path=../recording.zarr", "dataset.record=null"),
    *("dataset.cache=disk", "dataset.cache_dir=cache", "dataset.split={train: 0.5, val: 0.5, test: 0.0}"),
    *("model.conv_features=[4]", "model.conv_strides=[4]", "model.dense_features=[8]"),
    *(f"training.num_epochs={EPOCHS}", "training.batch_size=5", "training.warmup_steps=4"),
    *("training.gradient_accumulation=3", "training.ema_decay=0.99", "training.augmentation={brightness: 0.2}"),
    *("training.checkpoint_dir=.", "training.save_every_minutes=0.008", "evaluation.rollout=null"),
    *("logging.run_name=run", "logging.log_dir=logs", "logging.log_every_steps=1", "logging.wandb.enabled=false"),
]
STARTING, CACHE, COMPILING = "starting up", "building the disk cache", "compiling"
WRITING, TRAINING, COMMIT = "writing a compiled program", "training", "writing a checkpoint"
VALIDATION, BETWEEN, END = "validating", "between best/ and last/", "after the last epoch"
PHASES = (STARTING, CACHE, COMPILING, WRITING, TRAINING, COMMIT, VALIDATION, BETWEEN, END)
TURNS = (COMMIT, CACHE, TRAINING, COMMIT, CACHE, COMPILING, VALIDATION, COMMIT, CACHE, STARTING, END, WRITING, BETWEEN)
AGAIN = (STARTING, TRAINING, COMMIT, VALIDATION, END)
COLD = (COMPILING, WRITING)  # begun without compiled programs


@dataclass(frozen=True)
class Case:
    """One training's folder."""

    path: Path

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "BC_training", *TRAIN]
        environment = os.environ | {"XDG_CACHE_HOME": str(self.path / "xdg")}
        with open(self.path / "output.txt", "a", encoding="utf-8") as output:
            return subprocess.Popen(
                command, cwd=self.path, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def compiled(self) -> Path:
        return self.path / "xdg/bc_training/xla"

    def steps(self, folder: str) -> list[int]:
        return sorted(int(path.name) for path in self.path.glob(f"run/{folder}/*") if path.name.isdigit())

    def last_row(self) -> dict[str, Any]:
        """The last whole row of metrics.jsonl; of step 0 where there is none."""
        try:
            with open(self.path / "logs/run/metrics.jsonl", "rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - (1 << 14), 0))
                return json.loads(file.read().split(b"\n")[-2])
        except (OSError, IndexError):
            return {"kind": "", "step": 0}

    def phase(self, total: int, since: float) -> str:
        """What a training of ``total`` steps that was started at the time ``since`` does, by the files it has left."""
        started = _written(self.path / "logs/run/config.yaml")
        if started < since:
            return STARTING
        row, newest = self.last_row(), {folder: max(self.steps(folder), default=0) for folder in ("best", "last")}
        trains = _written(self.path / "logs/run/metrics.jsonl") > started  # not only an earlier start did
        signs = {
            CACHE: any(self.path.glob("cache/*.partial")),
            WRITING: not trains and any(_written(file) > since for file in self.compiled.glob("*.partial")),
            COMMIT: any(self.path.glob("run/*/.*-*")),
            BETWEEN: newest["best"] > newest["last"],
            END: row["kind"] == "val" and row["step"] == total,
            VALIDATION: trains and row["kind"] == "train" and row["step"] % (total // EPOCHS) == 0,
            TRAINING: trains,
        }
        return next((phase for phase, seen in signs.items() if seen), COMPILING)


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True)
class Reference:
    """The training that nothing disturbed.

    Attributes:
        total: steps.
        seconds: to its start, and from there through compiling.
    """

    case: Case
    contents: dict[str, Any]
    total: int
    seconds: dict[str, float]

    @classmethod
    def run(cls, path: Path) -> "Reference":
        path.mkdir()
        case, began = Case(path), time.time()
        if case.start().wait(STUCK) != 0:
            sys.exit((path / "output.txt").read_text(encoding="utf-8"))
        started = (path / "logs/run/config.yaml").stat().st_mtime
        compiled = max(file.stat().st_mtime for file in case.compiled.iterdir())
        seconds = {STARTING: started - began, COMPILING: compiled - started}
        return cls(case, contents(case), case.steps("last")[-1], seconds)


def kill_in(aim: str, case: Case, reference: Reference, rng: random.Random) -> str | None:
    """Starts a training and kills it in the phase ``aim``, or near it; returns what it was doing, None if it ended."""
    total, began, process = reference.total, time.time(), case.start()
    spread = reference.seconds | {CACHE: 0.05, COMMIT: 0.1, TRAINING: 0.02, VALIDATION: 0.05, END: 1.5}
    delay, from_step = rng.random() * spread.get(aim, 0.0), rng.randrange(total)
    while process.poll() is None and time.time() - began < STUCK:
        # These come again and again: the first after a step of its own is chosen.
        late_enough = aim not in (COMMIT, TRAINING, VALIDATION) or case.last_row()["step"] >= from_step
        if aim == STARTING or (late_enough and case.phase(total, began) == aim):
            time.sleep(delay)
            break
        time.sleep(0.0 if aim == WRITING else 0.002)  # that takes a millisecond
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return case.phase(total, began) if process.wait() == -signal.SIGKILL else None


def faults(case: Case) -> list[str]:
    """The checkpoints that are not whole."""
    found = []
    for step in (case.path / "run" / folder / str(n) for folder in ("best", "last") for n in case.steps(folder)):
        try:
            checkpoint.verify(step)
            checkpoint.read(step)
        except UserError as error:
            found.append(str(error))
        if not (step / checkpoint.CHECKSUMS).is_file():
            found.append(f"{step} has no checksums")
    return found


def contents(case: Case) -> dict[str, Any]:
    """Everything a training has left, by name, without what measures time."""
    logs = case.path / "logs/run"
    lines = (logs / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[str, Any] = {f"metrics.jsonl row {i}": _timeless(json.loads(line)) for i, line in enumerate(lines)}
    found["evaluation.json"] = json.loads((logs / "evaluation.json").read_text(encoding="utf-8"))
    found["config.yaml"] = (logs / "config.yaml").read_text(encoding="utf-8")
    found["steps in best/"] = case.steps("best")
    for folder in ("best", "last"):
        step = case.path / "run" / folder / str(case.steps(folder)[-1])
        found[f"{folder} step"] = step.name
        found[f"{folder} meta"] = _timeless(json.loads((step / "meta/metadata").read_text(encoding="utf-8")))
        for item in ("model", "optimizer"):
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
                tree = reader.restore(step / item)
            for path, leaf in jax.tree.leaves_with_path(tree):
                array = np.asarray(leaf)
                found[f"{folder} {item}{jax.tree_util.keystr(path)}"] = (array.dtype, array.shape, array.tobytes())
    return found


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _timeless(value) for key, value in tree.items() if key not in TIMINGS}
    return tree


def run_case(number: int, seed: int, folder: Path, reference: Reference) -> tuple[list[str], list[str]]:
    """Trains with kills to the end; returns what was killed, phase by phase, and what went wrong."""
    rng, case, aim = random.Random(f"{seed} {number}"), Case(folder / str(number)), TURNS[number % len(TURNS)]
    killed: list[str] = []
    while not killed:  # once more where the training ended before it was killed
        shutil.rmtree(case.path, ignore_errors=True)
        case.path.mkdir()
        if aim not in COLD:
            shutil.copytree(reference.case.compiled, case.compiled)
            case.compiled.chmod(0o700)
        phase = kill_in(aim, case, reference, rng)
        while phase is not None:
            killed.append(phase)
            if bad := faults(case):
                return killed, bad
            phase = kill_in(rng.choice(AGAIN), case, reference, rng) if rng.random() < KILLED_AGAIN else None
    process = case.start()
    try:
        code = process.wait(STUCK)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return killed, [f"stuck: not finished after {STUCK:.0f} s"]
    if code != 0:
        return killed, [f"exit code {code}: {(case.path / 'output.txt').read_text(encoding='utf-8')[-1000:]}"]
    found, wanted = contents(case), reference.contents
    differing = [key for key in wanted | found if wanted.get(key) != found.get(key)]
    differences = [f"{key}: {_short(found.get(key))}, undisturbed {_short(wanted.get(key))}" for key in differing]
    if not differences:
        shutil.rmtree(case.path)
    return killed, faults(case) + differences


def _short(value: Any) -> str:
    return value if len(value := repr(value)) <= 300 else f"{value[:300]}..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="trainings that are killed, each at least once")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    arguments = parser.parse_args()
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="kill_resume_"))
    subprocess.run([sys.executable, "-m", "BC_training", *RECORD], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    reference = Reference.run(folder / "undisturbed")
    print(f"undisturbed: {reference.total} steps in {EPOCHS} epochs", flush=True)
    phases: Counter[str] = Counter()
    identical = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda n: run_case(n, arguments.seed, folder, reference), range(arguments.kills))
        for n, (killed, wrong) in enumerate(results):
            phases.update(killed)
            identical += not wrong
            verdict = f"DIFFERS, kept in {folder / str(n)}" if wrong else "identical"
            print(f"{n + 1:4}  killed {', then '.join(killed)}: {verdict}", *wrong, sep="\n      ", flush=True)
    print()
    for phase in PHASES:
        print(f"{phase:28} {phases[phase]:4} kills")
    print(f"{'in all':28} {phases.total():4} kills in {time.monotonic() - began:.0f} s")
    print(f"{identical} of {arguments.kills} bit-identical")
    if identical < arguments.kills:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
