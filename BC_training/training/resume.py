"""Where a training goes on: the newest good checkpoint of its run, if that is of the same training."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from BC_training.common.config import to_dict
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.common.settings.rules import Resume, rules_of
from BC_training.common.storage.metadata import HUMAN_FRAMES
from BC_training.training import checkpoint
from BC_training.training.checkpoint import Checkpoint
from BC_training.training.progress import TrainingProgress
from BC_training.training.run_folder import copy_step, lock_run, move_aside, run_folders, set_aside_damaged

_SAMPLED_FRAMES = 64  # how many of a dataset's frames its fingerprint depends on
_ORIGIN = "resumed_from"  # a file in a run's folder, which has the PATH of training.resume=PATH


@dataclass(frozen=True)
class Start:
    """Where a training begins."""

    step_folder: Path | None  # the checkpoint it goes on from; None for a fresh start
    progress: TrainingProgress
    cache: str | None = None  # the tier that the run had, to be chosen again; None where any will do
    steps_per_dispatch: int | None = None  # likewise

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"step_folder": self.step_folder and str(self.step_folder)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Start":
        place, progress = raw["step_folder"] and Path(raw["step_folder"]), TrainingProgress(**raw["progress"])
        return cls(place, progress, raw["cache"], raw["steps_per_dispatch"])

    def announce(self, config: Config, console: Console) -> None:
        """Prints what the run has done already, if anything."""
        if self.step_folder is not None:
            progress, epochs = self.progress, config.training.num_epochs
            done = f"step {progress.step:,}, epoch {progress.epochs} of {epochs} done"
            again = f"the run is finished ({done}): training.resume=never trains again from the start"
            _say(console, again if progress.is_finished(config) else f"going on after {done}")

    @classmethod
    def after(cls, found: Checkpoint, progress: TrainingProgress, config: Config) -> "Start":
        """Goes on from ``found``, on the same kind of device with the same delivery, which gives the same bits."""
        if found.delivery.backend != jax.default_backend():
            return cls(found.path, progress)
        same = config.training.steps_per_dispatch == found.config.training.steps_per_dispatch
        return cls(found.path, progress, found.delivery.cache, found.delivery.steps_per_dispatch if same else None)


def find_start(config: Config, inputs: InputSpec, fingerprint: str, console: Console) -> Start:
    """Finds the checkpoint to go on from, or makes room for a fresh start.

    Damaged checkpoints on the way are named and set aside. ``fingerprint`` identifies the dataset.

    Raises:
        UserError: the run is of another training, all its checkpoints are damaged, or ``training.resume`` is no
            checkpoint.
    """
    run, log_dir = run_folders(config)
    resume = config.training.resume
    if resume == "never":
        if run.exists() or log_dir.exists():
            _say(console, f"the earlier run '{run.name}' is kept as '{move_aside(config)}'")
        return Start(None, TrainingProgress())
    if resume != "auto" and not _goes_on_from(run, Path(resume)):
        return _start_from(Path(resume), config, inputs, fingerprint, console)
    if not run.exists():
        if log_dir.exists():
            _say(console, f"'{run.name}' has logs but no checkpoints: they are kept as '{move_aside(config)}'")
        return Start(None, TrainingProgress())
    with lock_run(run):
        found = _newest_good(run, console)
        if found is None:
            return Start(None, TrainingProgress())
        progress = _progress_of(found, config, inputs, fingerprint)
        _check_best(run, found, progress, console)
        _check_last(run, found, console)
        return Start.after(found, progress, config)


def fingerprint(dataset: ZarrGameplayDataset, episodes: Sequence[int] | None = None) -> str:
    """A hash of the episodes' names, lengths, actions, axes and state, and of some frames, wherever the dataset is.

    Of takeovers also which frames are labelled. ``episodes`` are positions in ascending order; None takes all.
    """
    positions = range(len(dataset.episodes)) if episodes is None else episodes
    digest = hashlib.sha256(repr((dataset.action_names, dataset.state_names, dataset.channel_order)).encode())
    if dataset.axis_names:
        digest.update(repr(dataset.axis_names).encode())
    for i in positions:
        episode = dataset.episodes[i]
        digest.update(repr((episode.name, episode.length)).encode())
        digest.update(np.ascontiguousarray(dataset.actions(i)).data)
        if dataset.axis_names:
            digest.update(np.ascontiguousarray(dataset.axes(i)).data)
        if dataset.state_names:
            digest.update(np.ascontiguousarray(dataset.state(i)).data)
        if HUMAN_FRAMES in episode.attrs:
            digest.update(repr(episode.labelled).encode())
    count = len(positions)
    chosen = np.unique(np.linspace(0, count - 1, min(_SAMPLED_FRAMES, count)).astype(int)).tolist()
    sampled = [positions[k] for k in chosen]
    for frames in dataset.read_frames([(i, np.array([dataset.episodes[i].length // 2])) for i in sampled]):
        digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()[:24]


def _newest_good(run: Path, console: Console, is_held: bool = True) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there are none. In a held run it sets damaged ones aside."""
    steps = [path for folder in ("best", "last") for path in (run / folder).glob("*") if path.name.isdigit()]
    damaged = []
    for path in sorted(steps, key=lambda path: int(path.name), reverse=True):
        try:
            checkpoint.verify(path)
            found = checkpoint.read(path)
        except checkpoint.NewerFormat:
            raise
        except UserError as error:
            damaged.append((path, error))
            continue
        for bad, reason in damaged:
            _say(console, f"{reason}: step {found.step} is used instead")
            if is_held:
                set_aside_damaged(bad)
        return found
    if damaged:
        raise UserError(
            f"every checkpoint of {run} is damaged ({damaged[0][1]}): training.resume=never starts again and keeps them"
        )
    return None


