"""What a run has left in its checkpoint and its logs, and the numbers of it that are compared."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.common.storage.documents import finite
from BC_training.reports.compare.scores import Row, play_scores, training_costs, validation_scores
from BC_training.training import checkpoint as checkpoints
from BC_training.training.seeds import seen_text
from BC_training.training.train_state import abstract_model

COMMAND = "uv run -m BC_training"
_NEEDED = {
    "evaluation.json": ("exact_match", "macro_f1", "per_action"),
    "rollout.json": ("game", "seed", "episodes", "mean", "ci95", "random_mean", "expert_mean"),
}
# Of a row of metrics.jsonl, by its kind; of other kinds the step.
_LOGGED = {"epoch": ("epoch", "step", "frames_per_second"), "val": ("epoch", "step")}


@dataclass(frozen=True)
class Run:
    """What a run has left.

    Attributes:
        path: as the user gave it.
        folder: of its checkpoints.
        log: the rows of ``metrics.jsonl``.
        validation: ``evaluation.json``; empty where there is none of this checkpoint.
        play: ``rollout.json``, likewise.
        missing: why one of these files is not used, by its name.
    """

    path: Path
    folder: Path
    log_dir: Path
    saved: checkpoints.Checkpoint
    log: list[dict[str, Any]]
    validation: dict[str, Any]
    play: dict[str, Any]
    missing: dict[str, str]

    @classmethod
    def read(cls, path: Path, log_dir: Path | None = None) -> "Run":
        """Reads a run.

        Args:
            path: of a checkpoint.
            log_dir: where its logs are; None for where the checkpoint's config has them, which those who go on
                with a run may change.

        Raises:
            UserError: ``path`` is no checkpoint, or ``metrics.jsonl`` is damaged.
        """
        saved = checkpoints.read(path)
        step = saved.path.resolve()
        folder = step.parent.parent if step.parent.name in ("best", "last") else step
        if log_dir is None:  # a run set aside has its logs under its new name
            log_dir = Path(saved.config.logging.log_dir) / folder.name
        found, missing = {}, {}
        for name in _NEEDED:
            try:
                found[name] = _read_scores(log_dir / name, saved, is_best=step == checkpoints.find(folder))
            except UserError as error:
                found[name], missing[name] = {}, str(error)
        log = _read_log(log_dir / "metrics.jsonl")
        return cls(path, folder, log_dir, saved, log, found["evaluation.json"], found["rollout.json"], missing)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The log's rows of that kind."""
        return [row for row in self.log if row["kind"] == "epoch"]


def assemble(name: str, run: Run, runs: Sequence[Run]) -> tuple[Row, list[str]]:
    """A run's row, but for its latency, and a line for each thing it lacks, with the command that makes it.

    Args:
        runs: all that are compared: what one lacks is to be played as the others were.
    """
    saved = run.saved
    row: Row = {
        "run": name,
        "checkpoint": str(saved.path),
        "step": saved.step,
        "model": saved.config.model.name,
        "parameters": abstract_model(saved.config, saved.inputs).parameter_count,
        "checkpoint_mb": sum(file.stat().st_size for file in saved.path.rglob("*") if file.is_file()) / 1e6,
        **training_costs(run.epochs, saved),
        **validation_scores(run.validation),
        **play_scores(run.play),
    }
    lacks = []
    if row["minutes"] is None:
        again = f"{COMMAND} --config {shlex.quote(f'{run.log_dir}/config.yaml')} training.resume=never"
        lacks.append(f"{run.log_dir / 'metrics.jsonl'} lacks its epochs; only training anew writes them: {again}")
    evaluation = _command(run, "evaluate", [str(run.path)], "evaluation.json")
    if "onset_f1" not in run.validation:  # nor has an older evaluation.json
        reason = run.missing.get("evaluation.json", f"{run.log_dir / 'evaluation.json'} has no onset F1")
        lacks.append(f"{reason}: {evaluation}")
    elif saved.split["test"] and "test" not in run.validation:
        lacks.append(f"{run.log_dir / 'evaluation.json'} has no scores of the test split: {evaluation}")
    if not run.play:
        lacks.append(f"{run.missing['rollout.json']}: {play_command(run, runs)}")
    elif row["normalized"] is None:
        lacks.append(f"{run.play['game']} has no score of an expert better than random to normalise by")
    elif row["normalized_low"] is None and row["episodes"] == 1:
        lacks.append(f"one episode has no interval: {play_command(run, [run], episodes=RolloutConfig('').episodes)}")
    elif "normalized_ci95" not in run.play:
        lacks.append(
            f"{run.log_dir / 'rollout.json'} is of an earlier version, without the returns of random and the expert "
            f"that an interval takes: {play_command(run, [run])}"
        )
    if "thresholds" in run.validation.get("chosen_here", ()):
        lacks.append("its thresholds were tuned on the frames of its validation scores: expect less on others")
    if seen := run.play.get("seen"):
        lacks.append(seen_text(seen, run.play["episodes"]))
    return row, [f"{name}: {line}" for line in lacks]


