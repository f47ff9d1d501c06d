"""Finds the dataset that a checkpoint was trained on."""

import shlex
from pathlib import Path

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.data.several_datasets import open_configured
from BC_training.training.checkpoint import Checkpoint
from BC_training.training.resume import fingerprint

Data = str | Path | tuple[str, ...] | None  # a dataset, or several; None for what a policy was trained on


def open_dataset(saved: Checkpoint, data: Data = None) -> ZarrGameplayDataset:
    """The dataset at ``data``, read as in the training; None for the one of the training.

    Raises:
        UserError: it does not load, has other buttons or, where the model sees them, other state values; or ``data`` is
            None and another dataset lies where that of the training was.
    """
    dataset, inputs = open_configured(saved.config.dataset, data), saved.inputs
    compared = [("actions", dataset.action_names, inputs.action_names), ("axes", dataset.axis_names, inputs.axis_names)]
    if inputs.window.state:
        compared.append(("state values", dataset.state_names, inputs.state_names))
    for what, theirs, ours in compared:
        if theirs != ours:
            has = f"{what} {', '.join(theirs) or 'none'}"
            raise UserError(f"{dataset.path} has {has}; {saved.path} was trained on {', '.join(ours) or 'none'}")
    is_one = len(saved.config.dataset.paths) == 1  # --data takes one
    this = f", or say that you mean this one with --data {shlex.quote(dataset.path)}" if is_one else ""
    if data is None and not holds_training(dataset, saved):
        raise UserError(
            f"{dataset.path} is not the dataset that {saved.path} was trained on, or its episodes have changed since: "
            f"restore that{this}"
        )
    return dataset


def holds_training(dataset: ZarrGameplayDataset, saved: Checkpoint) -> bool:
    """Whether a dataset holds the episodes of a training unchanged; it may hold others, too."""
    names = {name for episodes in saved.split.values() for name in episodes}
    return episodes_are(dataset, names, saved.fingerprint)


def episodes_are(dataset: ZarrGameplayDataset, names: set[str], expected: str) -> bool:
    """Whether a dataset has the episodes ``names``, and they have the fingerprint ``expected``."""
    positions = [i for i, episode in enumerate(dataset.episodes) if episode.name in names]
    return fingerprint(dataset, positions) == expected
