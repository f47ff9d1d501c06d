"""Reads what a run has left in its checkpoint and logs, and assembles the numbers that are compared."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError, first_line
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.evaluation.results import AxisScores, Evaluation
from BC_training.play.results import RolloutResult
from BC_training.reports.compare.scores import Row, play_scores, training_costs, validation_scores
from BC_training.training import checkpoint as checkpoints
from BC_training.training.seeds import seen_text
from BC_training.training.train_state import abstract_model

COMMAND = "uv run -m BC_training"
# The numbers that a row of metrics.jsonl needs, by its kind; any other kind needs the step.
_LOGGED = {"epoch": ("epoch", "step", "frames_per_second"), "val": ("epoch", "step")}


@dataclass(frozen=True)
class Run:
    """What a run has left."""

    path: Path  # as the user gave it
    folder: Path  # where its checkpoints are
    log_dir: Path
    saved: checkpoints.Checkpoint
    log: list[dict[str, Any]]  # the rows of metrics.jsonl
    evaluation: Evaluation | None  # None where evaluation.json is not of this checkpoint
    play: RolloutResult | None  # None where rollout.json is not of this checkpoint
    missing: dict[str, str]  # why "evaluation.json" or "rollout.json" is not used

    @classmethod
    def read(cls, path: Path, log_dir: Path | None = None) -> "Run":
        """Reads a checkpoint's run.

        ``log_dir`` replaces the place of its logs by the checkpoint's config, which a training that goes on may change.
        Raises a UserError if ``path`` is no checkpoint or ``metrics.jsonl`` is damaged.
        """
        saved = checkpoints.read(path)
        step = saved.path.resolve()
        folder = step.parent.parent if step.parent.name in ("best", "last") else step
        if log_dir is None:  # a run set aside has its logs under its new name
            log_dir = Path(saved.config.logging.log_dir) / folder.name
        found, missing = {}, {}
        for name, reader in (("evaluation.json", Evaluation.from_dict), ("rollout.json", RolloutResult.from_dict)):
            try:
                found[name] = _read_result(log_dir / name, reader, saved)
            except UserError as error:
                missing[name] = str(error)
        log = _read_log(log_dir / "metrics.jsonl")
        return cls(path, folder, log_dir, saved, log, found.get("evaluation.json"), found.get("rollout.json"), missing)

    @classmethod
    def finished(
        cls, path: Path, log_dir: Path, saved: checkpoints.Checkpoint, scores: Evaluation, play: RolloutResult | None
    ) -> "Run":
        """A run whose best checkpoint ``saved`` was just scored and, unless ``play`` is None, played."""
        missing = {} if play is not None else {"rollout.json": f"there is no {log_dir / 'rollout.json'}"}
        log = _read_log(log_dir / "metrics.jsonl")
        return cls(path, path, log_dir, saved, log, scores, play, missing)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The log's rows about epochs."""
        return [row for row in self.log if row["kind"] == "epoch"]


def assemble(name: str, run: Run, runs: Sequence[Run]) -> tuple[Row, list[str]]:
    """A run's row without its latency, and a line for each thing that it lacks, with the command that makes it.

    The command for a run that was not played plays it as the others of ``runs`` were.
    """
    saved = run.saved
    row = Row(
        run=name,
        checkpoint=str(saved.path),
        step=saved.step,
        model=saved.config.model.name,
        parameters=abstract_model(saved.config, saved.inputs).parameter_count,
        checkpoint_mb=sum(file.stat().st_size for file in saved.path.rglob("*") if file.is_file()) / 1e6,
        **vars(training_costs(run.epochs, saved)),
        **validation_scores(run.evaluation),
        **play_scores(run.play),
        latency_p50_ms=None,
        latency_p99_ms=None,
    )
    lacks = []
    if row.minutes is None:
        again = f"{COMMAND} --config {shlex.quote(f'{run.log_dir}/config.yaml')} training.resume=never"
        lacks.append(f"{run.log_dir / 'metrics.jsonl'} lacks its epochs; only another training writes them: {again}")
    evaluation = _command(run, "evaluate", [str(run.path)], "evaluation.json")
    if run.evaluation is None:
        lacks.append(f"{run.missing['evaluation.json']}: {evaluation}")
    elif saved.split["test"] and run.evaluation.test is None:
        lacks.append(f"{run.log_dir / 'evaluation.json'} has no scores of the test split: {evaluation}")
    if run.play is None:
        lacks.append(f"{run.missing['rollout.json']}: {play_command(run, runs)}")
    elif row.normalized is None:
        lacks.append(f"{run.play.game} has no score of an expert better than random to normalise by")
    elif row.normalized_low is None and row.episodes == 1:
        lacks.append(f"one episode has no interval: {play_command(run, [run], episodes=RolloutConfig('').episodes)}")
    if run.evaluation is not None and "thresholds" in run.evaluation.chosen_here:
        lacks.append("its thresholds were tuned on the frames of its validation scores: expect less on others")
    if run.play is not None and run.play.seen:
        lacks.append(seen_text(run.play.seen, run.play.episodes))
    return row, [f"{name}: {line}" for line in lacks]


