"""Writes a page about a run: its training, its scores, its play and its mistakes."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from BC_training.common.files import disk_full_is_user_error, require_writable
from BC_training.evaluation.evaluate import score
from BC_training.evaluation.results import Evaluation
from BC_training.evaluation.split_predictions import SplitPredictions, predict_split
from BC_training.play.say import say
from BC_training.reports.compare.runs import Run
from BC_training.reports.run.findings import find
from BC_training.reports.run.page import render


def report(
    checkpoint: Path,
    console: Console,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    out: Path | None = None,
) -> Path:
    """Writes the page of a checkpoint's run and returns its file.

    Args:
        data, split: what to predict, as in ``evaluate``.
        out: the HTML file; None for report.html in the run's folder of logs.

    Raises:
        UserError: checkpoint or dataset do not load or fit, the log is damaged, or the file cannot be written (before
            any work). The page itself names parts that are merely absent.
    """
    run = Run.read(checkpoint)
    out = out or run.log_dir / "report.html"
    require_writable(out)
    predictions = predict_split(checkpoint, console, data=data, split=split)
    saved = predictions.saved
    scores = score(predictions, saved.decoding)
    if split is None and data is None and saved.split["test"]:
        test = predict_split(checkpoint, console, split="test")
        scores = replace(scores, test=score(test, saved.decoding))
    missing = save_report(run, predictions, scores, out)
    for part, reason in missing.items():
        say(console, f"not in the report: {part}: {reason}")
    say(console, f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return out


def save_report(run: Run, predictions: SplitPredictions, scores: Evaluation, out: Path) -> dict[str, str]:
    """Writes the page of ``run`` to ``out`` and returns why it lacks parts, by their names."""
    findings = find(run, predictions, scores)
    with disk_full_is_user_error(out):
        out.write_text(render(findings), encoding="utf-8")
    return findings.missing
