"""A sweep: many trainings with drawn settings, whose bad ones end early, by any number of processes at once.

Each trial is an ordinary training in this process, as those of a suite are. A process of its own for each would cost
its start and a way to tell it when to end; what that would protect from, a trial that takes its process with it, is
here one more start of the command, which goes on with that very trial.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from BC_training.common.config import load_config, to_dict
from BC_training.common.errors import UserError, first_line, unknown
from BC_training.common.files import is_disk_full, write_whole
from BC_training.common.metrics import Report, flatten
from BC_training.common.schema import Config
from BC_training.common.settings.evaluation import EvaluationConfig
from BC_training.common.settings.rules import Resume, keys_that_change
from BC_training.evaluation.results import AxisScores, ButtonScores
from BC_training.experiments.search_space import Space, divide, parse_space
from BC_training.play.missing_dataset import record_missing_dataset
from BC_training.play.say import say
from BC_training.reports.compare.runs import COMMAND
from BC_training.reports.sweep.page import Results, render
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.interruption import Interruption
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.resume import flat, resume_rule
from BC_training.training.run_folder import move_aside, run_folders
from BC_training.training.setup import Setup, require_runnable

if TYPE_CHECKING:
    from BC_training.experiments.study import Attempt, Study

_CHOOSING = get_args(get_args(get_type_hints(EvaluationConfig)["best_metric"])[0])  # scores that choose checkpoints
_OTHERS = ("change_match", "onset_f1", "l1", "l2", "kl")  # scores of the validation split that choose no checkpoint
_MINIMIZED = ("loss", "l1", "l2", "kl", "mean_absolute_error")
_NO_SCORES = ("frequency", "predicted_frequency", "zeros", "predicted_zeros")


@dataclass(frozen=True)
class Sweep:
    """What a sweep draws, and from where its trials begin.

    Attributes:
        file: the config's.
        plain: the overrides of every trial.
        base: the config with these alone.
        objective: the score to compare trials by; None for what chooses the best checkpoint.
    """

    file: str
    plain: list[str]
    base: Config
    space: Space
    objective: str | None

    @classmethod
    def load(cls, file: str, overrides: Sequence[str], objective: str | None = None) -> "Sweep":
        """Reads a config and what is to be drawn; raises a UserError where one is faulty or does not fit."""
        plain, drawn = divide(overrides)
        base = load_config(file, plain)
        if objective is not None and "/" not in objective and objective not in (*_CHOOSING, *_OTHERS):
            raise unknown("score", objective, (*_CHOOSING, *_OTHERS, "per_action/NAME/f1"), "see --objective")
        play = base.evaluation.rollout
        if objective == "rollout" and (play is None or play.every_n_epochs is None):
            raise UserError(
                "--objective rollout compares play while trials are trained: add evaluation.rollout.every_n_epochs=1"
            )
        if objective in _CHOOSING:
            plain = [*plain, f"evaluation.best_metric={objective}"]
            base = load_config(file, plain)
        if base.training.resume != "auto":
            raise UserError(
                f"training.resume={base.training.resume}: sweep goes on by itself; for new trials choose another "
                "logging.run_name"
            )
        return cls(file, plain, base, parse_space(drawn, base), objective)

    def config(self, values: dict[str, str], run: str) -> Config:
        """The config of a trial with drawn ``values``; raises a UserError where it refuses them."""
        return load_config(self.file, [*self.plain, *_overrides(values), f"logging.run_name={run}"])

    def command(self, values: dict[str, str], run: str) -> str:
        """The command that trains with drawn ``values``."""
        plain = [setting for setting in self.plain if not setting.startswith("logging.run_name=")]
        arguments = ["--config", self.file, *plain, *_overrides(values), f"logging.run_name={run}"]
        return f"{COMMAND} {shlex.join(arguments)}"


def sweep(plan: Sweep, console: Console, *, trials: int, storage: str = "journal", prune: bool = True) -> Results:
    """Trains until there are ``trials`` trials, those of other processes with the same call among them.

    Trial k is a run of its own, <run>-<k>. The trials, the results and their page are in ``<log_dir>/<run>-sweep``.

    Args:
        prune: whether a trial ends once its best score is worse than the median of others at the same epoch.

    Raises:
        UserError: bad input, a study that was begun otherwise, or all trials failed.
        Interrupted: SIGTERM or SIGINT came; the same call goes on with the trial.
    """
    if trials < 1:
        raise UserError(f"--trials {trials}: write how many trials there shall be, 1 or more")
    try:
        from BC_training.experiments.study import Study, require_storage
    except ModuleNotFoundError as error:
        raise UserError(f"sweep needs the package {error.name}: install it with 'uv sync --extra scale'") from error
    require_storage(storage)
    with Interruption():
        prepare_devices(plan.base.system)
        if jax.process_count() > 1:
            raise UserError("sweep runs each trial in one process: start it without a launcher, once for each device")
        require_runnable(plan.base)
        record_missing_dataset(plan.base, console)
        setup = Setup.build(plan.base, console)
        objective = _known_objective(plan, setup)
        maximized = objective.rpartition("/")[2] not in _MINIMIZED
        space = {key: str(of) for key, of in plan.space.items()}
        agreed = {"objective": objective, "space": space, "config": _what_counts(plan, setup)}
        agreed["dataset"] = setup.fingerprint
        run, log_dir = run_folders(plan.base)
        folder = log_dir.with_name(f"{run.name}-sweep")
        seed = plan.base.system.seed
        study = Study(folder, storage, agreed, plan.space, maximized=maximized, seed=seed, prune=prune)
        results = Results(run.name, objective, maximized, trials, space)
        while True:
            with study.next_trial(trials) as attempt:
                if attempt is not None:
                    _run(plan, study, attempt, objective, trials, console)
            with study.locked():
                results = _collect(plan, study, results)
                write_whole(folder / "sweep.json", json.dumps(results.to_dict(), indent=2) + "\n")
                write_whole(folder / "report.html", render(results, plan.space))
            if attempt is None:
                break
    _show(results, folder, console)
    failed = [trial for trial in results.trials if trial.state == "failed"]
    if len(failed) == len(results.trials):
        raise UserError(f"all {len(failed)} trials failed; the last one: {failed[-1].reason}")
    return results


def _known_objective(plan: Sweep, setup: Setup) -> str:
    """The score that trials are compared by; raises a UserError where there is none such, or it does not compare."""
    objective = plan.objective or setup.config.evaluation.known_metric
    parts = {"per_action": (setup.inputs.action_names, ButtonScores), "per_axis": (setup.inputs.axis_names, AxisScores)}
    known = [
        f"{part}/{name}/{field.name}"
        for part, (names, scores) in parts.items()
        for name in names
        for field in fields(scores)
        if field.name not in _NO_SCORES
    ]
    if objective not in (*_CHOOSING, *_OTHERS, *known):
        raise unknown("score", objective, (*_CHOOSING, *_OTHERS, *known), "see --objective")
    for key in keys_that_change(Config, objective):
        # How a policy decodes changes its scores, but what it does is what they measure.
        if key in plan.space and key.startswith(("training.", "evaluation.rollout.")):
            raise UserError(
                f"{key} changes what the {objective} means, so trials would not compare by it: choose another "
                "--objective, or set one value"
            )
    return objective


def _what_counts(plan: Sweep, setup: Setup) -> dict[str, Any]:
    """The settings that all processes must have alike, by their dotted keys, in JSON types."""
    by_play = setup.config.evaluation.best_metric == "rollout"
    settings = flat(to_dict(setup.config))
    counting = {k: v for k, v in settings if k not in plan.space and resume_rule(k, by_play) != Resume.FREE}
    return json.loads(json.dumps(counting))


def _run(plan: Sweep, study: "Study", attempt: "Attempt", objective: str, trials: int, console: Console) -> None:
    """Trains a trial, and notes how it ends."""
    run = f"{plan.base.logging.run_name}-{attempt.number}"
    console.rule(f"trial {attempt.number}, {trials} in all")
    say(console, " ".join(_overrides(attempt.values)), highlight=False)
    is_pruned = False

    def is_promising(epoch: int, report: Report) -> bool:
        nonlocal is_pruned
        value = flatten(report).get(objective)
        if value is None or not math.isfinite(value):  # it was not played, or has no value
            return True
        is_pruned = not attempt.report(epoch, value) and epoch < config.training.num_epochs
        return not is_pruned

    try:
        config = plan.config(attempt.values, run)
        if attempt.is_new and any(folder.exists() for folder in run_folders(config)):
            say(console, f"the earlier run '{run}' is kept as '{move_aside(config)}'", style="yellow")
        folder = train(config, console, is_promising=is_promising)
        if is_pruned:
            study.prune(attempt)
            say(console, f"trial {attempt.number} is pruned: others were better by then", style="yellow")
            return
        value = flatten(checkpoint.read(folder).metrics["val"]).get(objective)
        if value is None or not math.isfinite(value):
            raise UserError(f"its best checkpoint has no {objective}")
        study.complete(attempt, value)
    except (UserError, jax.errors.JaxRuntimeError, MemoryError) as error:
        is_too_large = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        if is_disk_full(error) or not (is_too_large or isinstance(error, UserError)):
            raise
        study.fail(attempt, f"out of memory: {first_line(error)}" if is_too_large else str(error))
        say(console, f"trial {attempt.number} failed: {error}", style="red")
    finally:
        jax.clear_caches()  # the next trial has other programs


def _overrides(values: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _collect(plan: Sweep, study: "Study", before: Results) -> Results:
    trials = study.rows()
    done = [(trial.value, trial) for trial in trials if trial.state == "complete" and trial.value is not None]
    if not done:
        return replace(before, trials=tuple(trials))
    _, best = (max if before.maximized else min)(done, key=lambda entry: entry[0])
    name = f"{before.run}-{best.number}"
    return replace(
        before,
        trials=tuple(trials),
        importances=study.importances(),
        best=best.number,
        checkpoint=str(Path(plan.base.training.checkpoint_dir) / name),
        command=plan.command(best.values, f"{before.run}-best"),
    )


def _show(results: Results, folder: Path, console: Console) -> None:
    """Prints the trials, and the command that trains the best one again."""
    title = Text(f"{results.run}: {results.objective} of {results.counts}", "table.title")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in results.headings:
        table.add_column(Text(heading), justify="right" if heading else "left")
    for trial in results.trials:
        number, cells = results.cells(trial)
        table.add_row(*(Text(cell, "bold" if trial.number == results.best else "") for cell in (str(number), *cells)))
    console.print(table)
    if results.command is not None:
        say(console, f"best: trial {results.best}, {results.checkpoint}; trained again by", highlight=False)
        say(console, results.command, highlight=False)
    say(console, f"written to {folder / 'report.html'} and sweep.json", highlight=False)
