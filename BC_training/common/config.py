"""The typed configuration: load, override, validate, save.

Loading has two phases. First the YAML file and the overrides are merged untyped, which is
enough to read ``model.name``; then everything is merged into frozen dataclasses, the ``model``
section into the ``Config`` of that variant. Consumers get plain dataclass objects and hold no
defaults of their own.
"""

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from BC_training import models
from BC_training.common.errors import UserError

PACKAGE = Path(__file__).resolve().parent.parent


def _require(condition: bool, key: str, value: Any, rule: str) -> None:
    if not condition:
        raise UserError(f"config: {key}={value} is out of range: {rule}")


@dataclass(frozen=True)
class RecordConfig:
    """How to record a dataset that is missing."""

    game: str
    player: str = "expert"
    episodes: int = 40
    seed: int = 10_000  # first episode's seed; away from 0, where rollouts start
    skill: int = 3  # difficulty, 1-5, for games that have one
    frame_size: tuple[int, int] = (288, 512)  # H, W
    noise: float = 0.0  # chance a frame that a burst of one random action starts
    noise_frames: int = 6  # length of such a burst

    def __post_init__(self) -> None:
        _require(self.episodes >= 1, "dataset.record.episodes", self.episodes, "at least 1")
        _require(self.seed >= 0, "dataset.record.seed", self.seed, "0 or more")
        _require(1 <= self.skill <= 5, "dataset.record.skill", self.skill, "1 to 5")
        _require(min(self.frame_size) >= 8, "dataset.record.frame_size", self.frame_size, "sides of 8 or more")
        _require(0 <= self.noise <= 1, "dataset.record.noise", self.noise, "0 to 1")
        _require(self.noise_frames >= 1, "dataset.record.noise_frames", self.noise_frames, "at least 1")


@dataclass(frozen=True)
class SplitConfig:
    """Shares of the episodes; they sum to 1."""

    train: float = 0.9
    val: float = 0.1
    test: float = 0.0

    def __post_init__(self) -> None:
        for name, share in dataclasses.asdict(self).items():
            _require(0 <= share <= 1, f"dataset.split.{name}", share, "0 to 1")
        _require(self.train > 0, "dataset.split.train", self.train, "more than 0")
        _require(self.val > 0, "dataset.split.val", self.val, "more than 0: the best checkpoint is chosen on it")
        total = self.train + self.val + self.test
        _require(abs(total - 1) < 1e-6, "dataset.split", f"{total:g} (the sum)", "train, val and test must sum to 1")


@dataclass(frozen=True)
class DatasetConfig:
    path: str
    record: RecordConfig | None = None
    frame_size: tuple[int, int] | None = None  # H, W the model sees; null: as recorded
    actions: tuple[str, ...] | None = None  # the buttons to train on; null: all
    channel_order: Literal["rgb", "bgr"] = "rgb"  # of the recording
    split: SplitConfig = field(default_factory=SplitConfig)
    validate_episodes: bool = False  # true: skip and count faulty episodes instead of stopping
    cache: Literal["none", "device", "auto"] = "auto"
    prefetch: int = 2  # batches decoded ahead of the step

    def __post_init__(self) -> None:
        if self.frame_size is not None:
            _require(min(self.frame_size) >= 8, "dataset.frame_size", self.frame_size, "sides of 8 or more")
        if self.actions is not None:
            _require(len(self.actions) > 0, "dataset.actions", self.actions, "at least one name, or null for all")
            _require(len(set(self.actions)) == len(self.actions), "dataset.actions", self.actions, "each name once")
        _require(self.prefetch >= 1, "dataset.prefetch", self.prefetch, "at least 1")


