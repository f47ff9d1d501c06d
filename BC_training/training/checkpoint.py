"""Checkpoints: folders that are enough to play from, and to go on training from.

    <run>/best/<step>/    the best so far on the validation split
    <run>/last/<step>/    the last N
      model/          parameters and batch statistics to play with
      optimizer/      what else a training goes on from: optimizer state, step; with an average of
                      the parameters in model/, the parameters themselves
      meta/           JSON: config, inputs, decoding, split, metrics, progress
      checksums.json  SHA-256 of every file of these

``checkpoint_writer`` writes them. A step's folder that exists was written whole; checksums tell
whether it still is.
"""

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from BC_training.common import config as config_module
from BC_training.common.decode import DecodeSettings, Decoding
from BC_training.common.errors import UserError, first_line
from BC_training.common.files import as_path
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.training.orbax_path import orbax_path
from BC_training.training.train_state import SplitModel, TrainState, Tree, abstract_model

FORMAT_VERSION = 3
CHECKSUMS = "checksums.json"
NEXT_META = "next meta"  # in the checksums while the metadata is replaced, those of what it is replaced with
ITEMS = ("model", "optimizer", "meta")
_TYPES = {
    "step": int,
    "epoch": int,
    "config": dict,
    "split": dict,
    "majority": list,
    "metrics": dict,
}  # in the metadata
logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save


class NewerFormat(UserError):
    """A checkpoint of a later version of this program, which is not damaged for that."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder says of itself."""

    path: Path
    step: int
    epoch: int
    config: Config
    inputs: InputSpec
    decoding: Decoding
    split: dict[str, list[str]]  # "train", "val", "test" to episode names
    majority: list[bool]  # the training split's commonest combination of buttons
    metrics: dict[str, Any]
    fingerprint: str | None  # of the dataset; None in format 1
    progress: dict[str, Any] | None  # of ``progress.Progress``; None in format 1
    seeds: dict[str, list[Any]] = field(default_factory=dict)  # of ``seeds.recorded_seeds``; older ones do not say
    tuned_on: dict[str, Any] | None = None  # episodes (names) and fingerprint of what its thresholds were tuned on
    delivery: dict[str, Any] | None = None  # "backend", "cache", "steps_per_dispatch" that training had; None if older


def write_checksums(step: Path) -> None:
    (step / CHECKSUMS).write_text(json.dumps({item: _checksums(step / item) for item in ITEMS}, indent=1))


def verify(step: Path, items: tuple[str, ...] = ITEMS) -> None:
    """Raises a UserError if a file of ``items`` changed since it was written.

    A checkpoint of format 1 may have no checksums, and passes.
    """
    try:
        if not (step / CHECKSUMS).is_file():
            if json.loads((step / "meta/metadata").read_text())["format_version"] == 1:
                return
            raise UserError(f"{step} is a damaged checkpoint (it has no {CHECKSUMS}): use another step")
        saved = json.loads((step / CHECKSUMS).read_text())
        if unknown := saved.keys() - {*ITEMS, NEXT_META}:
            raise KeyError(*unknown)
        for item in items:
            if item == "meta" and item not in saved:  # format 1
                continue
            found = _checksums(step / item)
            if item == "meta" and found == saved.get(NEXT_META):
                continue
            changed = sorted(name for name, _ in dict(saved[item]).items() ^ found.items())
            if changed:
                raise UserError(f"{step} is a damaged checkpoint ({item}/{changed[0]} has changed): use another step")
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise UserError(f"{step} is a damaged checkpoint ({CHECKSUMS}: {error!r}): use another step") from error


def is_good(step: Path) -> bool:
    """Whether a checkpoint is there and unchanged."""
    try:
        verify(step)
    except UserError:
        return False
    return step.is_dir()


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its path in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def find(path: str | Path) -> Path:
    """The step folder that ``path`` means: a step folder, ``best`` or ``last``, or a run (its best).

    Raises:
        UserError: it is no checkpoint.
    """
    try:
        folder = as_path(path)
        for candidate in (folder, folder / "best", folder / "last"):
            if (candidate / "meta").is_dir() and (candidate / "model").is_dir():
                return candidate
            steps = [p for p in candidate.glob("*") if p.name.isdigit() and (p / "meta").is_dir()]
            if steps:
                return max(steps, key=lambda p: int(p.name))
        what = "is not a checkpoint" if folder.exists() else "does not exist"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    except TypeError:
        what = "is no path"
    raise UserError(
        f"{path} {what}: give a run's folder, such as BC_training/checkpoints/quickstart, or one of its steps"
    )