def _check_best(run: Path, found: Checkpoint, progress: TrainingProgress, console: Console) -> None:
    """Makes ``best/`` hold what ``progress`` says is the best, or forgets about that."""
    if progress.best_step is None or checkpoint.is_good(best := run / "best" / str(progress.best_step)):
        return
    if best.exists():
        set_aside_damaged(best)
    if found.step == progress.best_step and found.path != best:
        copy_step(found.path, best)
        return
    _say(console, f"the best checkpoint, {best}, is missing or damaged: the next one evaluated takes its place")
    progress.best_score = progress.best_step = None


def _check_last(run: Path, found: Checkpoint, console: Console) -> None:
    """Makes ``last/`` hold the step that the run goes on from; its only good copy may be in ``best/``."""
    last = run / "last" / str(found.step)
    if found.path == last or checkpoint.is_good(last):
        return
    if last.exists():
        _say(console, f"{last} is a damaged checkpoint: {found.path} is used instead")
        set_aside_damaged(last)
    copy_step(found.path, last)


def _goes_on_from(run: Path, origin: Path) -> bool:
    """Whether the run was begun from ``origin`` before, so that it now goes on from its own checkpoints."""
    note = run / _ORIGIN
    return note.is_file() and note.read_text(encoding="utf-8") == str(origin.resolve())


def _start_from(origin: Path, config: Config, inputs: InputSpec, fingerprint: str, console: Console) -> Start:
    """Makes the run a copy of ``origin``, a run at its newest good step, or one step."""
    run, log_dir = run_folders(config)
    is_step = (origin / "meta").is_dir()
    found = checkpoint.read(origin) if is_step else _newest_good(origin, console, is_held=False)
    if found is None:
        raise UserError(f"training.resume={origin} is not a run or a checkpoint that a training can go on from")
    checkpoint.verify(found.path)
    progress = _progress_of(found, config, inputs, fingerprint)
    step, source = found.path.resolve(), found.path.resolve().parent.parent
    best = source / "best" / str(progress.best_step)
    log = (Path(found.config.logging.log_dir) / source.name / "metrics.jsonl").resolve()
    if run.exists() or log_dir.exists():
        aside = move_aside(config)
        _say(console, f"the earlier run '{run.name}' is kept as '{aside}'")
        if source == run.resolve():
            moved = run.with_name(aside)
            step, best = moved / step.relative_to(source), moved / best.relative_to(source)
        if log.parent == log_dir.resolve():
            log = log_dir.with_name(aside) / log.name
    log_dir.mkdir(parents=True)
    if log.is_file():
        shutil.copy(log, log_dir)
    if best.is_dir() and best != step:
        copy_step(best, run / "best" / best.name)
    target = run / "last" / str(found.step)
    copy_step(step, target)
    (run / _ORIGIN).write_text(str(origin.resolve()), encoding="utf-8")
    found = checkpoint.read(target)
    _check_best(run, found, progress, console)
    progress.wandb_id = None  # the other run keeps its own; W&B takes no step twice
    return Start.after(found, progress, config)


def _progress_of(found: Checkpoint, config: Config, inputs: InputSpec, fingerprint: str) -> TrainingProgress:
    """The progress to go on from; raises a UserError if the checkpoint is of another training than ``config``."""
    remedy = "choose another logging.run_name, or training.resume=never, which keeps the earlier run"
    saved, wanted = (dict(flat(to_dict(c))) for c in (found.config, config))
    changed = {key for key in saved.keys() | wanted.keys() if saved.get(key) != wanted.get(key)}
    if wanted["training.schedule"] == "constant":
        changed -= {"training.num_epochs"}  # the rate does not depend on it
    chosen_by_play = "rollout" in (found.config.evaluation.best_metric, config.evaluation.best_metric)
    rules = {key: resume_rule(key, chosen_by_play) for key in sorted(changed)}
    old, new = found.inputs.to_dict(), inputs.to_dict()
    for fitted in ("state", "auxiliary"):  # they follow from the settings and the dataset, which are compared
        del old[fitted], new[fitted]
    never = differences(saved, wanted, [key for key, rule in rules.items() if rule == Resume.NEVER])
    never = never or differences(old, new, [key for key in old if _short(old[key]) != _short(new[key])])
    if not never and found.fingerprint != fingerprint:
        paths = ", ".join(config.dataset.paths)
        never = f"the dataset {paths} has changed, its fingerprint {found.fingerprint} -> {fingerprint}"
    if never:
        raise UserError(f"{found.path} is of another training ({never}): {remedy}")
    other = differences(saved, wanted, [key for key, rule in rules.items() if rule != Resume.FREE])
    if other and not config.training.resume_changed:
        raise UserError(
            f"{found.path} was trained with other settings ({other}): set them back, or "
            f"training.resume_changed=true to go on with them, or {remedy}"
        )
    progress = replace(found.progress)
    progress.forget_other_metrics(found.config, config)
    return progress


def resume_rule(key: str, chosen_by_play: bool) -> Resume:
    """Whether a training may go on with another value of the setting ``key``."""
    rules = rules_of(Config, key)
    return rules.choosing if chosen_by_play and rules.choosing is not None else rules.resume


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested dicts by their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value


def differences(old: dict[str, Any], new: dict[str, Any], keys: list[str]) -> str:
    """Words on how ``keys`` differ; "" without one."""
    return "; ".join(f"{key} {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys)


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_short, value))}]"
    return "null" if value is None else str(value)


def _say(console: Console, message: str) -> None:
    console.print(message, style="yellow", soft_wrap=True, markup=False)
