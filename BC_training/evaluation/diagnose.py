"""Whether a policy decides from what it sees, or goes on with what is pressed (a copycat).

Buttons are held for many frames, so a policy that repeats them has a good offline score and plays
badly (de Haan et al., Causal Confusion in Imitation Learning, 2019; Wen et al., Fighting Copycat
Agents in Behavioral Cloning from Observation Histories, 2020). Two things show it: scores where
the buttons change, and scores of the same checkpoint with a part of its input taken away.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich import box
from rich.table import Table

from BC_training.common import metrics
from BC_training.common.metrics import Report, number
from BC_training.data.loader import Batch, Tier
from BC_training.data.samples import Samples
from BC_training.runtime.sharding import split_along, to_devices

SHOWN = ("exact_match", "change_match", "macro_f1", "onset_f1")  # of each ablation
_UNINFORMED = ("shuffled_frames_and_state", "shuffled_frames")  # the first there is leaves nothing to decide from
_MIN_CHANGES = 100  # frames; with fewer no difference can be told from chance
_MIN_EPISODES = 10  # with fewer, frames are resampled: so few episodes say too little of their spread
_RESAMPLES = 2000


@dataclass(frozen=True)
class Ablation:
    """A tier's batches, with a part of each sample's observation replaced.

    Attributes:
        source: int64 [N], the sample whose frames each sample is given.
        swapped: what of a batch comes from there.
        cleared: what of a batch is 0: black frames, no button pressed.
    """

    tier: Tier
    samples: Samples
    source: np.ndarray
    swapped: tuple[str, ...] = ("frames",)
    cleared: tuple[str, ...] = ()
    mesh: Mesh = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mesh", self.tier.mesh)

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]:
        """For each array of samples [B] their batch, as ``Tier.batches``."""
        asked: deque[np.ndarray] = deque()  # the tier reads ahead

        def sources() -> Iterator[np.ndarray]:
            for samples in order:
                asked.append(samples)
                yield self.source[samples]

        for batch in self.tier.batches(sources()):
            own = self.samples.labels(asked.popleft())
            kept = {name: values for name, values in own.items() if name not in self.swapped}
            batch = {**batch, **to_devices(kept, split_along(self.mesh, 0))}
            yield batch | {name: jnp.zeros_like(batch[name]) for name in self.cleared}


def ablations(tier: Tier, samples: Samples) -> dict[str, Ablation]:
    """What to take away from a model that sees ``samples``, one after the other.

    - "blank_frames": black ones;
    - "frozen_frames": each episode's first frame stands for all of it;
    - "shuffled_frames": each sample is given the history of another, drawn without replacement
      from the whole split, always the same;
    - "shuffled_frames_and_state", of a model that sees the state: that is the other's, too;
    - "no_previous_actions", of a model that sees those: none is pressed.

    All else stays as it was recorded.
    """
    count, window = len(samples), samples.window
    own = np.arange(count)
    shuffled = np.random.default_rng(0).permutation(count)
    found = {
        "blank_frames": Ablation(tier, samples, np.zeros_like(own), cleared=("frames",)),
        "frozen_frames": Ablation(tier, samples, samples.first_of_episode(own)),
        "shuffled_frames": Ablation(tier, samples, shuffled),
    }
    if window.state:
        observed = ("frames", "state", "since_change")
        found["shuffled_frames_and_state"] = Ablation(tier, samples, shuffled, observed)
    if window.action_history:
        found["no_previous_actions"] = Ablation(tier, samples, own, cleared=("previous_actions",))
    return found


def ablation_scores(
    true: Sequence[np.ndarray], ablated: Mapping[str, np.ndarray], action_names: Sequence[str], action_shift: int = 0
) -> Report:
    """The scores ``SHOWN`` of each ablation's predictions; arguments as ``diagnose``."""
    scores = {name: metrics.scores_at_changes(true, p, action_names, action_shift) for name, p in ablated.items()}
    return {name: {column: row[column] for column in SHOWN} for name, row in scores.items()}