def names_of(runs: Sequence[Run]) -> list[str]:
    """The names of the runs' folders, or the paths of runs that share one; raises a UserError for a run given twice."""
    folders = [run.folder.resolve() for run in runs]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise UserError(f"{runs[folders.index(folder)].path} and {runs[i].path} are the same run: give it once")
    names = [folder.name for folder in folders]
    return [str(run.path) if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)]


def require_same_play(names: Sequence[str], runs: Sequence[Run]) -> None:
    """Raises a UserError if those that were played did not meet the same game and first seed."""
    played = [(name, run) for name, run in zip(names, runs, strict=True) if run.play]
    for name, run in played[1:]:
        first, other = played[0]
        if _played(run) != _played(other):
            alike = f", or play alike: {play_command(run, [other])}" if _act_alike(run, other) else ""
            raise UserError(
                f"{name} played {_played(run)} but {first} {_played(other)}, which does not compare; leave one "
                f"out{alike}"
            )


def incomparable(names: Sequence[str], runs: Sequence[Run]) -> tuple[list[str], set[str]]:
    """Lines on what does not compare between the runs, and the columns that therefore have no best value."""
    lines, columns = [], set()
    labels = {}
    for name, run in zip(names, runs, strict=True):
        if run.evaluation is not None:
            saved, inputs = run.saved, run.saved.inputs
            episodes = sorted(saved.split["val"]), sorted(saved.split["test"])
            labelled = inputs.action_names, inputs.axis_names, inputs.axis_bins, inputs.window.action_shift
            labels[name] = saved.fingerprint, episodes, *labelled
    if len(different := _different(labels)) > 1:
        lines.append(f"validation scores of {' and '.join(different)} do not compare: they are of other labels")
        columns |= {"exact_match", "macro_f1", "rarest_f1", "onset_f1"}
        columns |= {"test_exact_match", "test_macro_f1", "test_onset_f1"}
        columns |= {f"{axis}/{f.name}" for r in runs for axis in r.saved.inputs.axis_names for f in fields(AxisScores)}
    played = {name: run.play for name, run in zip(names, runs, strict=True) if run.play}
    means = {name: (play.random_mean, play.expert_mean) for name, play in played.items()}
    if len(different := _different(means)) > 1:
        each = "; ".join(f"{name}: random {means[name][0]}, expert {means[name][1]}" for name in different)
        lines.append(f"scores are normalised by means over other episodes ({each})")
    return lines, columns


def _different(values: dict[str, Any]) -> list[str]:
    """The first name that has each of the different values."""
    found: list[str] = []
    for name, value in values.items():
        if all(values[other] != value for other in found):
            found.append(name)
    return found


def _played(run: Run) -> str:
    assert run.play is not None
    return f"{run.play.game} from seed {run.play.seed}"


def _act_alike(run: Run, other: Run) -> bool:
    """Whether two runs have the same buttons and axes."""
    ours, theirs = run.saved.inputs, other.saved.inputs
    return (ours.action_names, ours.axis_names) == (theirs.action_names, theirs.axis_names)


def play_command(run: Run, others: Sequence[Run], **changes: Any) -> str:
    """The command that plays ``run`` as one of ``others`` with its actions was played, or as its config says."""
    options: dict[str, Any] = {}
    if run.saved.config.evaluation.rollout is not None:
        options = vars(run.saved.config.evaluation.rollout)
    for other in reversed(others):
        if other.play and _act_alike(run, other):
            options = vars(other.play)
    options = {name: options[name] for name in ("game", "episodes", "seed") if name in options} | changes
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return _command(run, "rollout", ["--player", str(run.path), *arguments], "rollout.json")


def _command(run: Run, verb: str, arguments: Sequence[str], file: str) -> str:
    """The command that writes ``file`` of the run's logs."""
    folder = "" if run.log_dir.is_dir() else f"mkdir -p {shlex.quote(str(run.log_dir))} && "
    return f"{folder}{COMMAND} {verb} {shlex.join([*arguments, '--json', str(run.log_dir / file)])}"


def _read_result(file: Path, reader: Callable[[Any], Any], saved: checkpoints.Checkpoint) -> Any:
    """What ``reader`` makes of a JSON file; raises a UserError unless it is of the checkpoint as it decodes now."""
    try:
        result = reader(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"there is no {file}") from None
    except OSError as error:
        raise UserError(f"cannot read {file} ({first_line(error)})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)})") from error
    if result.step != saved.step:
        raise UserError(f"{file} is not of step {saved.step}")
    if isinstance(result, Evaluation) and result.split != "val":
        raise UserError(f"{file} is of split '{result.split}'")
    if result.decoding != saved.decoding:
        raise UserError(f"{file} is of other thresholds or rules of decoding than the checkpoint has")
    return result


def _read_log(file: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
        for row in rows:
            if not min(row[name] for name in _LOGGED.get(row["kind"], ("step",))) > 0:
                raise ValueError(row)
        return rows
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is damaged ({error!r}): restore it, or move it away to go on without it") from error