@dataclass(frozen=True)
class TrainingConfig:
    num_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3  # peak of the cosine schedule
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    gradient_clip_norm: float = 1.0  # global norm
    label_smoothing: float = 0.0
    class_weights: Literal["none", "sqrt", "balanced"] = "sqrt"
    max_class_weight: float = 10.0
    checkpoint_dir: str = "BC_training/checkpoints"
    keep_last: int = 2

    def __post_init__(self) -> None:
        _require(self.num_epochs >= 1, "training.num_epochs", self.num_epochs, "at least 1")
        _require(self.batch_size >= 2, "training.batch_size", self.batch_size, "at least 2 (batch statistics)")
        _require(0 < self.learning_rate < math.inf, "training.learning_rate", self.learning_rate, "more than 0")
        _require(self.warmup_steps >= 0, "training.warmup_steps", self.warmup_steps, "0 or more")
        _require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "0 or more")
        _require(self.gradient_clip_norm > 0, "training.gradient_clip_norm", self.gradient_clip_norm, "more than 0")
        _require(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "0 to below 1")
        _require(self.max_class_weight >= 1, "training.max_class_weight", self.max_class_weight, "at least 1")
        _require(self.keep_last >= 1, "training.keep_last", self.keep_last, "at least 1")


@dataclass(frozen=True)
class RolloutConfig:
    """Episodes the best checkpoint plays when training ends."""

    game: str
    episodes: int = 20
    seed: int = 0
    skill: int = 3
    video: bool = True

    def __post_init__(self) -> None:
        _require(self.episodes >= 1, "evaluation.rollout.episodes", self.episodes, "at least 1")
        _require(self.seed >= 0, "evaluation.rollout.seed", self.seed, "0 or more")
        _require(1 <= self.skill <= 5, "evaluation.rollout.skill", self.skill, "1 to 5")


@dataclass(frozen=True)
class EvaluationConfig:
    every_n_epochs: int = 1
    batch_size: int = 256
    threshold: float = 0.5  # a button is pressed at this probability or above
    best_metric: Literal["macro_f1", "exact_match", "loss"] = "macro_f1"
    rollout: RolloutConfig | None = None

    def __post_init__(self) -> None:
        _require(self.every_n_epochs >= 1, "evaluation.every_n_epochs", self.every_n_epochs, "at least 1")
        _require(self.batch_size >= 1, "evaluation.batch_size", self.batch_size, "at least 1")
        _require(0 < self.threshold < 1, "evaluation.threshold", self.threshold, "between 0 and 1")


@dataclass(frozen=True)
class WandbConfig:
    enabled: bool = True  # online with a key, else offline; never prompts
    project: str = "BC_training"
    entity: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoggingConfig:
    run_name: str | None = None  # null: the config file's stem
    log_dir: str = "BC_training/logs"
    log_every_steps: int = 20
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        _require(self.log_every_steps >= 1, "logging.log_every_steps", self.log_every_steps, "at least 1")
        name = self.run_name
        _require(
            name is None or (name not in ("", ".", "..") and not set(name) & set("/\\")),
            "logging.run_name",
            name,
            "a folder name, without slashes",
        )


@dataclass(frozen=True)
class SystemConfig:
    seed: int = 0
    device: Literal["auto", "cpu", "gpu"] = "auto"
    workers: int | None = None  # processes that record and play; null: one a core

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**31, "system.seed", self.seed, "0 to 2^31 - 1")
        _require(self.workers is None or self.workers >= 1, "system.workers", self.workers, "at least 1")


@dataclass(frozen=True)
class Config:
    dataset: DatasetConfig
    model: Any  # the chosen variant's Config
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    system: SystemConfig = field(default_factory=SystemConfig)


