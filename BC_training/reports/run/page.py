"""The page of a run's report, drawn from its findings."""

import math
import statistics
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from BC_training.common.metrics import return_text
from BC_training.play.intervals import interval_text
from BC_training.play.results import RolloutResult
from BC_training.reports.charts import (
    Line,
    amounts_plot,
    empty_chart,
    line_chart,
    precision_recall_plot,
    reliability_plot,
)
from BC_training.reports.page import clean, fill, percent
from BC_training.reports.run.findings import APART, Findings, video_file
from BC_training.training.seeds import seen_text

_AXIS_LINES = 4  # a chart has so many colours
_BASELINES = {"majority": "always the commonest combination", "repeat_previous": "repeat the frame before"}
_EPOCH = ("train_loss", "loss", "exact_match", "change_match", "macro_f1", "onset_f1", "rollout", "frames_per_second")


def render(found: Findings) -> str:
    """The page."""
    run, scores, play = found.run, found.scores, found.run.play
    saved, decoding = run.saved, run.saved.decoding
    held = [(name, s) for name, s in zip(found.names, scores.per_action.values(), strict=True) if s.frequency]
    losses = [(r["loss"], r["epoch"]) for r in run.log if r["kind"] == "val" and _is_finite(r.get("loss"))]
    thresholds = decoding.thresholds.values()
    video = video_file(run)
    height, width = saved.inputs.frame_size
    return fill(
        "run/report.html",
        name=clean(run.folder.name),
        checkpoint=clean(saved.path, 300),
        found=found,
        scores=scores,
        decoding=decoding,
        play=play,
        facts={
            "dataset": found.dataset,
            "frames": f"{height} × {width} pixels, {saved.inputs.window.history} at once",
            "best by": saved.config.evaluation.best_metric,
        },
        tiles=_tiles(found),
        lacks=[f"{part}: {reason}" for part, reason in found.missing.items()],
        weakest_axis=min(scores.per_axis.items(), key=lambda entry: entry[1].within_one_bin, default=None),
        weakest=sorted(held, key=lambda entry: (entry[1].f1, entry[0]))[:2],
        lowest=(min(losses)[1], losses[-1][1]) if len(losses) > 1 else None,
        **(_play_parts(play) if play else {}),
        video_name=None if video is None else clean(video, 300),
        curves=_curves(found) if run.log else [],
        epochs=_epochs(found) if saved.config.finetune is None else {},
        compared={"this policy": scores} | {words: scores.baselines[key] for key, words in _BASELINES.items()},
        weights=saved.config.training.class_weights,
        **_axis_plots(found),
        reliability=([] if found.pooled is None else [reliability_plot("all actions", found.pooled)])
        + [reliability_plot(*pair) for pair in zip(found.names, found.reliability, strict=True)],
        precision_recall=[
            precision_recall_plot(
                name,
                curve,
                s.frequency or 0,
                (threshold, None if s.precision is None or s.recall is None else (s.recall, s.precision)),
            )
            for name, curve, s, threshold in zip(
                found.names, found.curves, scores.per_action.values(), thresholds, strict=True
            )
        ],
        apart=APART,
        shift=saved.inputs.window.action_shift,
    )


def _tiles(found: Findings) -> list[tuple[str, str, str]]:
    saved, scores, costs, play = found.run.saved, found.scores, found.costs, found.run.play
    kind = saved.path.parent.name
    minutes, speed = costs.minutes, costs.frames_per_second
    played, note = "–", "not played"
    if play:
        played = return_text(play.mean) if play.normalized is None else f"{play.normalized:.2f}"
        note = f"mean return {return_text(play.mean)}" + interval_text(play.ci95, return_text)
    tiles = [
        ("Model", saved.config.model.name, f"{found.parameters:,} parameters"),
        (
            "Checkpoint",
            f"step {saved.step:,}",
            f"epoch {saved.epoch} of {saved.config.training.num_epochs}" + f", {kind}" * (kind in ("best", "last")),
        ),
        ("Trained for", "–" if minutes is None else f"{minutes:.1f} min", f"{speed:,.0f} frames/s" if speed else ""),
        ("Scored on", scores.split, f"{found.episodes:,} episodes, {scores.frames:,} frames"),
        ("Exact match", percent(scores.exact_match), f"{percent(scores.change_match)} where {_done(found)} change"),
    ]
    if test := scores.test:
        note_test = f"{test.frames:,} frames that nothing was chosen by"
        tiles.append(("Exact match, test split", percent(test.exact_match), note_test))
    return [*tiles, ("In play", played, note)]


def _done(found: Findings) -> str:
    """What a frame's label is called."""
    return "actions" if found.axes else "buttons"


