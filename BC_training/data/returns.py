"""Which training episodes are trained on, and how much, by their scores."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError, unknown
from BC_training.common.metrics import return_text
from BC_training.common.settings.returns import WeightByReturnConfig
from BC_training.common.settings.typed import as_user_errors
from BC_training.common.settings.yaml_values import parse, settle
from BC_training.common.storage.documents import finite

_HERE = "training.weight_by_return"
_LARGEST = 20.0  # of exp(z / t), as in Peng et al. 2019: a few lucky episodes are not all that is trained on


def weigh(
    options: WeightByReturnConfig | None, dataset: ZarrGameplayDataset, episodes: Sequence[int], console: Console
) -> tuple[WeightByReturnConfig | None, list[int], Float64[np.ndarray, " E"] | None]:
    """Prints what ``options`` make of the training ``episodes``, positions in ``dataset.episodes``.

    Returns:
        The options with the scores' digest, the episodes to train on, in their order, and the weight of each, a mean of
        1 over their labelled frames; None where all count the same.

    Raises:
        UserError: an episode has no score, or none that is finite; all are equal; the file of scores cannot be read.
    """
    if options is None:
        return None, list(episodes), None
    scores = _scores(options, dataset, episodes)
    if scores.min() == scores.max():
        raise UserError(
            f"{_HERE}: the scores of all {len(scores)} training episodes of {dataset.path} are "
            f"{return_text(scores[0])}, which tells none from another: set it null"
        )
    options = replace(options, digest=hashlib.sha256(scores.tobytes()).hexdigest()[:16])
    if options.top is not None:
        count = max(round(options.top * len(scores)), 1)
        best = np.sort(np.argsort(-scores, kind="stable")[:count])
        what = f"the best {count} of {len(scores)} training episodes are trained on, scores {_span(scores[best])}; "
        weights, episodes = None, [episodes[i] for i in best]
        what += f"all: {_span(scores)}"
    else:
        assert options.temperature is not None
        frames = np.array([dataset.episodes[e].is_labelled.sum() for e in episodes], np.float64)
        weights = advantage_weights(scores, options.temperature, frames)
        worth = (frames @ weights) ** 2 / (frames @ weights**2)  # the effective sample size
        what = (
            f"{len(scores)} training episodes, scores {_span(scores)}, have weights {weights.min():.2g} to "
            f"{weights.max():.2g}, as if {worth:,.0f} of their {frames.sum():,.0f} frames counted alike"
        )
    console.print(f"{_HERE}: {what}", soft_wrap=True, markup=False, highlight=False)
    return options, list(episodes), weights


def advantage_weights(
    scores: Float64[np.ndarray, " E"], temperature: float, frames: Float64[np.ndarray, " E"]
) -> Float64[np.ndarray, " E"]:
    """exp(z / temperature), at most 20, with a mean of 1 over all ``frames``; z are the scores, standardised.

    This is the weight of Peng et al. 2019, "Advantage-Weighted Regression", with a whole episode's return.
    """
    scores = scores / np.abs(scores).max()  # their squares stay finite
    z = (scores - scores.mean()) / scores.std()
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp(np.minimum(z, temperature * np.log(_LARGEST)) / temperature)
    return weights * (frames.sum() / (frames @ weights))


def _scores(
    options: WeightByReturnConfig, dataset: ZarrGameplayDataset, episodes: Sequence[int]
) -> Float64[np.ndarray, " E"]:
    given = {} if options.scores is None else _read(Path(options.scores))
    names = [info.name for info in dataset.episodes]
    for name in given:
        if name not in names:
            raise unknown("episode", name, names, f"{options.scores} gives it a score")
    found = []
    for info in (dataset.episodes[e] for e in episodes):
        raw = given.get(info.name, info.attrs.get("score"))
        if (score := finite(raw)) is None:
            lacks = "has no score" if raw is None else f"has the score {raw!r:.40}, which is no finite number"
            raise UserError(
                f"{dataset.path}/{info.name} {lacks}: write a line '{info.name}: SCORE' into a file, and name it by "
                f"{_HERE}.scores=FILE"
            )
        found.append(score)
    return np.array(found, np.float64)


def _read(file: Path) -> dict[str, object]:
    """A score for each of some episodes, as written."""
    with as_user_errors(f"{_HERE}.scores={file}"):
        raw = settle(parse(file.read_bytes()), dict[str, float])
        if not isinstance(raw, dict):
            raise ValueError("expected lines such as 'episode_0: 12.5'")
    return raw


def _span(scores: Float64[np.ndarray, " E"]) -> str:
    return f"{return_text(scores.min())} to {return_text(scores.max())}"
