"""Runs of models that nobody has trained, to predict and play with."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from BC_training.common.config import to_dict
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.training.checkpoint_writer import CheckpointWriter, lock_run
from BC_training.training.train_state import init_state, make_optimizer, split_model


def save_run(folder: Path, config: Config, inputs: InputSpec, **split: list[str]) -> Path:
    """Writes a run with one checkpoint, whose ``split`` has the episodes "train", "val" and "test"; its folder."""
    state = init_state(split_model(config, inputs), make_optimizer(config.training, 10)[0])
    meta = {"epoch": 1, "config": to_dict(config), "inputs": inputs.to_dict(), "threshold": 0.5}
    meta |= {"split": {"train": [], "val": [], "test": []} | split, "metrics": {}}
    with lock_run(folder), CheckpointWriter(folder, 1, Console(file=StringIO())) as writer:
        writer.save(state, meta | {"majority": [False] * len(inputs.action_names)}, is_best=True)
        writer.finish()
    return folder
