"""Finds out whether a policy decides from what it sees or only repeats what is pressed (a copycat).

Buttons are held for many frames, so a policy that repeats them has a good offline score and plays badly (de Haan et
al., Causal Confusion in Imitation Learning, 2019; Wen et al., Fighting Copycat Agents in Behavioral Cloning from
Observation Histories, 2020). Scores where the buttons change show it, and scores without a part of the input.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from BC_training.common import metrics
from BC_training.common.action import Action
from BC_training.common.axes import RecordedAxes
from BC_training.data.loader import Batch, Tier
from BC_training.data.samples import Samples
from BC_training.evaluation.results import Diagnosis, Gain
from BC_training.play.intervals import resampled_means
from BC_training.runtime.sharding import split_along, to_devices

_UNINFORMED = ("shuffled_frames_and_state", "shuffled_frames")  # the first there is leaves nothing to decide from
_MIN_CHANGES = 100  # frames; fewer do not tell a difference from chance
_MIN_EPISODES = 10  # fewer do not show how much episodes differ, and frames are resampled instead
_RESAMPLES = 2000


@dataclass(frozen=True)
class Ablation:
    """A tier's batches, with a part of each sample's observation replaced."""

    tier: Tier
    samples: Samples
    source: np.ndarray  # int64 [N], the sample from which each sample gets the swapped parts
    swapped: tuple[str, ...] = ("frames",)
    cleared: tuple[str, ...] = ()  # parts that are 0: black frames, no button pressed

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]:
        """The batch for each array of samples [B], as ``Tier.batches``."""
        asked: deque[np.ndarray] = deque()  # the tier reads ahead

        def sources() -> Iterator[np.ndarray]:
            for samples in order:
                asked.append(samples)
                yield self.source[samples]

        for batch in self.tier.batches(sources()):
            own = self.samples.labels(asked.popleft())
            kept = {name: values for name, values in own.items() if name not in self.swapped}
            batch = {**batch, **to_devices(kept, split_along(self.tier.mesh, 0))}
            yield batch | {name: jnp.zeros_like(batch[name]) for name in self.cleared}


def ablations(tier: Tier, samples: Samples) -> dict[str, Ablation]:
    """The batches of ``samples``, each time without one part of the input.

    - "blank_frames": all frames are black;
    - "frozen_frames": each episode's first frame stands for all of it (of a takeover, its own first);
    - "shuffled_frames": each sample has the history of another, by one permutation of the split;
    - "shuffled_frames_and_state", for a model that sees the state: it has the other's state, too;
    - "no_previous_actions", for a model that sees those: none is pressed.
    """
    count, window = len(samples), samples.window
    own = np.arange(count)
    shuffled = np.random.default_rng(0).permutation(count)
    found = {
        "blank_frames": Ablation(tier, samples, np.zeros_like(own), cleared=("frames",)),
        "frozen_frames": Ablation(tier, samples, samples.first_of_stretch(own)),
        "shuffled_frames": Ablation(tier, samples, shuffled),
    }
    if window.state:
        observed = ("frames", "state", "since_change")
        found["shuffled_frames_and_state"] = Ablation(tier, samples, shuffled, observed)
    if window.action_history:
        found["no_previous_actions"] = Ablation(tier, samples, own, cleared=("previous_actions",))
    return found


def diagnose(
    true: Sequence[np.ndarray],
    predicted: Action,
    majority: np.ndarray,
    action_shift: int = 0,
    ablated: Mapping[str, Action] | None = None,
    axes: RecordedAxes | None = None,
) -> Diagnosis:
    """Finds out whether a policy does well only where nothing changes.

    It is a copycat if, in exact match,

    - on the frames whose action does not change, it is better than the majority baseline, and
    - on the frames whose action changes, it is not better than that baseline, or than itself with all that it observes
      shuffled (where ``ablated`` has that).

    Better means that the 95 % interval of the difference, by a paired percentile bootstrap of the episodes, or of the
    frames of fewer than 10 episodes, lies above 0.

    Args:
        true: the recorded buttons, one bool [N_i, A] an episode.
        predicted: N actions, for all episodes in a row, each without its first ``action_shift`` frames.
        majority: bool [A] or [N, A], the commonest combination of the training split; the baseline keeps axes at 0.
        ablated: predictions by the name of the ablation.
        axes: the recorded axes, of which at most one bin off is right; None without any.
    """
    ablated = ablated or {}
    actual, changed = metrics.targets(true, action_shift), metrics.change_frames(true, action_shift, axes)
    episode = np.repeat(np.arange(len(true)), metrics.target_counts(true, action_shift))

    def right(done: Action) -> np.ndarray:
        buttons = (done.buttons == actual).all(axis=1)
        return (buttons if axes is None else buttons & axes.right(done.axes)).astype(np.int64)

    still_axes = np.zeros((len(actual), 0 if axes is None else len(axes.names)), np.float32)
    policy, baseline = right(predicted), right(Action(np.broadcast_to(majority, actual.shape), still_axes))
    references = {"majority": baseline}
    if shuffled := next((name for name in _UNINFORMED if name in ablated), None):
        references[shuffled] = right(ablated[shuffled])
    still = ~changed
    gains = {"unchanged_over_majority": mean_gain((policy - baseline)[still], episode[still])}
    for name, reference in references.items():
        gains[f"changes_over_{name}"] = mean_gain((policy - reference)[changed], episode[changed])
    unchanged_match = float(policy[still].mean()) if still.any() else None
    if (changes := int(changed.sum())) < _MIN_CHANGES:
        reason = f"the action changes in {changes} frames: too few to tell a copycat, {_MIN_CHANGES} are needed"
        return Diagnosis(False, [reason], unchanged_match, gains)
    reasons = []
    for name, reference in references.items() if gains["unchanged_over_majority"].is_better else ():
        gain = gains[f"changes_over_{name}"]
        if gain.ci95 is not None and not gain.is_better:
            ours, theirs = policy[changed].mean(), reference[changed].mean()
            low, high = gain.ci95
            what = "the commonest combination" if name == "majority" else f"itself with {name.replace('_', ' ')}"
            reasons.append(
                f"where the action changes it is right in {ours:.1%} of the frames, {what} in {theirs:.1%} "
                f"(difference {ours - theirs:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})"
            )
    return Diagnosis(bool(reasons), reasons, unchanged_match, gains)


def mean_gain(values: np.ndarray, episode: np.ndarray) -> Gain:
    """The mean of paired differences ``values``, int64 [N] of -1, 0 and 1, in the episodes ``episode``, int64 [N]."""
    if not len(values):
        return Gain(None, None)
    units, unit = np.unique(episode, return_inverse=True)
    drawn, shares = len(units), np.full(len(units), 1 / len(units))
    totals, sizes = np.bincount(unit, values), np.bincount(unit)
    if len(units) < _MIN_EPISODES:  # draws frames, of which only the number with each value matters
        drawn, shares = len(values), np.bincount(values + 1, minlength=3) / len(values)
        totals, sizes = np.array([-1, 0, 1]), np.ones(3, np.int64)
    rng = np.random.default_rng(0)
    (means,) = resampled_means([totals], sizes, lambda count: rng.multinomial(drawn, shares, count), _RESAMPLES)
    low, high = np.percentile(means, [2.5, 97.5])
    return Gain(float(values.mean()), (float(low), float(high)))
