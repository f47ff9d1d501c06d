"""Synthetic datasets and small configurations that the tests share.

Datasets are written here with zarr-python alone, not with the package's own writer, so that
a test of the reader does not lean on the writer.
"""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Tests compile more than they compute: without LLVM's optimizations they take half as long.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_experimental_ynn_fusion_type=")

import jax
import numpy as np
import pytest
import zarr
from hypothesis import settings
from jaxtyping import install_import_hook
from numcodecs import Blosc
from zarr.codecs import Crc32cCodec, ZstdCodec

# Checks the shapes and dtypes in the signatures of these modules, which must not be imported yet.
CHECKED = (
    "data",
    "models",
    "common.preprocess",
    "common.state",
    "common.decoder",
    "training.losses",
    "training.train_state",
)
install_import_hook([f"BC_training.{name}" for name in CHECKED], "beartype.beartype")

from BC_training.common.preprocess import InputSpec  # noqa: E402
from BC_training.common.schema import Config, DatasetConfig, TrainingConfig  # noqa: E402
from BC_training.common.settings.evaluation import EvaluationConfig  # noqa: E402
from BC_training.models.pure_cnn.model import Config as PureCNNConfig  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the caches of all tests, and of the processes they start, out of the user's home.

    The workers of one run share them, so that what one has compiled the others need not.
    """
    if not hasattr(config, "workerinput"):  # workers start with the environment of the process that starts them
        # Without bytecode each process that a test starts compiles 2,400 modules: seconds.
        if os.environ.pop("PYTHONDONTWRITEBYTECODE", None) and config.cache is not None:
            os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))
        here = Path(__file__).parent  # processes that tests start import helpers and tests, too
        paths = [str(here.parent), str(here / "helpers"), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        os.environ["XDG_CACHE_HOME"] = folder = tempfile.mkdtemp(prefix="bc_training_tests_")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@dataclass(frozen=True)
class WrittenEpisode:
    """What ``make_dataset`` wrote.

    Frames as stored, uint8 [N, 3, H, W]; bool [N, A]; float32 [N, S]; float32 [N, X].
    """

    frames: np.ndarray
    actions: np.ndarray
    state: np.ndarray | None
    axes: np.ndarray | None


def _make_dataset(
    path: Path,
    lengths: Sequence[int],
    *,
    size: tuple[int, int] = (24, 32),
    actions: int = 7,
    state: int = 3,
    axes: int = 0,
    zarr_format: int = 3,
    numbers: Sequence[int] | None = None,
    fps: float | None = 17.0,
    seed: int = 0,
    write_empty_chunks: bool = True,
    root_attributes: dict[str, Any] | None = None,
    rows: Sequence[np.ndarray] | None = None,
) -> list[WrittenEpisode]:
    """Writes a dataset of random frames, actions and state, and returns what it wrote.

    Args:
        lengths: frames of each episode.
        size: (H, W) in pixels.
        actions: A, named a0, a1, ...; 0 leaves the arrays out.
        state: S, named s0, s1, ...; likewise.
        axes: X, named x0, x1, ...; likewise. Half of their amounts are 0.
        zarr_format: 3 as this program writes it; 2 as older datasets are, with Blosc, one row a
            chunk, and no "format" attribute.
        numbers: the episodes' numbers; by default 0, 1, ...
        write_empty_chunks: False leaves out chunks of zeros, as some writers do.
        root_attributes: replaces the root group's attributes; a value of None removes one.
        rows: the actions of each episode, bool [N, A], instead of random ones.
    """
    rng = np.random.default_rng(seed)
    attributes: dict[str, Any] = {
        "keys": [f"a{i}" for i in range(actions)],
        "attributes": [f"s{i}" for i in range(state)],
    }
    if axes:
        attributes["axes"] = [f"x{i}" for i in range(axes)]
    if zarr_format == 3:
        attributes |= {"format": "framewise", "version": 1}
    attributes |= root_attributes or {}
    root = zarr.create_group(path, zarr_format=zarr_format)
    root.attrs.update({k: v for k, v in attributes.items() if v is not None})
    written = []
    for i, (number, length) in enumerate(zip(numbers or range(len(lengths)), lengths, strict=True)):
        arrays = {
            # Noise, of another colour in each frame, so that averages tell frames apart.
            "frames": rng.integers(0, 128, (length, 3, *size), np.uint8)
            + rng.integers(0, 129, (length, 3, 1, 1), np.uint8),
            "actions": rng.random((length, actions)) < 0.3 if rows is None else np.asarray(rows[i], bool),
        }
        if axes:
            moves = rng.random((length, axes)) < 0.5
            arrays["axes"] = (moves * rng.normal(size=(length, axes))).astype(np.float32)
        if state:
            arrays["state"] = rng.normal(size=(length, state)).astype(np.float32)
        group = root.create_group(f"episode_{number}")
        group.attrs.update({"frame_count": length} | ({} if fps is None else {"fps": fps}))
        for name, array in arrays.items():
            if not array.shape[1]:
                continue
            _write_array(group, name, array, zarr_format, write_empty_chunks)
        written.append(WrittenEpisode(*map(arrays.get, ("frames", "actions", "state", "axes"))))
    return written


def _write_array(
    group: zarr.Group, name: str, array: np.ndarray, zarr_format: int = 3, write_empty_chunks: bool = True
) -> None:
    """Writes one array, replacing one that is there."""
    rows = 1 if name == "frames" or zarr_format == 2 else max(len(array), 1)
    stored = group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(rows, *array.shape[1:]),
        compressors=Blosc() if zarr_format == 2 else [ZstdCodec(level=1), Crc32cCodec()],
        config={"write_empty_chunks": write_empty_chunks},
        overwrite=True,
    )
    if len(array):
        stored[:] = array


# Tests of games and windows whose packages are extras, which `.ci/run` installs.
# X11 and stable-retro are on Linux alone.
_X11 = (
    "play/human",
    "play/live/test_doctor.py",
    "play/live/test_play.py",
    "play/live/test_real_game.py",
    "play/live/test_recorder.py",
    "play/live/test_state.py",
    "games/window/test_x11.py",
    "games/window/test_game.py",
    "games/window/test_guard.py",
)
_EXTRAS = {
    "gym": ("ale_py", ("games/gym",)),
    "retro": ("stable_retro", ("games/retro",)),
    "owamcap": ("mcap", ("convert/owamcap",)),
    "scale": ("optuna", ("experiments/test_sweep.py",)),
    "window": ("Xlib", _X11),
}
_MISSING = {extra: paths for extra, (module, paths) in _EXTRAS.items() if importlib.util.find_spec(module) is None}
collect_ignore = [path for paths in _MISSING.values() for path in paths]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for extra, paths in _MISSING.items():
        for path in paths:
            terminalreporter.write_line(f"not run: tests/{path}; 'uv sync --extra {extra}' installs what it needs")


MakeDataset = Callable[..., list[WrittenEpisode]]


@pytest.fixture(scope="session")
def make_dataset() -> MakeDataset:
    """The function that writes a synthetic dataset: ``make_dataset(path, lengths, ...)``."""
    return _make_dataset


@pytest.fixture(scope="session")
def make_older_dataset() -> MakeDataset:
    """Writes a dataset as older recorders left them: zarr v2, 13 actions, 19 state values, 17.08 frames/s."""

    def make(path: Path, lengths: Sequence[int], **options: Any) -> list[WrittenEpisode]:
        return _make_dataset(path, lengths, **({"actions": 13, "state": 19, "zarr_format": 2, "fps": 17.08} | options))

    return make


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., InputSpec]:
    """Makes an ``InputSpec`` for small frames."""

    def make(
        actions: int = 3, frame_size: tuple[int, int] = (24, 32), recorded_size: tuple[int, int] = (24, 32)
    ) -> InputSpec:
        return InputSpec(tuple(f"a{i}" for i in range(actions)), (), recorded_size, frame_size, 17.0)

    return make


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """Makes a configuration of a PureCNN that compiles in seconds; ``model`` and ``training`` override fields."""

    def make(model: dict[str, Any] | None = None, training: dict[str, Any] | None = None) -> Config:
        small = {"conv_features": (4, 8), "conv_strides": (2, 2), "dense_features": (16,), "dropout": 0.0}
        return Config(
            dataset=DatasetConfig(path="unused"),
            model=PureCNNConfig(**({"name": "pure_cnn"} | small | (model or {}))),
            training=TrainingConfig(**(training or {})),
            evaluation=EvaluationConfig(best_metric="macro_f1"),  # as the set-up leaves it for buttons
        )

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole trainings and commands first: the longest files would be the last, on one worker."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
