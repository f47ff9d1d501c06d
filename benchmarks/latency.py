"""How long ``Policy.act`` takes for a random frame, in milliseconds.

    uv run python benchmarks/latency.py BC_training/checkpoints/quickstart
    uv run python benchmarks/latency.py BC_training/checkpoints/quickstart --fps 17.5

With --fps it waits between frames as a game does, so that the cores slow down and the caches fill
with other things; without, one frame follows the other.
"""

import argparse
import time

import numpy as np

from BC_training.inference import Policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--fps", type=float, help="frames a second")
    parser.add_argument("--frames", type=int, default=300)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    for checkpoint in arguments.checkpoints:
        policy = Policy(checkpoint)
        frames = rng.integers(0, 256, (64, 3, *policy.inputs.recorded_size), dtype=np.uint8)
        state = np.zeros(len(policy.inputs.state_names), np.float32)
        times = []
        for i in range(30 + arguments.frames):
            start = time.perf_counter()
            policy.act(frames[i % 64], state)
            times.append(time.perf_counter() - start)
            if arguments.fps:
                time.sleep(max(0.0, 1 / arguments.fps - times[-1]))
        p50, p99 = np.percentile(times[30:], [50, 99]) * 1e3
        print(f"{checkpoint}: p50 {p50:.2f} ms, p99 {p99:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
