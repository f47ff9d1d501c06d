"""Checkpoints: folders that are enough to play from, and to go on training from.

    <run>/best/<step>/    the best so far on the validation split
    <run>/last/<step>/    the last N
      model/          parameters and batch statistics to play with
      optimizer/      what else a training goes on from: optimizer state, step; with an average of
                      the parameters in model/, the parameters themselves
      meta/           JSON: ``CheckpointMeta``
      checksums.json  SHA-256 of every file of these
      decoding.json   how probabilities become buttons, with a checksum of its own: it may change afterwards

``checkpoint_writer`` writes them. A step's folder that exists was written whole; checksums tell whether it still is.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from BC_training.common import config as config_module
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError, first_line
from BC_training.common.files import as_path
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.training.decoding_file import TunedOn, read_decoding
from BC_training.training.progress import TrainingProgress
from BC_training.training.run_folder import orbax_path
from BC_training.training.train_state import SplitModel, TrainState, Tree, abstract_model

FORMAT_VERSION = 4
CHECKSUMS = "checksums.json"
ITEMS = ("model", "optimizer", "meta")
logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save


class NewerFormat(UserError):
    """A checkpoint of a later version of this program, which is not damaged for that."""


@dataclass(frozen=True)
class Delivery:
    """How batches reached the steps; a training that goes on the same way gets the same bits."""

    backend: str
    cache: str  # the tier
    steps_per_dispatch: int


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint holds beside its arrays and its decoding."""

    step: int
    epoch: int  # closed epochs
    config: Config
    inputs: InputSpec
    split: dict[str, list[str]]  # "train", "val" and "test" to episode names
    seeds: dict[str, list[Any]]  # as seeds.recorded_seeds returns them
    majority: list[bool]  # [A], the training split's commonest combination of buttons
    metrics: dict[str, Any]  # the row of the last epoch that ended, from tracking.log_epoch; empty before
    fingerprint: str  # identifies the dataset
    progress: TrainingProgress
    delivery: Delivery

    def to_dict(self) -> dict[str, Any]:
        typed = {name: getattr(self, name) for name in ("config", "progress", "delivery")}
        plain = {field.name: getattr(self, field.name) for field in fields(CheckpointMeta)}
        return plain | {name: asdict(value) for name, value in typed.items()} | {"inputs": self.inputs.to_dict()}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str) -> "CheckpointMeta":
        """Reads what ``to_dict`` returned, also by way of JSON; ``where`` names the config in errors.

        Raises:
            KeyError, TypeError, ValueError: a key is missing, or its value has another type.
            UserError: the config is not valid.
        """
        kinds = {"step": int, "epoch": int, "split": dict, "seeds": dict, "majority": list, "metrics": dict}
        for key, kind in kinds.items():
            if not isinstance(raw[key], kind):
                raise TypeError(f"{key} is {str(raw[key])[:50]}")
        return cls(
            **{key: raw[key] for key in kinds},
            config=config_module.from_dict(raw["config"], where),
            inputs=InputSpec.from_dict(raw["inputs"]),
            fingerprint=str(raw["fingerprint"]),
            progress=TrainingProgress(**raw["progress"]),
            delivery=Delivery(**raw["delivery"]),
        )


@dataclass(frozen=True)
class Checkpoint(CheckpointMeta):
    """A checkpoint, without its arrays. ``path`` is the step's folder; ``tuned_on`` is None for untuned thresholds."""

    path: Path
    decoding: Decoding
    tuned_on: TunedOn | None


def write_checksums(step: Path) -> None:
    (step / CHECKSUMS).write_text(
        json.dumps({item: _checksums(step / item) for item in ITEMS}, indent=1), encoding="utf-8"
    )


def verify(step: Path, items: tuple[str, ...] = ITEMS) -> None:
    """Raises a UserError if a file of ``items``, or the decoding, has changed since it was written."""
    try:
        if not (step / CHECKSUMS).is_file():
            raise UserError(f"{step} is a damaged checkpoint (it has no {CHECKSUMS}): use another step")
        saved = json.loads((step / CHECKSUMS).read_text(encoding="utf-8"))
        if unknown := saved.keys() - set(ITEMS):
            raise KeyError(*unknown)
        for item in items:
            changed = sorted(name for name, _ in dict(saved[item]).items() ^ _checksums(step / item).items())
            if changed:
                raise UserError(f"{step} is a damaged checkpoint ({item}/{changed[0]} has changed): use another step")
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise UserError(f"{step} is a damaged checkpoint ({CHECKSUMS}: {error!r}): use another step") from error
    read_decoding(step)


def is_good(step: Path) -> bool:
    """Whether a checkpoint is there and unchanged."""
    try:
        verify(step)
    except UserError:
        return False
    return True


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def find(path: str | Path) -> Path:
    """The step folder that ``path`` means: a step, ``best`` or ``last``, or a run (its best).

    Raises a UserError where it is none of these.
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
    """Reads a checkpoint without its arrays.

    Raises:
        UserError: no checkpoint, damaged, or written by an older version.
        NewerFormat: written by a newer version.
    """
    folder = find(path)
    try:
        meta = json.loads((folder / "meta/metadata").read_text(encoding="utf-8"))
        version = meta["format_version"]
        if version != FORMAT_VERSION:
            is_newer = version > FORMAT_VERSION
            age, remedy = ("a newer", "update it") if is_newer else ("an older", "train again")
            raise (NewerFormat if is_newer else UserError)(
                f"{folder} was written by {age} version of this program (format {version}, this one reads "
                f"{FORMAT_VERSION}): {remedy}"
            )
        verify(folder, ("meta",))
        saved = CheckpointMeta.from_dict(meta, str(folder))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{folder} is a damaged checkpoint (meta: {error!r}): use another step") from error
    decoding, tuned_on = read_decoding(folder)
    if tuple(decoding.thresholds) != tuple(saved.inputs.action_names):
        decoded = ", ".join(decoding.thresholds)
        raise UserError(f"{folder} is a damaged checkpoint (it decodes {decoded}): use another step")
    return Checkpoint(**vars(saved), path=folder, decoding=decoding, tuned_on=tuned_on)


def read_model(checkpoint: Checkpoint) -> SplitModel:
    """The model with its saved arrays; raises a UserError if they are damaged or another model's."""
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
    """The parts of a state that each of a checkpoint's items holds."""
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    optimizer = {"opt_state": state.opt_state, "step": state.step}
    if state.ema is None:
        return {"model": trained, "optimizer": optimizer}
    return {"model": state.ema, "optimizer": optimizer | trained}


def read_state(step: Path, like: TrainState) -> TrainState:
    """The state that a checkpoint holds, as NumPy arrays.

    Args:
        like: a state of the same structure and shapes; its values do not matter.

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


def local_only() -> ocp.options.MultiprocessingOptions:
    """Options with which Orbax does not wait for other processes."""
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(this, active_processes={this}, barrier_sync_key_prefix=f"process-{this}")


def _restore(step: Path, item: str, target: Tree) -> Tree:
    options = local_only()
    try:
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
        with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
            return checkpointer.restore(orbax_path(step / item), target)
    except Exception as error:  # Orbax raises many kinds, some without a message
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # its other reads would each print theirs
        first = first_line(error)
        raise UserError(f"{step} is a damaged checkpoint ({item}: {first}): use another step") from error
