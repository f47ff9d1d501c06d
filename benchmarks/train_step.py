"""The training step beside PyTorch's, and what the training loop costs over its bare step.

    uv run python benchmarks/train_step.py --torch-python /path/to/venv/bin/python
    uv run python benchmarks/train_step.py --loop

With --torch-python, an interpreter that has PyTorch, the same nets, batch size and threads take
turns in JAX and in PyTorch, at two frame sizes, each in a process of its own. With --loop, training
epochs of the quickstart (it records the dataset first if that is missing) take turns with its bare
step on a batch that is already on the device.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import perf_counter, sleep

import jax
import numpy as np
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.runtime.devices import prepare_devices
from BC_training.train import train
from BC_training.training.train_state import init_state, make_optimizer, make_train_step, split_model

PEER = Path(__file__).with_name("torch_train_step.py")
CONFIGS = {"pure_cnn": "configs/pure_cnn_small.yaml", "resnet_policy": "configs/quickstart.yaml"}
BUTTONS = ("move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right")
Run = Callable[[int], float]  # of a number of steps; returns the seconds that they took


def inputs_of(config: Config) -> InputSpec:
    size = config.dataset.frame_size
    assert size is not None
    return InputSpec(BUTTONS, (), size, size, None, config.window())


def jax_step(config: Config, steps_per_dispatch: int = 1) -> Run:
    """Compiles the training step of ``config`` for one random batch that stays on the device."""
    inputs = inputs_of(config)
    model = split_model(config, inputs)
    optimizer, schedule = make_optimizer(config.training, 10_000)
    step = make_train_step(model, optimizer, schedule, np.ones(len(BUTTONS), np.float32), config)
    rng, shape = np.random.default_rng(0), (steps_per_dispatch, config.training.batch_size)
    batch = jax.device_put(
        {
            "frames": rng.integers(0, 256, (*shape, inputs.window.history, *inputs.frame_shape), dtype=np.uint8),
            "action": rng.random((*shape, len(BUTTONS))) < 0.3,
        }
    )
    state = init_state(model, optimizer)

    def run(steps: int) -> float:
        nonlocal state
        start = perf_counter()
        for _ in range(steps // steps_per_dispatch):
            state, metrics = step(state, (), batch)
        jax.block_until_ready((state, metrics))
        return perf_counter() - start

    run(3 * steps_per_dispatch)
    return run


def torch_step(python: str, config: Config, dtype: str = "float32", device: str = "cpu", compiled: bool = False) -> Run:
    """Starts ``torch_train_step.py`` with the same net; it ends when this process does."""
    options = {
        "model": vars(config.model),
        "frame_size": config.dataset.frame_size,
        "batch_size": config.training.batch_size,
        "dtype": dtype,
        "device": device,
        "compile": compiled,
        "threads": len(os.sched_getaffinity(0)),
    }
    process = subprocess.Popen(
        [python, PEER, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )

    def run(steps: int) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{steps}\n")
        return float(process.stdout.readline())

    run(1)
    return run


def in_turn(runs: dict[str, Run], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of each, by round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            sleep(0.5)  # the other's threads wait actively for a while (200 ms in PyTorch's OpenMP)
            seconds[name].append(run(steps) / steps)
    return seconds


def beside_torch(python: str, net: str, size: tuple[int, int], rounds: int, steps: int) -> str:
    config = load_config(CONFIGS[net], [f"dataset.frame_size=[{size[0]},{size[1]}]"])
    seconds = in_turn({"jax": jax_step(config), "torch": torch_step(python, config)}, rounds, steps)
    ratios = [theirs / ours for ours, theirs in zip(seconds["jax"], seconds["torch"], strict=True)]
    ours, theirs = (statistics.median(seconds[name]) * 1e3 for name in ("jax", "torch"))
    return (
        f"{net:14} {size[0]}x{size[1]:<4} JAX {ours:6.1f} ms, PyTorch {theirs:6.1f} ms: "
        f"JAX / PyTorch {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def training_epoch(config_file: str) -> float:
    """Frames per second of one epoch of a real training run, progress bar included."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as screen:
        overrides = [
            "training.num_epochs=1",
            f"training.checkpoint_dir={folder}/checkpoints",
            f"logging.log_dir={folder}/logs",
            "logging.run_name=benchmark",
            "logging.wandb.enabled=false",
            "evaluation.rollout=null",
        ]
        train(load_config(config_file, overrides), Console(file=screen, force_terminal=True))
        lines = Path(folder, "logs/benchmark/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return next(row["frames_per_second"] for row in map(json.loads, lines) if row["kind"] == "epoch")


def loop_beside_step(config_file: str, rounds: int, steps: int) -> None:
    """Compares each epoch with the bare steps just before and after it: the machine drifts."""
    config = load_config(config_file)
    run, frames = jax_step(config), steps * config.training.batch_size
    bare, epochs = [frames / run(steps)], []
    for _ in range(rounds):
        epochs.append(training_epoch(config_file))
        bare.append(frames / run(steps))
    ratios = [epoch / ((a + b) / 2) for epoch, a, b in zip(epochs, bare, bare[1:], strict=False)]
    print(f"bare step       {', '.join(f'{r:.1f}' for r in bare)} frames/s")
    print(f"training epochs {', '.join(f'{r:.1f}' for r in epochs)} frames/s")
    print(f"loop / bare     {statistics.median(ratios):.1%} (median of {', '.join(f'{r:.1%}' for r in ratios)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="an interpreter with PyTorch")
    parser.add_argument("--loop", action="store_true", help="compare training epochs with the bare step")
    parser.add_argument("--net", choices=CONFIGS, help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    parser.add_argument("--config", default="configs/quickstart.yaml", help="of --loop")
    parser.add_argument("--steps", type=int, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    device = prepare_devices(load_config(arguments.config).system)
    if not arguments.net:
        cores = len(os.sched_getaffinity(0))
        print(
            f"{platform.processor() or platform.machine()}, {cores} cores, {device}, jax {jax.__version__}", flush=True
        )
    if arguments.net:
        height, width = map(int, arguments.size.split("x"))
        print(beside_torch(arguments.torch_python, arguments.net, (height, width), arguments.rounds, arguments.steps))
    elif arguments.torch_python:
        for net, size in product(CONFIGS, ("72x128", "144x256")):
            subprocess.run([sys.executable, *sys.argv, "--net", net, "--size", size], check=True)
    if arguments.loop:
        loop_beside_step(arguments.config, arguments.rounds, 4 * arguments.steps)


if __name__ == "__main__":
    main()
