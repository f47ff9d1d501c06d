"""Checks that this machine can record, train and play; prints one line a check, with advice where it fails.

    uv run python BC_training/scripts/test_setup.py
    uv run python BC_training/scripts/test_setup.py --config configs/pure_cnn.yaml

Exit code 0 if everything required works, 1 if not.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

if __package__ in (None, ""):  # run as a file from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from BC_training.common.axes import AxisBins
from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.common.state import StateFeatures

PACKAGES = (
    *("jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "zarr"),
    *("omegaconf", "gymnasium", "vizdoom", "av", "wandb"),
)
INSTALL = "install the project: 'uv sync --group bc_training', or 'pip install .' in its folder"


class Optional(Exception):
    """A check found something missing that is not required."""


def packages(config: Config) -> str:
    del config
    missing, found = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        raise UserError(f"missing: {', '.join(missing)}; {INSTALL}")
    return ", ".join(found)


def devices(config: Config) -> str:
    from BC_training.runtime.devices import choose_device

    found = choose_device(config.system.device)
    if "cpu" in found.lower():
        raise Optional(f"{found}; no GPU is used. With an NVIDIA card: 'uv sync --group cuda'")
    return found


def dataset(config: Config) -> str:
    from BC_training.common.storage.store import absent
    from BC_training.data.several_datasets import open_configured
    from BC_training.training.setup import with_metric

    options = config.dataset
    if missing := absent(options.paths):
        path = missing[0]
        if options.record is None:
            raise UserError(f"{path} is missing; record it with 'record --out {path}' or set dataset.path")
        raise Optional(f"{path} is not there yet; training records it first ({options.record.episodes} episodes)")
    data = open_configured(options)
    with_metric(config, data)
    frame = data.frames(0, [0])
    return f"{data.path}: {len(data.episodes)} episodes, {len(data):,} frames of {frame.shape[2]}x{frame.shape[3]}"


def model(config: Config) -> str:
    from BC_training.training.train_state import abstract_model

    inputs = _inputs(config)
    count = abstract_model(config, inputs).parameter_count
    return f"{config.model.name}: {count:,} parameters at {inputs.frame_size[0]}x{inputs.frame_size[1]}"


def training_step(config: Config) -> str:
    import jax

    from BC_training.training.train_state import init_state, make_optimizer, make_train_step, split_model

    inputs = _inputs(config)
    net = split_model(config, inputs)
    optimizer, schedule = make_optimizer(config.training, 10 * config.training.gradient_accumulation)
    step = make_train_step(net, optimizer, schedule, np.ones(len(inputs.action_names), np.float32), config)
    batch = {name: x[None] for name, x in _random_batch(inputs).items()}
    _, metrics = step(init_state(net, optimizer, config.training.ema_decay is not None), (), jax.device_put(batch))
    loss = float(metrics.loss[0])
    if not np.isfinite(loss):
        raise UserError(f"the loss of one step is {loss}; reinstall jax and jaxlib of the same version")
    return f"loss {loss:.4f} on a batch of 4 random frames"


def _random_batch(inputs: InputSpec) -> dict[str, np.ndarray]:
    """Four samples of random frames and buttons, from an episode that is written and read."""
    from BC_training.common.action import Action
    from BC_training.common.dataset import ZarrGameplayDataset
    from BC_training.common.storage.writer import EpisodeWriter, Names, recording
    from BC_training.data.samples import Samples

    rng, length = np.random.default_rng(0), 4 + inputs.window.action_shift
    frames = rng.integers(0, 256, (length, *inputs.frame_shape), np.uint8)
    buttons = rng.random((length, len(inputs.action_names))) < 0.5
    axes = rng.uniform(-1, 1, (length, len(inputs.axis_names))).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.zarr"
        with recording(path, Names(inputs.action_names, inputs.axis_names, inputs.state_names)):
            writer = EpisodeWriter(path, 0)
            for frame, *action in zip(frames, buttons, axes, strict=True):
                writer.append(frame, Action(*action), np.ones(len(inputs.state_names), np.float32))
            writer.commit({"fps": 17.5})
        data = ZarrGameplayDataset(path)
        data.load_labels()
        samples, every = Samples(data, [0], inputs.window, inputs.axis_bins), np.arange(4)
        return {"frames": frames[samples.rows(every)], **samples.labels(every)}


def game(config: Config) -> str:
    from BC_training.games import make_game

    name = config.dataset.record.game if config.dataset.record else "doom/deadly_corridor"
    env = make_game(name)
    try:
        observation, _ = env.reset(seed=0)
        _, reward, *_ = env.step(env.action_space.sample())
    finally:
        env.close()
    return f"{name}: frame {observation['frame'].shape}, state {observation['state'].shape}, first reward {reward:.1f}"


def _inputs(config: Config) -> InputSpec:
    """The inputs of the dataset; where that is missing, the game's seven buttons and the config's settings."""
    from BC_training.common.storage.store import absent
    from BC_training.data.several_datasets import open_configured

    size = config.dataset.record.frame_size if config.dataset.record else (288, 512)
    buttons, names, axes = tuple(f"action_{i}" for i in range(7)), (), ()
    wanted = config.dataset.state if config.uses_state else None
    if not absent(config.dataset.paths):
        data = open_configured(config.dataset)
        size, buttons, names, axes = data.frame_size, data.action_names, data.state_names, data.axis_names
    elif wanted is not None:
        names = wanted.names
    state = None
    if wanted is not None:
        ones = np.ones((1, len(names)), np.float32)
        state = StateFeatures.fit(wanted, names, [("ones", ones)], ", ".join(config.dataset.paths))
    bins = AxisBins((1.0,) * len(axes), config.dataset.axis_bins, config.dataset.axis_mu) if axes else None
    seen = config.dataset.frame_size or size
    return InputSpec(buttons, names, size, seen, None, config.window(), state, axes, bins)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml", help="the config to check with")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config)
    except UserError as error:
        print(f"FAIL  config         {error}")
        return 1
    checks: tuple[Callable[[Config], str], ...] = (packages, devices, dataset, model, training_step, game)
    failed = 0
    for check in checks:
        try:
            mark, text = "ok  ", check(config)
        except Optional as note:
            mark, text = "note", str(note)
        except UserError as error:
            mark, text, failed = "FAIL", str(error), failed + 1
        except Exception as error:
            mark, text, failed = "FAIL", f"{type(error).__name__}: {error}; {INSTALL}", failed + 1
        print(f"{mark}  {check.__name__.replace('_', ' '):13}  {text}")
    print("ready" if not failed else f"{failed} of {len(checks)} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
