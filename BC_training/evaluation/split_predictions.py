"""Predicts recorded episodes with a checkpoint."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from BC_training.common import metrics
from BC_training.common.action import Action
from BC_training.common.axes import RecordedAxes
from BC_training.common.dataset import SPLITS, ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.common.decoder import decode_split
from BC_training.common.errors import UserError, unknown
from BC_training.data.loader import Tier, make_tier
from BC_training.data.order import batches_in_order
from BC_training.data.samples import Samples
from BC_training.evaluation import diagnose
from BC_training.evaluation.trained_data import Data, episodes_are, holds_training, open_dataset
from BC_training.runtime.compilation_cache import use_compilation_cache
from BC_training.runtime.sharding import one_device
from BC_training.training import checkpoint as checkpoints
from BC_training.training.train_state import make_predict


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """A checkpoint's predictions on a split."""

    saved: checkpoints.Checkpoint
    dataset: ZarrGameplayDataset
    split: str  # "train", "val", "test" or "all"
    episodes: list[int]  # positions in dataset.episodes
    chosen_here: tuple[str, ...]  # what was chosen by some of these: "parameters", "checkpoint", "thresholds"
    samples: Samples  # N; samples.targets is bool [N, A], the buttons to predict
    logits: np.ndarray  # float32 [N, L], as ``InputSpec.split_logits`` splits them
    ablated: dict[str, np.ndarray]  # logits without a part of the input, by the names of diagnose.ablations

    @cached_property
    def probability(self) -> np.ndarray:
        """float32 [N, A]; 0 where a button was not recorded."""
        return self._probability(self.saved.inputs.split_logits(self.logits)[0])

    @property
    def title(self) -> str:
        return f"{self.saved.path} on {self.split} of {self.dataset.path}: {len(self.episodes)} episodes"

    @property
    def true(self) -> list[np.ndarray]:
        """The recorded buttons, one bool [N_i, A] an episode, or of a takeover one each time."""
        return self.samples.recorded[0]

    @property
    def axes(self) -> RecordedAxes | None:
        """The recorded axes; None without any."""
        inputs = self.saved.inputs
        recorded, shift = self.samples.recorded[1], inputs.window.action_shift
        return metrics.recorded_axes(inputs.axis_names, inputs.axis_bins, recorded, shift)

    def decoded(self, decoding: Decoding, logits: np.ndarray) -> Action:
        """The N actions of a player without sampling, from ``logits`` float32 [N, L]."""
        inputs = self.saved.inputs
        counts = metrics.target_counts(self.true, inputs.window.action_shift)
        of_buttons, of_axes = inputs.split_logits(logits)
        return decode_split(decoding, self._probability(of_buttons), of_axes, inputs.axis_bins, counts)

    def _probability(self, logits: np.ndarray) -> np.ndarray:
        probability = np.asarray(jax.nn.sigmoid(logits))
        return probability if self.samples.known is None else probability * self.samples.known


def predict_split(
    checkpoint: str | Path,
    console: Console,
    *,
    data: Data = None,
    split: str | None = None,
    ablate: bool = False,
) -> SplitPredictions:
    """Predicts every labelled frame of a split, with ``ablate`` also without each part of the input.

    Arguments and errors are otherwise those of ``evaluate``.
    """
    use_compilation_cache()
    saved = checkpoints.read(checkpoint)
    model = checkpoints.read_model(saved)
    config = saved.config
    dataset = open_dataset(saved, data)
    dataset.load_labels()
    split = split or default_split(data)
    is_own = data is None or holds_training(dataset, saved)  # it may have grown
    if not is_own and config.dataset.path not in (data, str(data)) and split != "all":
        raise UserError(
            f"{dataset.path} is not the dataset that {saved.path} was trained on, whose split '{split}' does not cover "
            "it: use --split all"
        )
    episodes = _episodes(dataset, saved, split)
    samples = Samples(dataset, episodes, saved.inputs.window, saved.inputs.axis_bins)
    predict = make_predict(model)
    with Progress(console=console, transient=True) as progress:
        options = dataclasses.replace(config.dataset, cache="none")
        tier = make_tier(options, samples, saved.inputs.frame_size, progress, one_device())
        sources: dict[str, Tier | diagnose.Ablation] = {"intact": tier}
        if ablate:
            sources |= diagnose.ablations(tier, samples)
        bar = progress.add_task("evaluating", total=len(samples) * len(sources))
        logits = {}
        for name, source in sources.items():
            parts = []
            for batch in source.batches(batches_in_order(len(samples), config.evaluation.batch_size, 1)):
                progress.update(bar, advance=len(batch["frames"]))
                parts.append(np.asarray(predict(model.params, model.batch_stats, batch)))
            logits[name] = np.concatenate(parts)[: len(samples)]
    chosen = _chosen_here(saved, dataset, episodes, is_own)
    return SplitPredictions(saved, dataset, split, episodes, chosen, samples, logits.pop("intact"), logits)


def default_split(data: Data) -> str:
    """The run's validation split, or all episodes of other data, which the run's split does not cover."""
    return "val" if data is None else "all"


def _chosen_here(
    saved: checkpoints.Checkpoint, dataset: ZarrGameplayDataset, episodes: list[int], is_own: bool
) -> tuple[str, ...]:
    """``SplitPredictions.chosen_here``; ``is_own`` says whether the dataset is the one of the training."""
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