def names_of(runs: Sequence[Run]) -> list[str]:
    """What the runs are called: their folders' names, or the paths of those that share one.

    Raises:
        UserError: two are the same run.
    """
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
            same_buttons = run.saved.inputs.action_names == other.saved.inputs.action_names
            alike = f", or play alike: {play_command(run, [other])}" if same_buttons else ""
            raise UserError(
                f"{name} played {_played(run)} but {first} {_played(other)}, which does not compare; leave one "
                f"out{alike}"
            )


def incomparable(names: Sequence[str], runs: Sequence[Run]) -> tuple[list[str], set[str]]:
    """What the rows do not share: lines that say so, and the columns without a best value for that."""
    lines, columns = [], set()
    labels = {
        name: (
            run.saved.fingerprint,
            sorted(run.saved.split["val"]),
            sorted(run.saved.split["test"]),
            run.saved.inputs.action_names,
            run.saved.inputs.window.action_shift,
        )
        for name, run in zip(names, runs, strict=True)
        if run.validation
    }
    if len(different := _different(labels)) > 1:
        lines.append(f"validation scores of {' and '.join(different)} do not compare: they are of other labels")
        columns |= {"exact_match", "macro_f1", "rarest_f1", "onset_f1"}
        columns |= {"test_exact_match", "test_macro_f1", "test_onset_f1"}
    means = {
        name: (run.play["random_mean"], run.play["expert_mean"])
        for name, run in zip(names, runs, strict=True)
        if run.play
    }
    if len(different := _different(means)) > 1:
        each = "; ".join(f"{name}: random {means[name][0]}, expert {means[name][1]}" for name in different)
        lines.append(f"scores are normalised by means over other episodes ({each})")
    return lines, columns


def _different(values: dict[str, Any]) -> list[str]:
    """Of each different value, the first name that has it."""
    found: list[str] = []
    for name, value in values.items():
        if all(values[other] != value for other in found):
            found.append(name)
    return found


def _played(run: Run) -> str:
    return f"{run.play['game']} from seed {run.play['seed']}"


def play_command(run: Run, others: Sequence[Run], **changes: Any) -> str:
    """The command that plays ``run`` as one of ``others`` with its buttons was played, or as its config says."""
    inputs, options = run.saved.inputs, {}
    if run.saved.config.evaluation.rollout is not None:
        options = vars(run.saved.config.evaluation.rollout)
    for other in reversed(others):
        if other.play and other.saved.inputs.action_names == inputs.action_names:
            options = other.play
    options = {name: options[name] for name in ("game", "episodes", "seed") if name in options} | changes
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return _command(run, "rollout", ["--player", str(run.path), *arguments], "rollout.json")


def _command(run: Run, verb: str, arguments: Sequence[str], file: str) -> str:
    """The command that writes ``file`` of the run's logs."""
    folder = "" if run.log_dir.is_dir() else f"mkdir -p {shlex.quote(str(run.log_dir))} && "
    return f"{folder}{COMMAND} {verb} {shlex.join([*arguments, '--json', str(run.log_dir / file)])}"


def _read_scores(file: Path, saved: checkpoints.Checkpoint, is_best: bool) -> dict[str, Any]:
    """Raises a UserError that says why ``file`` is not of the checkpoint as it decodes now.

    Args:
        is_best: of its run. Older files do not say what they are of: of that one, as training leaves them.
    """
    try:
        scores = json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no {file}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({error})") from error
    whole = isinstance(scores, dict) and set(_NEEDED[file.name]) <= scores.keys()
    if not whole or not all(_is_number(scores.get(name, 0)) for name in ("seed", "episodes", "mean")):
        raise UserError(f"{file} is damaged")
    means = [scores.get(name) for name in ("random_mean", "expert_mean", "failed")]
    intervals = [scores.get(name) for name in ("ci95", "normalized_ci95", "failed_ci95", "random_ci95", "expert_ci95")]
    right = all(x is None or _is_number(x) for x in means) and all(x is None or _is_interval(x) for x in intervals)
    if seen := scores.get("seen"):
        right &= isinstance(seen, dict) and all(_is_number(seen.get(k)) for k in ("trained", "chosen", "free"))
    if not right:
        raise UserError(f"{file} is damaged")
    if scores.get("step", saved.step if is_best else None) != saved.step:
        raise UserError(f"{file} is not of step {saved.step}")
    if scores.get("split", "val") != "val":
        raise UserError(f"{file} is of split '{scores['split']}'")
    if scores.get("decoding", decoding := saved.decoding.to_dict()) != decoding:
        raise UserError(f"{file} is of other thresholds or rules of decoding than the checkpoint has")
    return scores


def _is_number(value: Any) -> bool:
    return finite(value) is not None


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _read_log(file: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        for row in rows:
            if not min(row[name] for name in _LOGGED.get(row["kind"], ("step",))) > 0:
                raise ValueError(row)
        return rows
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is damaged ({error!r}): restore it, or move it away to go on without it") from error