def _axis_plots(found: Findings) -> dict[str, list[Markup]]:
    """Plots of each axis: predicted against recorded "amounts", and "errors" over the frames of the split."""
    plots: dict[str, list[Markup]] = {"amounts": [], "errors": []}
    if found.axes is None:
        return plots
    fps = found.run.saved.inputs.fps
    unit, rate = ("second", fps) if fps else ("frame", 1.0)
    true, previous = found.axes.targets, found.axes.previous
    for i, (name, scores) in enumerate(zip(found.axis_names, found.scores.per_axis.values(), strict=True)):
        words = f"at most one bin off in {percent(scores.within_one_bin)}"
        plots["amounts"].append(amounts_plot(name, words, true[:, i], found.moved[:, i], found.axes.bins, i))
        errors = {"this policy": found.moved[:, i], "repeat the frame before": previous[:, i], "kept at 0": 0.0}
        lines = []
        for who, amounts in errors.items():
            off = abs(true[:, i] - amounts).tolist()
            lines.append(Line(who, [(t / rate, error) for t, error in enumerate(off)], dashed=who != "this policy"))
        plots["errors"].append(line_chart(f"{name}, by {unit}s", lines, len(true) / rate, unit=unit))
    return plots


def _play_parts(play: RolloutResult) -> dict[str, Any]:
    last = play.seed + play.episodes - 1
    played = f"{clean(play.game)}, seeds {play.seed} to {last}"
    seen = f" Attention: {seen_text(play.seen, play.episodes)}." if play.seen else ""
    return {"played": played, "attention": clean(seen, 300), "median": statistics.median(play.returns)}


def _curves(found: Findings) -> list[Markup]:
    """The charts of what was logged while training."""
    log, step = found.run.log, found.run.saved.step
    steps = max(r["step"] for r in log)

    def line(name: str, kind: str, key: str, rows: Iterable[dict[str, Any]] = log, **style: Any) -> Line:
        points = [(r["step"], r[key]) for r in rows if r["kind"] == kind and _is_finite(r.get(key))]
        return Line(name, points, **style)

    played = [r for r in log if r["kind"] == "rollout" and "epoch" in r]
    band = [(r["step"], r["ci95_low"], r["ci95_high"]) for r in played if "ci95_low" in r]
    in_play = [line("mean return", "rollout", "mean", played, band=band)]
    in_play += [line(who, "rollout", f"{who}_mean", played, dashed=True) for who in ("clone", "expert", "random")]
    matches = [line("all frames", "val", "exact_match"), line(f"where {_done(found)} change", "val", "change_match")]
    matches.append(line("repeating, all frames", "val", "baselines/repeat_previous/exact_match", dashed=True))
    f1 = [line("macro", "val", "macro_f1"), line("onset", "val", "onset_f1")]
    f1.append(line("repeating, macro", "val", "baselines/repeat_previous/macro_f1", dashed=True))
    of_buttons = [line_chart("F1, validation", f1, steps, step, unit_range=True)] if found.names else []
    of_axes = []
    if names := [*found.scores.per_axis]:
        shown = zip(found.axis_names[:_AXIS_LINES], names, strict=False)
        near = [line(name, "val", f"per_axis/{key}/within_one_bin") for name, key in shown]
        of_axes.append(line_chart("At most one bin off, validation", near, steps, step, unit_range=True))
    if found.run.saved.config.finetune is not None:
        return [*_of_finetuning(log, steps), line_chart("Return in play", in_play, steps, step)]
    not_played = "Not played while training: evaluation.rollout.every_n_epochs is not set."
    return [
        line_chart("Loss", [line("training", "train", "loss"), line("validation", "val", "loss")], steps, step),
        line_chart("Learning rate", [line("learning rate", "train", "learning_rate")], steps),
        line_chart("Gradient norm", [line("before clipping", "train", "grad_norm")], steps),
        line_chart("Exact match, validation", matches, steps, step, unit_range=True),
        *of_buttons,
        *of_axes,
        line_chart("Return in play", in_play, steps, step) if played else empty_chart("Return in play", not_played),
    ]


def _of_finetuning(log: Iterable[dict[str, Any]], steps: int) -> list[Markup]:
    """The charts of a fine-tuning, over agent steps."""
    rows = [row for row in log if "kl" in row]

    def line(name: str, key: str) -> Line:
        return Line(name, [(row["step"], row[key]) for row in rows if _is_finite(row.get(key))])

    shares = [line("games", "data_wait"), line("inference", "inference"), line("update", "update")]
    return [
        line_chart("Return of the last 100 episodes", [line("while learning", "return")], steps),
        line_chart("KL divergence from the clone, nats a step", [line("KL", "kl")], steps),
        line_chart("Weight of the divergence", [line("weight", "kl_weight")], steps),
        line_chart("Entropy, nats a step", [line("entropy", "entropy")], steps),
        line_chart("Loss of the value head", [line("value", "value_loss")], steps),
        line_chart("Variance of returns that values foresaw", [line("share", "explained_variance")], steps),
        line_chart("Share of clipped steps", [line("clipped", "clipped")], steps, unit_range=True),
        line_chart("Agent steps a second", [line("all", "frames_per_second")], steps),
        line_chart("Shares of the time", shares, steps, unit_range=True),
    ]


def _epochs(found: Findings) -> dict[int, dict[str, float | None]]:
    """What was logged of each epoch."""
    epochs: dict[int, dict[str, float | None]] = {}
    for r in found.run.log:
        if r["kind"] in ("epoch", "val") and "epoch" in r:
            epochs.setdefault(r["epoch"], dict.fromkeys(_EPOCH)).update(r)
    return epochs


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
