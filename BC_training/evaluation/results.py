"""The results of ``evaluate``, as ``evaluation.json`` stores them. None stands for a number that has no value."""

from dataclasses import dataclass

from BC_training.common.decode import Decoding
from BC_training.common.json_object import JsonObject


@dataclass(frozen=True)
class ButtonScores(JsonObject):
    """One button's scores, as ``metrics.scores`` defines them, in [0, 1]."""

    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    frequency: float | None
    predicted_frequency: float | None


@dataclass(frozen=True)
class AxisScores(JsonObject):
    """One axis's scores, as ``axes.RecordedAxes.scores`` defines them."""

    mean_absolute_error: float
    within_one_bin: float
    correlation: float | None
    direction: float | None
    zeros: float
    predicted_zeros: float


@dataclass(frozen=True)
class EventScores(JsonObject):
    """How many onsets or offsets are recorded and predicted, and how well they match."""

    recorded: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class EventPair(JsonObject):
    onset: EventScores
    offset: EventScores


@dataclass(frozen=True)
class AllEvents(EventPair):
    """The events of all buttons together, and of each."""

    per_action: dict[str, EventPair]


@dataclass(frozen=True)
class Events(JsonObject):
    """What ``events.event_scores`` returns."""

    tolerance: int  # frames by which a matched event may be early or late
    exact: AllEvents  # without tolerance
    within: AllEvents  # with it


@dataclass(frozen=True)
class AblationScores(JsonObject):
    """The main scores of a policy that lacks a part of its input."""

    exact_match: float | None
    change_match: float | None
    macro_f1: float | None
    onset_f1: float | None


@dataclass(frozen=True)
class Gain(JsonObject):
    """A mean difference in exact match and its 95 % interval (low, high); both None without a frame."""

    difference: float | None
    ci95: tuple[float, float] | None

    @property
    def is_better(self) -> bool:
        return self.ci95 is not None and self.ci95[0] > 0


@dataclass(frozen=True)
class Diagnosis(JsonObject):
    """What ``diagnose.diagnose`` finds."""

    copycat: bool
    reasons: list[str]  # why it is a copycat, or that there are too few changes to say
    unchanged_match: float | None  # the exact match where nothing changes
    gains: dict[str, Gain]  # "unchanged_over_majority", "changes_over_majority", "changes_over_<ablation>"


@dataclass(frozen=True)
class Scores(JsonObject):
    """The scores of a policy or of a baseline, as ``metrics.report`` defines them."""

    exact_match: float | None
    macro_f1: float | None
    per_action: dict[str, ButtonScores]
    per_axis: dict[str, AxisScores]
    l1: float | None
    l2: float | None
    kl: float | None
    change_match: float | None
    onset_f1: float | None
    events: Events


@dataclass(frozen=True)
class Evaluation(Scores):
    """A checkpoint's scores on a split.

    Attributes:
        frames: how many targets the split has.
        change_frames: those that differ from what was held in the frame before the one seen.
        baselines: "majority" and "repeat_previous".
        split: "train", "val", "test" or "all".
        chosen_here: what was chosen by these frames: "parameters", "checkpoint", "thresholds".
        before: scores with the thresholds that tuning replaced.
        test: scores of the test split.
    """

    decoding: Decoding
    frames: int
    change_frames: int
    baselines: dict[str, Scores]
    step: int
    split: str
    chosen_here: list[str]
    diagnosis: Diagnosis
    ablations: dict[str, AblationScores] | None = None
    before: "Evaluation | None" = None
    test: "Evaluation | None" = None

    @property
    def chosen_text(self) -> str:
        """A sentence, without its full stop, about what was chosen by these frames; or ""."""
        words = {"parameters": "trained on", "checkpoint": "chosen by", "thresholds": "given its thresholds by"}
        done = ", ".join(words[what] for what in self.chosen_here)
        return f"the policy was {done} these frames ({self.split}): expect less on others" if done else ""

    @property
    def warning(self) -> str:
        """A sentence on a policy that seems to be a copycat; or ""."""
        found = self.diagnosis
        if not found.copycat:
            return ""
        return (
            f"This policy seems to be a copycat, good only where nothing changes (right in "
            f"{found.unchanged_match:.1%} of those frames): {'; and '.join(found.reasons)}."
        )
