"""Runs of untrained models, to predict and play with."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.decode import DecodeSettings, Decoding
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config, DatasetConfig
from BC_training.models.pure_cnn.model import Config as PureCNNConfig
from BC_training.training.checkpoint import CheckpointMeta, Delivery, write_checksums
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.progress import TrainingProgress
from BC_training.training.resume import fingerprint
from BC_training.training.run_folder import lock_run
from BC_training.training.train_state import TrainState, init_state, make_optimizer, split_model

CONFIG = Config(DatasetConfig(path="unused"), PureCNNConfig(name="pure_cnn"))
INPUTS = InputSpec(("a0", "a1", "a2"), (), (24, 32), (24, 32), 17.0)


def meta_of(config: Config = CONFIG, inputs: InputSpec = INPUTS, **changes: Any) -> CheckpointMeta:
    """Metadata of a checkpoint after one epoch, with ``changes``."""
    fields: dict[str, Any] = {
        "step": 0,
        "epoch": 1,
        "split": {"train": [], "val": [], "test": []},
        "seeds": {},
        "majority": [False] * len(inputs.action_names),
        "metrics": {},
        "fingerprint": "0123456789abcdef",
        "progress": TrainingProgress(),
        "delivery": Delivery(jax.default_backend(), "none", 1),
    }
    return CheckpointMeta(config=config, inputs=inputs, **fields | changes)


def save(writer: CheckpointWriter, state: TrainState, is_best: bool = True, **changes: Any) -> None:
    """Has ``writer`` save a state of any arrays, with the metadata of ``meta_of``."""
    meta = meta_of(**{"step": int(state.step)} | changes)
    writer.save(state, meta, DecodeSettings().decoding(meta.inputs.action_names), is_best)


def save_run(
    folder: Path,
    config: Config,
    inputs: InputSpec,
    val: tuple[str, ...] = (),
    *,
    state: TrainState | None = None,
    decoding: Decoding | None = None,
    **changes: Any,
) -> Path:
    """Writes a run with one checkpoint, of an untrained model if there is no ``state``, and returns its folder.

    ``val`` are the episodes of the validation split; ``changes`` go to ``meta_of``.
    """
    if state is None:
        state = init_state(split_model(config, inputs), make_optimizer(config.training, 10)[0])
    changes = {"split": {"train": [], "val": list(val), "test": []}} | changes
    if Path(config.dataset.path).exists():
        dataset = ZarrGameplayDataset.from_config(config.dataset)
        dataset.load_labels()
        trained_on = [name for names in changes["split"].values() for name in names]
        changes = {"fingerprint": fingerprint(dataset, sorted(dataset.find(trained_on)))} | changes
    decoding = decoding or DecodeSettings().decoding(inputs.action_names)
    with lock_run(folder), CheckpointWriter(folder, 1, Console(file=StringIO())) as writer:
        writer.save(state, meta_of(config, inputs, step=int(state.step), **changes), decoding, is_best=True)
        writer.finish()
    return folder


def change_meta(step: Path, /, **changes: Any) -> None:
    """Changes the metadata of a checkpoint, and its checksum; a value of ... removes a key."""
    file = step / "meta" / "metadata"
    raw = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in raw.items() if v is not ...}))
    write_checksums(step)
