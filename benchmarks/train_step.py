"""What the training loop costs over its bare step, and that step beside PyTorch's.

    uv run python benchmarks/train_step.py
    uv run python benchmarks/train_step.py --torch-python /path/to/venv/bin/python

Runs the quickstart's training epochs (recording its dataset first if it is missing) and, in turn
with them in the same process, the same jitted step on a batch that is already on the device.
With --torch-python, an interpreter that has PyTorch, the same net, batch size and
threads follow in PyTorch, in alternation with the JAX step.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.train import train
from BC_training.training.train_state import init_state, make_optimizer, make_train_step, split_model

PEER = Path(__file__).with_name("torch_train_step.py")


def bare_step(config: Config, steps: int) -> float:
    """Frames per second of the jitted step on one batch that stays on the device."""
    size = config.dataset.frame_size
    assert size is not None
    actions = ("move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right")
    inputs = InputSpec(actions, (), size, size, None, config.window())
    model = split_model(config, inputs)
    optimizer, schedule = make_optimizer(config.training, 10_000)
    step = make_train_step(model, optimizer, schedule, np.ones(len(actions), np.float32), config)
    rng = np.random.default_rng(0)
    batch_size = config.training.batch_size
    batch = jax.device_put(
        {
            "frames": rng.integers(0, 256, (1, batch_size, inputs.window.history, *inputs.frame_shape), dtype=np.uint8),
            "action": rng.random((1, batch_size, len(actions))) < 0.3,
        }
    )
    state = init_state(model, optimizer)
    for _ in range(3):
        state, metrics = step(state, (), batch)
    jax.block_until_ready(metrics)
    start = perf_counter()
    for _ in range(steps):
        state, metrics = step(state, (), batch)
    jax.block_until_ready((state, metrics))
    return steps * batch_size / (perf_counter() - start)


def training_epoch(config_file: str) -> float:
    """Frames per second of one epoch of a real training run, progress bar included."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as screen:
        overrides = [
            "training.num_epochs=1",
            f"training.checkpoint_dir={folder}/checkpoints",
            f"logging.log_dir={folder}/logs",
            "logging.run_name=benchmark",
            "logging.wandb.enabled=false",
            "evaluation.rollout=null",
        ]
        train(load_config(config_file, overrides), Console(file=screen, force_terminal=True))
        lines = Path(folder, "logs/benchmark/metrics.jsonl").read_text().splitlines()
    return next(row["frames_per_second"] for row in map(json.loads, lines) if row["kind"] == "epoch")


def torch_step(python: str, dtype: str, config: Config, steps: int) -> float:
    """Frames per second of the same net in PyTorch, measured by ``torch_train_step.py``."""
    model, size = config.model, config.dataset.frame_size
    options = {
        "conv_features": model.conv_features,
        "conv_strides": model.conv_strides,
        "dense_features": model.dense_features,
        "dropout": model.dropout,
        "frame_size": size,
        "batch_size": config.training.batch_size,
        "steps": steps,
        "dtype": dtype,
        "threads": len(os.sched_getaffinity(0)),
    }
    run = subprocess.run([python, PEER, json.dumps(options)], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)["frames_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--steps", type=int, default=40, help="of each bare measurement")
    parser.add_argument("--rounds", type=int, default=4, help="epochs and bare measurements in turn")
    parser.add_argument("--torch-python", help="an interpreter with PyTorch")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, jax {jax.__version__}")

    # Each epoch is compared with the bare steps just before and after it: the machine drifts.
    bare, epochs = [bare_step(config, arguments.steps)], []
    for _ in range(arguments.rounds):
        epochs.append(training_epoch(arguments.config))
        bare.append(bare_step(config, arguments.steps))
    ratios = [epoch / ((a + b) / 2) for epoch, a, b in zip(epochs, bare, bare[1:], strict=False)]
    print(f"bare step       {', '.join(f'{r:.1f}' for r in bare)} frames/s")
    print(f"training epochs {', '.join(f'{r:.1f}' for r in epochs)} frames/s")
    print(f"loop / bare     {statistics.median(ratios):.1%} (median of {', '.join(f'{r:.1%}' for r in ratios)})")

    if arguments.torch_python:
        for dtype in ("float32", "bfloat16"):
            ours, theirs = [], []
            for _ in range(3):
                ours.append(bare_step(config, arguments.steps))
                theirs.append(torch_step(arguments.torch_python, dtype, config, arguments.steps))
            jax_rate, torch_rate = statistics.median(ours), statistics.median(theirs)
            print(
                f"PyTorch {dtype:9} {torch_rate:6.1f} frames/s, JAX float32 {jax_rate:6.1f}: "
                f"JAX / PyTorch {jax_rate / torch_rate:.2f}"
            )


if __name__ == "__main__":
    main()
