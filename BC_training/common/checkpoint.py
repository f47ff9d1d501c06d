"""Checkpoints: folders that are enough to play from, written by Orbax.

    <run>/best/<step>/    the best so far on the validation split
    <run>/last/<step>/    the last N
      model/      parameters and batch statistics
      optimizer/  optimizer state and step
      meta/       JSON: config, inputs, threshold, split, metrics

Orbax publishes a step's folder by renaming it, so one that exists is whole. It stores arrays
without a checksum, so ``checksums.json`` beside them holds one of each of their files.
"""

import hashlib
import itertools
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from BC_training.common import config as config_module
from BC_training.common.errors import UserError, disk_full_is_user_error
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.common.train_state import SplitModel, TrainState, Tree, abstract_model

FORMAT_VERSION = 1
_SPACE_MARGIN = 1.5  # bytes on disk for a byte of state, with metadata and some to spare
_CHECKSUMS = "checksums.json"
_ARRAYS = ("model", "optimizer")
_ITEMS = (*_ARRAYS, "meta")
logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder says of itself."""

    path: Path
    step: int
    epoch: int
    config: Config
    inputs: InputSpec
    threshold: float
    split: dict[str, list[str]]  # "train", "val", "test" to episode names
    majority: list[bool]  # the training split's commonest combination of buttons
    metrics: dict[str, Any]


def fresh_folders(config: Config) -> tuple[Path, Path, str | None]:
    """A run's empty checkpoint and log folders.

    Folders of an earlier run of that name are not touched but moved aside, both to the same new
    name, which is returned too (None if there were none).
    """
    name = config.logging.run_name
    assert name is not None, "load_config fills it in"
    folders = Path(config.training.checkpoint_dir) / name, Path(config.logging.log_dir) / name
    aside = None
    if any(folder.exists() for folder in folders):
        names = (f"{name}.{n}" for n in itertools.count(1))
        aside = next(n for n in names if not any(folder.with_name(n).exists() for folder in folders))
        for folder in folders:
            if folder.exists():
                folder.rename(folder.with_name(aside))
    for folder in folders:
        folder.mkdir(parents=True)
    return *folders, aside


class CheckpointWriter:
    """Keeps the last N checkpoints of a run and the best one.

    Args:
        run: the run's folder, ``<checkpoint_dir>/<run_name>``.
        keep_last: N.
    """

    def __init__(self, run: Path, keep_last: int):
        self._run = run
        self._last = _manager(run / "last", keep_last)
        self._best = _manager(run / "best", 1)
        self._best_score: float | None = None

    def save(self, state: TrainState, meta: dict[str, Any], score: float | None) -> bool:
        """Saves ``state``, also as the best so far if it is; returns whether.

        Args:
            meta: what ``Checkpoint`` reads back, JSON types.
            score: higher is better; None where it was not evaluated.

        Raises:
            UserError: the disk is full; the checkpoints before stay.
        """
        step = int(state.step)
        items = ocp.args.Composite(
            model=ocp.args.StandardSave({"params": state.params, "batch_stats": state.batch_stats}),  # pyright: ignore[reportCallIssue]
            optimizer=ocp.args.StandardSave({"opt_state": state.opt_state, "step": state.step}),  # pyright: ignore[reportCallIssue]
            meta=ocp.args.JsonSave({"format_version": FORMAT_VERSION, "step": step, **meta}),  # pyright: ignore[reportCallIssue]
        )
        is_best = score is not None and (self._best_score is None or score > self._best_score)
        managers = (self._best, self._last) if is_best else (self._last,)
        self._require_space(len(managers) * sum(x.nbytes for x in jax.tree.leaves(state)))
        with disk_full_is_user_error(self._run):
            for manager in managers:
                manager.save(step, args=items)
                manager.wait_until_finished()  # the next step donates the state's buffers
                _write_checksums(Path(manager.directory) / str(step))
        if is_best:
            self._best_score = score
        return is_best

    def _require_space(self, needed: int) -> None:
        """Orbax writes in threads that each print what went wrong: better not to begin."""
        free = shutil.disk_usage(self._run).free
        if free < needed * _SPACE_MARGIN:
            raise UserError(
                f"the disk that holds {self._run} is full ({free / 1e6:.0f} MB free, a checkpoint needs "
                f"{needed * _SPACE_MARGIN / 1e6:.0f} MB): free some space and run the same command again; "
                "the checkpoints before are kept"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._last.close()
        self._best.close()


def _manager(folder: Path, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    return ocp.CheckpointManager(folder.resolve(), options=options, item_names=_ITEMS)


def _write_checksums(step: Path) -> None:
    partial = step / f"{_CHECKSUMS}.partial"
    partial.write_text(json.dumps({item: _checksums(step / item) for item in _ARRAYS}, indent=1))
    partial.replace(step / _CHECKSUMS)


def _verify(step: Path, item: str) -> None:
    """Raises a UserError if a file of ``item``'s arrays changed since it was written.

    A checkpoint without checksums (its writer was killed just before) passes.
    """
    if not (step / _CHECKSUMS).is_file():
        return
    try:
        saved = dict(json.loads((step / _CHECKSUMS).read_text())[item])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{step} is a damaged checkpoint ({_CHECKSUMS}: {error!r}): use another step") from error
    changed = sorted(name for name, _ in saved.items() ^ _checksums(step / item).items())
    if changed:
        raise UserError(f"{step} is a damaged checkpoint ({item}/{changed[0]} has changed): use another step")


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its path in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def find(path: str | Path) -> Path:
    """The step folder that ``path`` means: a step folder, ``best`` or ``last``, or a run (its best).

    Raises:
        UserError: it is no checkpoint.
    """
    folder = Path(path)
    for candidate in (folder, folder / "best", folder / "last"):
        if (candidate / "meta").is_dir() and (candidate / "model").is_dir():
            return candidate
        steps = [p for p in candidate.glob("*") if p.name.isdigit() and (p / "meta").is_dir()]
        if steps:
            return max(steps, key=lambda p: int(p.name))
    what = "is not a checkpoint" if folder.exists() else "does not exist"
    raise UserError(
        f"{path} {what}: give a run's folder, such as BC_training/checkpoints/quickstart, or one of its steps"
    )


def read(path: str | Path) -> Checkpoint:
    """Reads what a checkpoint says of itself, without its arrays.

    Raises:
        UserError: no checkpoint, damaged, or written by a newer version.
    """
    folder = find(path)
    try:
        meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore((folder / "meta").resolve())
        if meta["format_version"] > FORMAT_VERSION:
            raise UserError(
                f"{folder} was written by a newer version of this program (format {meta['format_version']}, "
                f"this one reads {FORMAT_VERSION}): update it"
            )
        return Checkpoint(
            path=folder,
            step=meta["step"],
            epoch=meta["epoch"],
            config=config_module.from_dict(meta["config"], str(folder)),
            inputs=InputSpec.from_dict(meta["inputs"]),
            threshold=meta["threshold"],
            split=meta["split"],
            majority=meta["majority"],
            metrics=meta["metrics"],
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{folder} is a damaged checkpoint (meta: {error!r}): use another step") from error


def read_model(checkpoint: Checkpoint) -> SplitModel:
    """The model of a checkpoint with its saved parameters and batch statistics.

    Raises:
        UserError: the arrays are damaged or are another model's.
    """
    _verify(checkpoint.path, "model")
    model = abstract_model(checkpoint.config, checkpoint.inputs)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # not where it was trained
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        {"params": model.params, "batch_stats": model.batch_stats},
    )
    try:
        saved: Tree = ocp.StandardCheckpointer().restore((checkpoint.path / "model").resolve(), target)
    except Exception as error:  # Orbax raises all sorts, and bare ones
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # its other reads would each print theirs
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        raise UserError(f"{checkpoint.path} is a damaged checkpoint (model: {first}): use another step") from error
    return SplitModel(model.graphdef, saved["params"], saved["batch_stats"])
