"""What saving a checkpoint costs a training, beside the same steps without one.

uv run python benchmarks/checkpoint.py [--rounds 12]

Trains configs/quickstart.yaml on its dataset, which must be there. Stretches of 20 steps alternate:
one with a save at its start, which is written while the steps run, and one without. The longer ones
are longer by a save's cost; an epoch pays it once (twice where the save is the best so far: that is
what is measured here).
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.data.loader import make_tier
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.progress import TrainingProgress
from BC_training.training.resume import Start
from BC_training.training.setup import Setup
from BC_training.training.tracking import training_progress

STEPS = 20  # of a stretch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds
    console = Console()
    overrides = ["dataset.cache=device", "dataset.record=null", "evaluation.rollout=null"]
    setup = Setup.build(load_config("configs/quickstart.yaml", overrides), console)
    with training_progress(console) as bars:
        tier = make_tier(setup.config.dataset, setup.train_samples, setup.inputs.frame_size, bars, setup.mesh)
    state = setup.initial_state(Start(None, TrainingProgress()), console)
    step = setup.compile_steps(state, tier, 1)[1]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder, CheckpointWriter(Path(folder), 2, console) as writer:
        for stretch in range(2 * rounds + 1):
            saves = stretch % 2 == 1
            items = [next(tier.items(iter([setup.order.batch(i)[None]]))) for i in range(STEPS)]
            jax.block_until_ready(state)
            start = perf_counter()
            if saves:
                writer.save(state, {}, is_best=True)
            for item in items:
                state, metrics = step(state, tier.data, item)
                np.asarray(metrics.loss)
            jax.block_until_ready(state)
            if stretch:  # the first warms up
                seconds[saves].append(perf_counter() - start)
            writer.finish()
    plain = statistics.median(seconds[False])
    cost = statistics.median(with_save - plain for with_save in seconds[True])
    epoch = plain / STEPS * setup.order.steps_per_epoch
    print(f"{STEPS} steps: {plain:.2f} s, with a save {plain + cost:.2f} s (medians of {rounds})")
    share = cost / epoch
    print(f"an epoch of {setup.order.steps_per_epoch} steps takes {epoch:.1f} s; saving it and the best {share:.2%}")


if __name__ == "__main__":
    main()
