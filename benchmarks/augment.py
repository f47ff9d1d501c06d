"""What augmentation costs a training step.

    uv run python benchmarks/augment.py

The quickstart's jitted step on a batch that is already on the device, without augmentation, with
every kind of it, and with each alone, in turn in one process: the machine drifts. Times are the
medians; CPU time is that of all threads, and less disturbed by other processes than wall time.
"""

import argparse
import os
import platform
import statistics
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import jax
import numpy as np

from BC_training.common.config import load_config
from BC_training.common.mirror import MirrorTable
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import AugmentationConfig, Config
from BC_training.data.augment import make_augment
from BC_training.training.train_state import init_state, make_optimizer, make_train_step, split_model

ACTIONS = ("move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right")
KINDS = {
    "crop": {"crop": 4},
    "brightness": {"brightness": 0.2},
    "contrast": {"contrast": 0.2},
    "saturation": {"saturation": 0.2},
    "hue": {"hue": 0.05},
    "flip": {"flip": 0.5},
    "jitter": {"temporal_jitter": 1},  # left out where there is no history
}


def stepper(config: Config, augmentation: AugmentationConfig | None) -> Callable[[], None]:
    """A function that takes one compiled step."""
    size = config.dataset.frame_size
    assert size is not None
    inputs = InputSpec(ACTIONS, (), size, size, None, config.window())
    model = split_model(config, inputs)
    optimizer, schedule = make_optimizer(config.training, 10_000)
    augment = make_augment(augmentation, inputs, MirrorTable(None, ACTIONS, (), "the benchmark"))
    step = make_train_step(model, optimizer, schedule, np.ones(len(ACTIONS), np.float32), config, augment=augment)
    rng, batch_size = np.random.default_rng(0), config.training.batch_size
    frames = rng.integers(0, 256, (1, batch_size, inputs.window.history, *inputs.frame_shape), dtype=np.uint8)
    batch = jax.device_put({"frames": frames, "action": rng.random((1, batch_size, len(ACTIONS))) < 0.3})
    state: Any = init_state(model, optimizer)

    def take() -> None:
        nonlocal state
        state, metrics = step(state, (), batch)
        jax.block_until_ready((state, metrics))

    take()
    return take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=40, help="steps of each kind")
    parser.add_argument("--each", action="store_true", help="each kind alone, too")
    parser.add_argument("overrides", nargs="*", help="settings such as dataset.history=4")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    kinds = {name: values for name, values in KINDS.items() if name != "jitter" or config.dataset.history > 1}
    settings = {"off": None, "all": AugmentationConfig(**{k: v for kind in kinds.values() for k, v in kind.items()})}
    if arguments.each:
        settings |= {name: AugmentationConfig(**values) for name, values in kinds.items()}
    steppers = {name: stepper(config, augmentation) for name, augmentation in settings.items()}

    wall: dict[str, list[float]] = {name: [] for name in steppers}
    cpu: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(arguments.rounds):
        for name, take in steppers.items():
            start, start_cpu = perf_counter(), process_time()
            take()
            wall[name].append(perf_counter() - start)
            cpu[name].append(process_time() - start_cpu)
    device = jax.devices()[0].device_kind
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, {device}, "
        f"jax {jax.__version__}; batch {config.training.batch_size}, history {config.dataset.history}, "
        f"frames {config.dataset.frame_size}"
    )
    for name in steppers:
        a, b = statistics.median(wall[name]), statistics.median(cpu[name])
        more, more_cpu = a / statistics.median(wall["off"]) - 1, b / statistics.median(cpu["off"]) - 1
        print(f"{name:10} {1e3 * a:7.1f} ms ({more:+6.1%})   CPU {1e3 * b:7.1f} ms ({more_cpu:+6.1%})")


if __name__ == "__main__":
    main()
