"""Small trainings for the tests of devices and signals; run as a script, in a process of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from BC_training import train as training
from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.data.loader import Tier
from BC_training.data.samples import Samples
from BC_training.runtime.interruption import Interrupted
from BC_training.training import checkpoint, setup

SMALL = [
    *("dataset.record=null", "dataset.frame_size=[24,32]", "dataset.split={train: 0.5, val: 0.5, test: 0.0}"),
    *("model.conv_features=[4,8]", "model.conv_strides=[2,2]", "model.dense_features=[16]"),
    *("training.num_epochs=2", "training.warmup_steps=4", "training.batch_size=16"),
    *("evaluation.rollout=null", "logging.log_every_steps=1", "logging.wandb.enabled=false"),
]


def settings(folder: Path | str, data: Path | str, *overrides: str) -> list[str]:
    """The settings of a training into ``folder``; later overrides win."""
    places = [f"dataset.path={data}", f"training.checkpoint_dir={folder}/c", f"logging.log_dir={folder}/l"]
    return [*SMALL, *places, *overrides]


def run(folder: Path | str, data: Path | str, *overrides: str) -> str:
    """Trains in this process and returns the printed text."""
    screen = StringIO()
    training.train(load_config("configs/pure_cnn.yaml", settings(folder, data, *overrides)), Console(file=screen))
    return screen.getvalue()


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the metrics file, without the columns that depend on the machine's speed."""
    lines = map(json.loads, (folder / "l/pure_cnn/metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in ("frames_per_second", "data_wait")} for row in lines]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder) if row["kind"] == "train"]


def final_state(folder: Path) -> dict[str, bytes]:
    """Every array of the last checkpoint, by its name: the model's and the optimizer's."""
    import orbax.checkpoint as ocp

    last = checkpoint.find(folder / "c/pure_cnn/last")
    found = {}
    for item in ("model", "optimizer"):
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore((last / item).resolve())
        for path, x in jax.tree.leaves_with_path(tree):
            found[item + jax.tree_util.keystr(path)] = np.asarray(x).tobytes()
    return found


def verify_all(folder: Path) -> list[int]:
    """Checks every checkpoint on the disk and returns the steps of the last ones."""
    run_dir = folder / "c/pure_cnn"
    for step in (*run_dir.glob("last/*"), *run_dir.glob("best/*")):
        checkpoint.verify(step)
        checkpoint.read(step)
    return sorted(int(path.name) for path in run_dir.glob("last/*"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(program: Sequence[str | Path], devices: int = 1) -> subprocess.Popen[str]:
    """Starts Python with simulated devices."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} if devices > 1 else {}
    env = os.environ | flags | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *map(str, program)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def results(process: subprocess.Popen[str], timeout: float = 300) -> list[dict[str, Any]]:
    """The answers that ``main`` printed in a process."""
    printed, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors
    return json.loads(printed.splitlines()[-1])


def trainings(runs: list[dict[str, Any]], devices: int = 1) -> list[dict[str, Any]]:
    """Runs ``main`` in a process with simulated devices."""
    return results(start([__file__, json.dumps(runs)], devices))


def main(runs: list[dict[str, Any]]) -> None:
    """Trains once for each of ``runs`` and prints a JSON list of the results.

    A run has "folder", "data", "overrides"; "devices", how many it uses, by default all; "stop_at",
    the dispatch before which the process sends itself SIGTERM. A result has "end", how the run
    ended; "asked", the samples of each step that the loader was asked for; "reached", the samples
    that a step got, found by their frames: a list for each device, by the place of its first.
    """
    make_tier, all_devices, answers = setup.make_tier, setup.all_devices, []
    for options in runs:
        spies: list[_Spy] = []  # on the frames of training, then of validation

        def spying_tier(*arguments: Any, spies=spies, options=options) -> Any:
            spies.append(_Spy(make_tier(*arguments), arguments[1], None if spies else options.get("stop_at")))
            return spies[-1]

        def some_devices(options=options) -> Mesh:
            every = all_devices()
            return Mesh(every.devices[: options.get("devices")], every.axis_names)

        setup.make_tier, setup.all_devices = spying_tier, some_devices
        try:
            run(options["folder"], options["data"], *options["overrides"])
            end = "finished"
        except (Interrupted, UserError) as error:
            end = f"{type(error).__name__}: {error}"
        # The first item is the one that the step is compiled for.
        asked, reached = (spies[0].asked[1:], spies[0].reached[1:]) if spies else ([], [])
        answers.append({"end": end, "asked": asked, "reached": reached})
    print(json.dumps(answers))


class _Spy:
    """A tier that notes the samples that it is asked for and those that reach the devices."""

    def __init__(self, tier: Tier, samples: Samples, stop_at: int | None):
        self._tier, self._stop_at, self._gather = tier, stop_at, jax.jit(tier.gather)
        self.asked: list[list[int]] = []
        self.reached: list[dict[str, list[int]]] = []
        episodes = [samples.dataset.frames(e, range(samples.dataset.episodes[e].length)) for e in samples.episodes]
        self._sample_of = {frame.tobytes(): i for i, frame in enumerate(np.concatenate(episodes))}
        assert len(self._sample_of) == len(samples)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tier, name)

    def items(self, order: Iterator[np.ndarray]) -> Iterator[Any]:
        for number, item in enumerate(self._tier.items(map(self._note, order))):
            if number == self._stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            frames = self._gather(self._tier.data, jax.tree.map(lambda x: x[0], item))["frames"]
            parts = {shard.index[0].start or 0: np.asarray(shard.data)[:, 0] for shard in frames.addressable_shards}
            self.reached.append({str(k): [self._sample_of[f.tobytes()] for f in part] for k, part in parts.items()})
            yield item

    def _note(self, samples: np.ndarray) -> np.ndarray:
        self.asked.append(samples[0].tolist())
        return samples


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