def diagnose(
    true: Sequence[np.ndarray],
    predicted: np.ndarray,
    majority: np.ndarray,
    action_shift: int = 0,
    ablated: Mapping[str, np.ndarray] | None = None,
) -> Report:
    """Whether a policy does well only where nothing changes.

    It is a copycat if, in exact match,

    - on the frames whose buttons do not change, it is better than the majority baseline, and
    - on the frames whose buttons change, it is not better than that baseline, or than itself with
      all that it observes shuffled ("shuffled_frames", of a model that sees the state
      "shuffled_frames_and_state"), if ``ablated`` has it.

    Better means that the 95 % interval of the difference, by a paired percentile bootstrap, lies above
    0. Episodes are resampled; with fewer than 10 of them, frames.

    Args:
        true: the recorded buttons, one bool [N_i, A] an episode.
        predicted: bool [N, A], for all episodes in a row; of each the actions from
            ``action_shift`` on.
        majority: bool [A], the commonest combination of the training split.
        ablated: predictions as ``predicted`` by the name of the ablation.

    Returns:
        "copycat"; "reasons", sentences, empty if it is none, unless there are too few changes to tell;
        "unchanged_match", the exact match where nothing changes; "gains", the differences compared:
        "unchanged_over_majority", "changes_over_majority", "changes_over_<ablation>", each with
        "difference" and "ci95" [low, high], None where there is no such frame.
    """
    ablated = ablated or {}
    actual, changed = metrics.targets(true, action_shift), metrics.change_frames(true, action_shift)
    episode = np.repeat(np.arange(len(true)), [max(len(a) - action_shift, 0) for a in true])

    def right(pressed: np.ndarray) -> np.ndarray:
        return (pressed == actual).all(axis=1).astype(np.int64)

    policy, baseline = right(predicted), right(np.broadcast_to(majority, actual.shape))
    references = {"majority": baseline}
    if shuffled := next((name for name in _UNINFORMED if name in ablated), None):
        references[shuffled] = right(ablated[shuffled])
    still = ~changed
    gains = {"unchanged_over_majority": difference((policy - baseline)[still], episode[still])}
    for name, reference in references.items():
        gains[f"changes_over_{name}"] = difference((policy - reference)[changed], episode[changed])
    unchanged_match = float(policy[still].mean()) if still.any() else None
    known = {"unchanged_match": unchanged_match, "gains": gains}
    if (changes := int(changed.sum())) < _MIN_CHANGES:
        reason = f"the buttons change in {changes} frames: too few to tell a copycat, {_MIN_CHANGES} are needed"
        return {"copycat": False, "reasons": [reason], **known}
    reasons = []
    if _is_better(gains["unchanged_over_majority"]):
        for name, reference in references.items():
            if not _is_better(gain := gains[f"changes_over_{name}"]):
                ours, theirs = policy[changed].mean(), reference[changed].mean()
                low, high = gain["ci95"]
                what = "the commonest combination" if name == "majority" else f"itself with {_words(name)}"
                reasons.append(
                    f"where the buttons change it is right in {ours:.1%} of the frames, {what} in {theirs:.1%} "
                    f"(difference {ours - theirs:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})"
                )
    return {"copycat": bool(reasons), "reasons": reasons, **known}


def difference(values: np.ndarray, episode: np.ndarray) -> Report:
    """The mean of paired differences, with its interval.

    Args:
        values: int64 [N], each -1, 0 or 1.
        episode: int64 [N], which one each is of.

    Returns:
        "difference" and "ci95" [low, high]; both None for no values.
    """
    if not len(values):
        return {"difference": None, "ci95": None}
    rng = np.random.default_rng(0)
    units, unit = np.unique(episode, return_inverse=True)
    if len(units) >= _MIN_EPISODES:
        drawn = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), _RESAMPLES)
        sums, counts = np.bincount(unit, values), np.bincount(unit)
        means = (drawn @ sums) / (drawn @ counts)
    else:  # of frames, only how many of each value are drawn matters
        shares = np.bincount(values + 1, minlength=3) / len(values)
        means = rng.multinomial(len(values), shares, _RESAMPLES) @ np.array([-1, 0, 1]) / len(values)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"difference": float(values.mean()), "ci95": [float(low), float(high)]}


def _is_better(gain: Report) -> bool:
    return gain["ci95"] is not None and gain["ci95"][0] > 0


def _words(name: str) -> str:
    return name.replace("_", " ")


def ablation_table(values: Report) -> Table:
    """Scores of a report's ablations below those of the intact policy."""
    table = Table(title="The policy with a part of its input taken away", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for heading in ("exact match", "changes", "macro F1", "onset F1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in {"intact": values, **values["ablations"]}.items():
        table.add_row(_words(name), *(number(row[column]) for column in SHOWN))
    return table


def warning(values: Report) -> str | None:
    """What to say of a report's diagnosis; None where nothing is to be said."""
    found = values["diagnosis"]
    if not found["copycat"]:
        return None
    return (
        f"This policy seems to be a copycat, good only where nothing changes (right in "
        f"{found['unchanged_match']:.1%} of those frames): {'; and '.join(found['reasons'])}."
    )
