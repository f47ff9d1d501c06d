"""What a checkpoint predicts on recorded episodes."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import Progress

from BC_training.common import metrics
from BC_training.common.dataset import SPLITS, ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.common.decoder import decode_episodes
from BC_training.common.errors import UserError, unknown
from BC_training.data.loader import Batch, make_tier
from BC_training.data.samples import Samples, batches_in_order
from BC_training.evaluation import diagnose
from BC_training.evaluation.trained_data import episodes_are, holds_training, open_dataset
from BC_training.runtime.compilation_cache import use_compilation_cache
from BC_training.runtime.sharding import one_device
from BC_training.training import checkpoint as checkpoints
from BC_training.training.train_state import make_predict


class Batches(Protocol):
    """What ``predict_logits`` needs of a tier."""

    @property
    def mesh(self) -> Mesh: ...

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]: ...


def predict_logits(predict: Callable[[Batch], jax.Array], tier: Batches, samples: int, batch_size: int) -> np.ndarray:
    """float32 [samples, A], the logits of every sample of ``tier`` in order."""
    order = batches_in_order(samples, batch_size, tier.mesh.size)
    logits = [np.asarray(predict(batch)) for batch in tier.batches(order)]
    return np.concatenate(logits)[:samples]


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """What a checkpoint predicts on a split.

    Attributes:
        saved: the checkpoint.
        dataset: with its labels loaded.
        split: its name.
        episodes: the split's, positions in ``dataset.episodes``.
        chosen_here: what was chosen by how it does on some of them: "parameters", "checkpoint", "thresholds".
        samples: theirs, N; ``samples.targets`` is bool [N, A], what was to be predicted.
        logits: float32 [N, A], of each button of each sample, in order.
        ablated: likewise, with a part of the input taken away, by the name of ``diagnose.ablations``.
    """

    saved: checkpoints.Checkpoint
    dataset: ZarrGameplayDataset
    split: str
    episodes: list[int]
    chosen_here: tuple[str, ...]
    samples: Samples
    logits: np.ndarray
    ablated: dict[str, np.ndarray]

    @cached_property
    def probability(self) -> np.ndarray:
        """float32 [N, A]."""
        return np.asarray(jax.nn.sigmoid(self.logits))

    @property
    def title(self) -> str:
        return f"{self.saved.path} on {self.split} of {self.dataset.path}: {len(self.episodes)} episodes"

    @property
    def true(self) -> list[np.ndarray]:
        """The recorded buttons, one bool [N_i, A] an episode."""
        return [self.dataset.actions(episode) for episode in self.episodes]

    def pressed(self, decoding: Decoding, logits: np.ndarray) -> np.ndarray:
        """bool [N, A]: what a player would press that does not sample, by ``logits`` float32 [N, A]."""
        counts = metrics.target_counts(self.true, self.saved.inputs.window.action_shift)
        return decode_episodes(decoding, np.asarray(jax.nn.sigmoid(logits)), counts)


def predict_split(
    checkpoint: str | Path,
    console: Console,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    ablate: bool = False,
) -> SplitPredictions:
    """Predicts every frame of a split, with a progress bar; arguments and errors as ``evaluate``.

    Args:
        ablate: predict it again with each part of the input taken away.
    """
    use_compilation_cache()
    saved = checkpoints.read(checkpoint)
    model = checkpoints.read_model(saved)
    config = saved.config
    dataset = open_dataset(saved, data)
    dataset.load_labels()
    split = split or default_split(data)
    is_own = data is None or holds_training(dataset, saved)  # it may have grown
    if not is_own and str(data) != config.dataset.path and split != "all":
        raise UserError(
            f"{dataset.path} is not the dataset that {saved.path} was trained on, whose split '{split}' says nothing "
            "of it: use --split all"
        )
    episodes = _episodes(dataset, saved, split)
    samples = Samples(dataset, episodes, saved.inputs.window)
    predict = make_predict(model)
    with Progress(console=console, transient=True) as progress:
        options = dataclasses.replace(config.dataset, cache="none")
        tier = make_tier(options, samples, saved.inputs.frame_size, progress, one_device())
        sources: dict[str, Batches] = {"intact": tier}
        if ablate:
            sources |= diagnose.ablations(tier, samples)
        bar = progress.add_task("evaluating", total=len(samples) * len(sources))

        def counted(batch: Batch) -> jax.Array:
            progress.update(bar, advance=len(batch["frames"]))
            return predict(model.params, model.batch_stats, batch)

        size = config.evaluation.batch_size
        logits = {name: predict_logits(counted, source, len(samples), size) for name, source in sources.items()}
    chosen = _chosen_here(saved, dataset, episodes, is_own)
    return SplitPredictions(saved, dataset, split, episodes, chosen, samples, logits.pop("intact"), logits)


def default_split(data: str | Path | None) -> str:
    """The run's validation split; all of other data, of which that says nothing."""
    return "val" if data is None else "all"


def _chosen_here(
    saved: checkpoints.Checkpoint, dataset: ZarrGameplayDataset, episodes: list[int], is_own: bool
) -> tuple[str, ...]:
    """``SplitPredictions.chosen_here``; ``is_own`` is whether the dataset is that of the training."""
    names = {dataset.episodes[e].name for e in episodes}
    by_val = saved.config.evaluation.best_metric != "rollout" and saved.path.resolve().parent.name != "last"
    tuned = saved.tuned_on
    found = {
        "parameters": is_own and not names.isdisjoint(saved.split["train"]),
        "checkpoint": is_own and by_val and not names.isdisjoint(saved.split["val"]),
        "thresholds": tuned is not None
        and not names.isdisjoint(tuned.episodes)
        and episodes_are(dataset, set(tuned.episodes), tuned.fingerprint),
    }
    return tuple(what for what, is_here in found.items() if is_here)


def _episodes(dataset: ZarrGameplayDataset, saved: checkpoints.Checkpoint, split: str) -> list[int]:
    if split == "all":
        return list(range(len(dataset.episodes)))
    if split not in SPLITS:
        raise unknown("split", split, (*SPLITS, "all"))
    if not saved.split[split]:
        raise UserError(f"the run of {saved.path} has no episodes in split '{split}'")
    return dataset.find(saved.split[split])