def read(path: str | Path) -> Checkpoint:
    """Reads what a checkpoint says of itself, without its arrays.

    Raises:
        UserError: no checkpoint, or damaged.
        NewerFormat: written by a newer version.
    """
    folder = find(path)
    try:
        meta = json.loads((folder / "meta/metadata").read_text())
        if meta["format_version"] > FORMAT_VERSION:
            raise NewerFormat(
                f"{folder} was written by a newer version of this program (format {meta['format_version']}, "
                f"this one reads {FORMAT_VERSION}): update it"
            )
        verify(folder, ("meta",))
        for key, kind in _TYPES.items():
            if not isinstance(meta[key], kind):
                raise TypeError(f"{key} is {str(meta[key])[:50]}")
        inputs = InputSpec.from_dict(meta["inputs"])
        return Checkpoint(
            path=folder,
            step=meta["step"],
            epoch=meta["epoch"],
            config=config_module.from_dict(meta["config"], str(folder)),
            inputs=inputs,
            decoding=_decoding(meta, inputs),
            split=meta["split"],
            majority=meta["majority"],
            metrics=meta["metrics"],
            fingerprint=meta.get("fingerprint"),
            progress=meta.get("progress"),
            seeds=meta.get("seeds", {}),
            tuned_on=meta.get("tuned_on"),
            delivery=meta.get("delivery"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{folder} is a damaged checkpoint (meta: {error!r}): use another step") from error


def _decoding(meta: dict[str, Any], inputs: InputSpec) -> Decoding:
    """Raises a ValueError for one that is not valid."""
    try:
        if "decoding" not in meta and "threshold" in meta:  # before format 3: one for all
            return DecodeSettings(meta["threshold"]).decoding(inputs.action_names)
        decoding = Decoding.from_dict(meta["decoding"])
    except UserError as error:
        raise ValueError(str(error)) from error
    if tuple(decoding.thresholds) != tuple(inputs.action_names):
        raise ValueError(f"it decodes {', '.join(decoding.thresholds)}")
    return decoding


def read_model(checkpoint: Checkpoint) -> SplitModel:
    """The model of a checkpoint with its saved parameters and batch statistics.

    Raises:
        UserError: the arrays are damaged or are another model's.
    """
    verify(checkpoint.path, ("model",))
    model = abstract_model(checkpoint.config, checkpoint.inputs)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # not where it was trained
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        {"params": model.params, "batch_stats": model.batch_stats},
    )
    saved = _restore(checkpoint.path, "model", target)
    return SplitModel(model.graphdef, saved["params"], saved["batch_stats"], checkpoint.inputs)


def state_items(state: TrainState) -> dict[str, Tree]:
    """What of a state each of a checkpoint's items holds."""
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    optimizer = {"opt_state": state.opt_state, "step": state.step}
    if state.ema is None:
        return {"model": trained, "optimizer": optimizer}
    return {"model": state.ema, "optimizer": optimizer | trained}


def read_state(step: Path, like: TrainState) -> TrainState:
    """The state that a checkpoint holds, as NumPy arrays.

    Args:
        like: of the same structure and shapes; its values do not matter.

    Raises:
        UserError: the arrays are damaged, or a state of other shapes.
    """
    target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state_items(like))
    saved = {item: _restore(step, item, target[item]) for item in target}
    for (path, wanted), found in zip(jax.tree.leaves_with_path(target), jax.tree.leaves(saved), strict=True):
        if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            name = jax.tree_util.keystr(path)
            raise UserError(f"{step}: {name} has shape {found.shape}, this model's has {wanted.shape}: use its own run")
    model, optimizer = saved["model"], saved["optimizer"]
    trained = model if like.ema is None else optimizer
    ema = None if like.ema is None else model
    return TrainState(optimizer["step"], trained["params"], trained["batch_stats"], optimizer["opt_state"], ema)


def alone() -> ocp.options.MultiprocessingOptions:
    """Has Orbax read and write in this process without waiting for others."""
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(this, active_processes={this}, barrier_sync_key_prefix=f"process-{this}")


def _restore(step: Path, item: str, target: Tree) -> Tree:
    options = alone()
    try:
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
        with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
            return checkpointer.restore(orbax_path(step / item), target)
    except Exception as error:  # Orbax raises all sorts, and bare ones
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # its other reads would each print theirs
        first = first_line(error)
        raise UserError(f"{step} is a damaged checkpoint ({item}: {first}): use another step") from error
