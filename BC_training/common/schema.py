"""The sections of a configuration and their defaults; each checks its own values."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from BC_training.common.errors import UserError, require, require_at_least
from BC_training.common.files import expand_fields
from BC_training.common.preprocess import Window
from BC_training.common.settings.dataset_path import one_or_several
from BC_training.common.settings.evaluation import SEEDS, EvaluationConfig
from BC_training.common.settings.finetune import FinetuneConfig
from BC_training.common.settings.logging import LoggingConfig
from BC_training.common.settings.returns import WeightByReturnConfig
from BC_training.common.settings.rules import FREE, NEVER, ON_REQUEST, setting
from BC_training.common.settings.state import StateConfig
from BC_training.common.settings.system import SystemConfig

HUMAN = "human"  # the player who sits before a window


@dataclass(frozen=True)
class RecordConfig:
    """How to record a dataset that is missing."""

    game: str  # its spec, such as doom/deadly_corridor?skill=5
    player: str = "expert"  # human: a person, in a window
    episodes: int = 40
    seed: int = 10_000  # first episode's seed; away from 0, where rollouts start
    frame_size: tuple[int, int] = (288, 512)  # H, W
    noise: float = 0.0  # chance a frame that a burst of one random action starts
    noise_frames: int = 6  # length of such a burst
    # who labels the frames that the player reaches; null: the player; human: a person, who takes over from the player
    label: str | None = None
    mix: float = 0.0  # chance a frame that this is executed in place of what the player presses
    video: bool = False  # keep the frames as H.264 (an eighth of the size, with some loss), not losslessly

    def __post_init__(self) -> None:
        expand_fields(self, "dataset.record", "player", "label")  # these may be checkpoints
        require_at_least(1, self, "dataset.record", "episodes", "noise_frames")
        possible = 0 <= self.seed <= SEEDS - self.episodes
        require(possible, "dataset.record.seed", self.seed, "0 or more, the last one below 2^32")
        require(min(self.frame_size) >= 8, "dataset.record.frame_size", self.frame_size, "sides of 8 or more")
        require(0 <= self.noise <= 1, "dataset.record.noise", self.noise, "0 to 1")
        require(0 <= self.mix <= 1, "dataset.record.mix", self.mix, "0 to 1")
        if self.mix > 0 and self.label is None:
            raise UserError(f"config: dataset.record.mix={self.mix} mixes in the actions of nobody: set label, too")
        if self.player == HUMAN != self.labeller:
            raise UserError(f"config: dataset.record.label={self.label}: a person labels their own play: leave it out")
        if self.by_person and (self.noise or self.mix):
            raise UserError("config: dataset.record.noise and mix are for programs that play, a person has none: set 0")

    @property
    def by_person(self) -> bool:
        """Whether a person plays, alone or by taking over."""
        return self.labeller == HUMAN

    @property
    def is_takeover(self) -> bool:
        """Whether a program plays, from whom a person takes over."""
        return self.by_person and self.player != HUMAN

    @property
    def labeller(self) -> str:
        """Who labels the frames."""
        return self.player if self.label is None else self.label


@dataclass(frozen=True)
class SplitConfig:
    """Shares of the episodes; they sum to 1."""

    train: float = 0.9
    val: float = 0.1
    test: float = 0.0
    by_player: bool = False  # split the episodes of each player by themselves

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            require(0 <= share <= 1, f"dataset.split.{name}", share, "0 to 1")
        require(self.train > 0, "dataset.split.train", self.train, "more than 0")
        require(self.val > 0, "dataset.split.val", self.val, "more than 0: the best checkpoint is chosen on it")
        total = self.train + self.val + self.test
        require(abs(total - 1) < 1e-6, "dataset.split", f"{total:g} (the sum)", "train, val and test must sum to 1")

    @property
    def shares(self) -> dict[str, float]:
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class OversampleConfig:
    """Frames in which one of ``actions`` is pressed, or the action changes, are drawn more often, none less."""

    actions: tuple[str, ...] = ()
    ratio: float = 0.5  # their share of an epoch
    changes: bool = False  # also frames whose buttons are not those of the frame before, or an axis is 2 bins away

    def __post_init__(self) -> None:
        rule = "at least one name, or changes: true"
        require(self.changes or len(self.actions) > 0, "dataset.oversample.actions", self.actions, rule)
        require(0 < self.ratio < 1, "dataset.oversample.ratio", self.ratio, "between 0 and 1")


@dataclass(frozen=True)
class DatasetConfig:
    path: str | tuple[str, ...] = setting(resume=FREE)  # several are trained on as one, buttons matched by name
    record: RecordConfig | None = setting(None, FREE)
    frame_size: tuple[int, int] | None = None  # H, W the model sees; null: as recorded
    actions: tuple[str, ...] | None = None  # the buttons to train on; null: all
    axes: tuple[str, ...] | None = None  # the axes to train on; null: all
    axis_bins: int = 21  # amounts of an axis that the model tells apart, an odd number: the middle one is 0
    axis_mu: float = 10.0  # how much finer they are near 0: mu of the mu-law
    channel_order: Literal["rgb", "bgr"] = "rgb"  # as recorded
    split: SplitConfig = field(default_factory=SplitConfig)
    validate_episodes: bool = setting(False, FREE)  # true: skip and count faulty episodes instead of stopping
    history: int = 1  # frames the model sees, the current one last
    frame_skip: int = 1  # frames from one of those to the next
    state: StateConfig | None = None  # what of the game state a model with use_state sees; null: nothing
    action_history: int = 0  # previous actions the model sees
    action_shift: int = 0  # frames the target action lies ahead of the current frame
    oversample: OversampleConfig | None = None  # draws rare actions more often
    cache: Literal["none", "disk", "device", "auto"] = setting("auto", FREE)
    cache_dir: str | None = setting(None, FREE)  # where the disk cache lies; null: ~/.cache/bc_training
    cache_limit: float = setting(200.0, FREE)  # GB on disk; the least recently used goes first
    prefetch: int = setting(2, FREE)  # batches prepared ahead of the step

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", one_or_several(self.path))
        expand_fields(self, "dataset", "path", "cache_dir")
        if isinstance(self.path, tuple):
            count = f"config: dataset.path names {len(self.path)} datasets, and dataset."
            if self.record is not None:
                raise UserError(f"{count}record records one: set it null, and record each with the command record")
            if self.cache == "disk":
                raise UserError(f"{count}cache=disk keeps one: set device, none or auto")
        if self.frame_size is not None:
            require(min(self.frame_size) >= 8, "dataset.frame_size", self.frame_size, "sides of 8 or more")
        if self.actions is not None:
            require(len(set(self.actions)) == len(self.actions), "dataset.actions", self.actions, "each name once")
        if self.axes is not None:
            require(len(set(self.axes)) == len(self.axes), "dataset.axes", self.axes, "each name once")
        odd = self.axis_bins % 2 == 1 and 3 <= self.axis_bins <= 255
        require(odd, "dataset.axis_bins", self.axis_bins, "an odd number from 3 to 255")
        require(0 < self.axis_mu <= 1000, "dataset.axis_mu", self.axis_mu, "more than 0, at most 1000")
        require_at_least(1, self, "dataset", "history", "frame_skip", "prefetch")
        require_at_least(0, self, "dataset", "action_history", "action_shift")
        require(0 < self.cache_limit < math.inf, "dataset.cache_limit", self.cache_limit, "more than 0 (GB)")

    @property
    def paths(self) -> tuple[str, ...]:
        """The one dataset, or the several."""
        return (self.path,) if isinstance(self.path, str) else self.path


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Ends a training whose validation score no longer gains; the best checkpoint is what counts."""

    metric: Literal["macro_f1", "exact_match", "loss"] | None = None  # null: evaluation.best_metric
    patience: int = 5  # evaluations without a gain
    min_delta: float = 0.0  # what counts as one, in units of the metric

    def __post_init__(self) -> None:
        require_at_least(1, self, "training.early_stopping", "patience")
        require(0 <= self.min_delta < math.inf, "training.early_stopping.min_delta", self.min_delta, "0 or more")


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training samples; the most each can be, 0 for none. See ``augment.py``."""

    crop: int = 0  # pixels by which a frame is shifted, each way; edges are repeated
    brightness: float = 0.0  # share of the full range that is added or taken away, 0 to 1
    contrast: float = 0.0  # c: distances to the frame's mean times 1 - c to 1 + c, 0 to 1
    saturation: float = 0.0  # s: of HSV, times 1 - s to 1 + s, 0 to 1
    hue: float = 0.0  # turn of the colour circle either way; 0.5 is half of it, which reaches all
    flip: float = 0.0  # probability that a sample is mirrored, its left and right buttons swapped
    temporal_jitter: int = 0  # J: frames and state are those of 0 to J positions before in the window

    def __post_init__(self) -> None:
        require_at_least(0, self, "training.augmentation", "crop", "temporal_jitter")
        for name, limit in {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5, "flip": 1}.items():
            value = getattr(self, name)
            require(0 <= value <= limit, f"training.augmentation.{name}", value, f"0 to {limit:g}")


@dataclass(frozen=True)
class TrainingConfig:
    num_epochs: int = 10
    batch_size: int = setting(64, NEVER)
    gradient_accumulation: int = setting(1, NEVER)  # batches whose gradients are averaged for one update
    learning_rate: float = 1e-3  # peak of the schedule
    schedule: Literal["cosine", "constant"] = "cosine"  # after the linear warm-up
    warmup_steps: int = 100  # updates
    weight_decay: float = 1e-4
    gradient_clip_norm: float = 1.0  # global norm
    precision: Literal["float32", "bfloat16"] = "float32"  # the model computes in it; all that is kept is float32
    # validate, save and play a moving average of the parameters; null: the last ones
    ema_decay: float | None = setting(None, NEVER)
    loss: Literal["bce", "focal"] = setting("bce", scores=("loss",))
    focal_gamma: float = setting(2.0, scores=("loss",))  # 0 is bce; Lin et al. 2017 tried up to 5
    label_smoothing: float = setting(0.0, scores=("loss",))
    augmentation: AugmentationConfig | None = None
    class_weights: Literal["none", "sqrt", "balanced"] = setting("sqrt", scores=("loss",))
    max_class_weight: float = setting(10.0, scores=("loss",))
    axis_loss_weight: float = setting(1.0, scores=("loss",))  # of the mean loss of the axes, beside that of the buttons
    auxiliary_state: tuple[str, ...] = ()  # state values that the model learns to predict, too; it does not see them
    auxiliary_weight: float = 1.0  # of the mean loss of these
    weight_by_return: WeightByReturnConfig | None = setting(None, NEVER)  # train more on the better episodes
    early_stopping: EarlyStoppingConfig | None = None
    checkpoint_dir: str = setting("BC_training/checkpoints", FREE)
    keep_last: int = setting(2, FREE)
    save_every_minutes: float = setting(10.0, FREE)  # also within an epoch
    # auto: go on where this run stopped; never: begin again; or the checkpoint to go on from
    resume: str = setting("auto", FREE)
    init_from: str | None = setting(None, NEVER)  # a checkpoint: a new training begins at what fits of its parameters
    resume_changed: bool = setting(False, FREE)  # go on although settings that change the mathematics differ
    # [first, last] step, counted from 1, of a JAX profiler trace
    profile_steps: tuple[int, int] | None = setting(None, FREE)
    # with cache=device; null: 1 on a CPU, where more is far slower, else 8
    steps_per_dispatch: int | None = setting(None, FREE)

    def __post_init__(self) -> None:
        expand_fields(self, "training", "checkpoint_dir", "resume", "init_from")
        require_at_least(1, self, "training", "num_epochs", "gradient_accumulation", "max_class_weight", "keep_last")
        require_at_least(0, self, "training", "warmup_steps", "weight_decay", "axis_loss_weight", "auxiliary_weight")
        require(self.batch_size >= 2, "training.batch_size", self.batch_size, "at least 2 (batch statistics)")
        require(0 < self.learning_rate < math.inf, "training.learning_rate", self.learning_rate, "more than 0")
        require(self.gradient_clip_norm > 0, "training.gradient_clip_norm", self.gradient_clip_norm, "more than 0")
        decay = self.ema_decay
        require(decay is None or 0 < decay < 1, "training.ema_decay", decay, "between 0 and 1, or null for no average")
        require(0 <= self.focal_gamma <= 10, "training.focal_gamma", self.focal_gamma, "0 to 10")
        require(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "0 to below 1")
        require(self.save_every_minutes > 0, "training.save_every_minutes", self.save_every_minutes, "more than 0")
        require(self.resume != "", "training.resume", "''", "auto, never, or a checkpoint's folder")
        traced, rule = self.profile_steps, "[first, last], counted from 1"
        require(traced is None or 1 <= traced[0] <= traced[1], "training.profile_steps", traced, rule)
        steps = self.steps_per_dispatch
        require(steps is None or steps >= 1, "training.steps_per_dispatch", steps, "at least 1")


@dataclass(frozen=True)
class Config:
    dataset: DatasetConfig
    model: Any  # the chosen variant's Config
    training: TrainingConfig = setting(resume=ON_REQUEST, factory=TrainingConfig)
    evaluation: EvaluationConfig = setting(resume=ON_REQUEST, factory=EvaluationConfig)
    logging: LoggingConfig = setting(resume=FREE, factory=LoggingConfig)
    system: SystemConfig = field(default_factory=SystemConfig)
    finetune: FinetuneConfig | None = None

    def __post_init__(self) -> None:
        stopping = self.training.early_stopping
        if self.evaluation.best_metric == "rollout" and stopping is not None and stopping.metric is not None:
            raise UserError("config: evaluation.best_metric=rollout: set training.early_stopping.metric=null, too")
        if self.training.weight_by_return is not None and len(self.dataset.paths) > 1:
            raise UserError(
                "config: training.weight_by_return compares scores of one dataset: set it null, or name one"
            )
        if self.uses_state and self.dataset.state is None:
            raise UserError(
                f"config: model {self.model.name} sees the game state, but dataset.state does not say what of it: "
                "write that section, or set model.use_state=false"
            )
        if self.training.auxiliary_state and getattr(self.model, "action_chunk", 1) > 1:
            raise UserError("config: training.auxiliary_state goes with model.action_chunk=1 alone")

    @property
    def uses_state(self) -> bool:
        """Whether the model takes the features of ``dataset.state``."""
        return getattr(self.model, "use_state", False)

    def window(self) -> Window:
        """The part of an episode that one sample holds."""
        data = self.dataset
        return Window(
            data.history,
            data.frame_skip,
            data.action_history,
            data.action_shift,
            getattr(self.model, "action_chunk", 1),
            self.uses_state,
            data.state.since_change if self.uses_state and data.state else (),
            getattr(self.model, "every_frame", False),
            bool(self.training.auxiliary_state),
        )