def load_config(path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Reads a YAML config and merges ``overrides`` into it.

    Args:
        path: looked up as given, then inside the package folder.
        overrides: an OmegaConf dotlist, ``["training.batch_size=32", ...]``, where later ones win;
            or a mapping, ``{"training.batch_size": 32, ...}``.

    Raises:
        UserError: file missing or malformed, unknown key (with the nearest match), unknown
            variant, or a value of the wrong type or out of range.
    """
    file = _find(Path(path))
    try:
        if isinstance(overrides, Mapping):
            changes = OmegaConf.create()
            for key, value in overrides.items():
                OmegaConf.update(changes, key, value)
        else:
            for item in overrides:
                if "=" not in item:
                    raise UserError(f"override '{item}' is not KEY=VALUE; write for example training.batch_size=32")
            changes = OmegaConf.from_dotlist(list(overrides))
        merged = OmegaConf.merge(OmegaConf.load(file), changes)
        raw: Any = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError, OSError) as error:
        raise UserError(f"config {file}: {_first_line(error)}") from error
    if not isinstance(raw, dict):
        raise UserError(f"config {file}: expected sections dataset, model, training, ...; found {type(raw).__name__}")
    for section in ("dataset", "model", "training", "evaluation", "logging", "system"):
        if not isinstance(raw.get(section) or {}, dict):
            raise UserError(
                f"config {file}: '{section}' is a section, found '{raw[section]}'; write {section}.KEY=VALUE"
            )
    raw["model"] = {"name": file.stem} | (raw.get("model") or {})
    raw["logging"] = raw.get("logging") or {}
    if raw["logging"].get("run_name") is None:
        raw["logging"]["run_name"] = file.stem
    return from_dict(raw, str(file))


def from_dict(raw: dict[str, Any], where: str) -> Config:
    """Builds the typed config from plain nested dicts, such as one saved by ``to_dict``."""
    typed = _typed(models.find(str(raw["model"]["name"])).Config)

    def build(values: dict[str, Any]) -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(typed), OmegaConf.create(values)))

    try:
        config = build(raw)
    except ConfigKeyError as error:
        raise UserError(_unknown_key(error, where)) from error
    except OmegaConfBaseException as error:
        key, reason = getattr(error, "full_key", None), _first_line(error)
        if "tuple" in reason.lower() or "$VALUE" in reason:
            key, reason = key or _faulty_list(raw, build), "expected a list of the right length and type"
        raise UserError(f"config {where}: {key + ': ' if key else ''}{reason}") from error
    assert isinstance(config, Config)
    return config


@lru_cache  # one class a variant, so that equal configs compare equal
def _typed(model: type) -> type:
    """``Config`` with its ``model`` section typed by the variant."""
    return dataclasses.make_dataclass("Config", [("model", model)], bases=(Config,), frozen=True)


def _faulty_list(raw: dict[str, Any], build: Callable[[dict[str, Any]], Any]) -> str | None:
    """The key of the list without which ``build(raw)`` works; OmegaConf does not say which it is."""

    def without_one_list(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, value in values.items():
            if isinstance(value, list):
                yield key, {k: v for k, v in values.items() if k != key}
            elif isinstance(value, dict):
                yield from ((f"{key}.{inner}", values | {key: rest}) for inner, rest in without_one_list(value))

    for key, rest in without_one_list(raw):
        with contextlib.suppress(OmegaConfBaseException, UserError):
            build(rest)
            return key
    return None


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dicts of JSON and YAML types."""
    return dataclasses.asdict(config)


def save_config(config: Config, path: Path) -> None:
    """Writes the resolved config as YAML; ``load_config`` reads it back to an equal object."""
    OmegaConf.save(OmegaConf.create(to_dict(config)), path)


def _find(path: Path) -> Path:
    for candidate in (path, PACKAGE / path):
        if candidate.is_file():
            return candidate
    shipped = sorted(p.name for p in (PACKAGE / "configs").glob("*.yaml"))
    near = difflib.get_close_matches(path.name, shipped, n=1)
    hint = f"; did you mean configs/{near[0]}?" if near else ""
    raise UserError(f"no config file '{path}'{hint} (shipped: {', '.join('configs/' + n for n in shipped)})")


def _first_line(error: BaseException) -> str:
    if isinstance(error, MarkedYAMLError) and (mark := error.context_mark or error.problem_mark) is not None:
        return f"line {mark.line + 1}: {error.context or ''} {error.problem or ''}".replace("  ", " ")
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _unknown_key(error: ConfigKeyError, where: str) -> str:
    key = str(error.full_key or error.key)
    section, _, name = key.rpartition(".")
    parent = error.parent_node
    known = sorted(str(k) for k in parent) if parent is not None else []
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    place = f"section '{section}'" if section else "the top level"
    return f"config {where}: unknown key '{key}'{hint} ({place} has: {', '.join(known)})"
