"""Sections of a run's report, each HTML from its findings; every text passes ``escape``."""

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from BC_training.common.events import KINDS
from BC_training.common.metrics import number as three
from BC_training.common.metrics import return_text
from BC_training.reports.charts import Line, line_chart, precision_recall_plot
from BC_training.reports.page import bar, number, percent, row, table
from BC_training.reports.run.findings import Findings, WorstFrame

_BASELINES = {"majority": "always the commonest combination", "repeat_previous": "repeat the frame before"}


def curves(found: Findings) -> str:
    log, step = found.run.log, found.run.saved.step
    steps = max(r["step"] for r in log)

    def points(kind: str, key: str, rows: Iterable[dict[str, Any]] = log) -> list[tuple[float, float]]:
        return [(r["step"], r[key]) for r in rows if r["kind"] == kind and is_finite(r.get(key))]

    played = [r for r in log if r["kind"] == "rollout" and "epoch" in r]
    band = [(r["step"], r["ci95_low"], r["ci95_high"]) for r in played if "ci95_low" in r]
    repeat = "baselines/repeat_previous"
    in_play = [Line("mean return", points("rollout", "mean", played), band=band)]
    in_play += [Line(who, points("rollout", f"{who}_mean", played), dashed=True) for who in ("expert", "random")]
    loss = [Line("training", points("train", "loss")), Line("validation", points("val", "loss"))]
    not_played = empty("Not played while training: evaluation.rollout.every_n_epochs is not set.")
    charts = [
        line_chart("Loss", loss, steps, step),
        line_chart("Learning rate", [Line("learning rate", points("train", "learning_rate"))], steps),
        line_chart("Gradient norm", [Line("before clipping", points("train", "grad_norm"))], steps),
        line_chart(
            "Exact match, validation",
            [
                Line("all frames", points("val", "exact_match")),
                Line("where buttons change", points("val", "change_match")),
                Line("repeating, all frames", points("val", f"{repeat}/exact_match"), dashed=True),
            ],
            steps,
            step,
            unit_range=True,
        ),
        line_chart(
            "F1, validation",
            [
                Line("macro", points("val", "macro_f1")),
                Line("onset", points("val", "onset_f1")),
                Line("repeating, macro", points("val", f"{repeat}/macro_f1"), dashed=True),
            ],
            steps,
            step,
            unit_range=True,
        ),
        line_chart("Return in play", in_play, steps, step)
        if played
        else f"<figure><figcaption><b>Return in play</b></figcaption>{not_played}</figure>",
    ]
    return f'<div class="grid charts">{"".join(charts)}</div>'


def epochs(found: Findings) -> str:
    by_epoch: dict[int, dict[str, float]] = {}
    for r in found.run.log:
        if r["kind"] in ("epoch", "val") and "epoch" in r:
            by_epoch.setdefault(r["epoch"], {}).update(r)
    if not by_epoch:
        return ""
    keys = ("train_loss", "loss", "exact_match", "change_match", "macro_f1", "onset_f1")
    rows = [
        row(
            str(epoch),
            (
                f"{values['step']:,}",
                *(three(values.get(key)) for key in keys),
                return_text(values.get("rollout")),
                number(values.get("frames_per_second"), ",.0f"),
            ),
        )
        for epoch, values in by_epoch.items()
    ]
    headings = (
        "epoch",
        "step",
        "training loss",
        "validation loss",
        "exact match",
        "at changes",
        "macro F1",
        "onset F1",
    )
    return table((*headings, "return", "frames/s"), rows, "Each epoch")


def scores(found: Findings) -> str:
    keys = ("exact_match", "change_match", "macro_f1", "onset_f1", "l1", "l2", "kl")
    of = {"this policy": found.scores} | {words: found.scores["baselines"][key] for key, words in _BASELINES.items()}
    of |= {"this policy, test split": found.scores["test"]} if "test" in found.scores else {}
    rows = (row(name, (three(values.get(key)) for key in keys)) for name, values in of.items())
    headings = ("", "exact match", "at changes", "macro F1", "onset F1", "L1", "L2", "KL")
    return table(headings, rows, "Scores beside the baselines", "plain")


def events(found: Findings) -> str:
    of = {"this policy": found.scores} | {words: found.scores["baselines"][key] for key, words in _BASELINES.items()}
    rows = []
    for name, values in of.items():
        exact, within = values["events"]["exact"], values["events"]["within"]
        cells = []
        for kind in KINDS:
            cells.append(f"{exact[kind]['predicted']:,} / {exact[kind]['recorded']:,}")
            cells += [three(exact[kind]["f1"]), three(within[kind]["f1"])]
        rows.append(row(name, cells))
    near = f"F1 ± {found.scores['events']['tolerance']}"
    headings = ("", "presses", "F1", near, "releases", "F1", near)
    return table(headings, rows, "Presses and releases beside the baselines", "plain")


def actions(found: Findings) -> str:
    keys = ("accuracy", "precision", "recall", "f1")
    base = [found.scores["baselines"][key]["per_action"] for key in _BASELINES]
    rows = []
    thresholds = found.run.saved.decoding.thresholds.values()
    for a, ((key, s), threshold) in enumerate(zip(found.scores["per_action"].items(), thresholds, strict=True)):
        curve = found.curves[a]
        shares = [percent(s["frequency"]), percent(s["predicted_frequency"]), f"{threshold:.3g}"]
        quality = [three(None if curve is None else curve.average), three(found.reliability[a].error)]
        f1 = [*(three(s[k]) for k in keys), bar(s["f1"])]
        rows.append(row(found.names[a], (*shares, *f1, *(three(b[key]["f1"]) for b in base), *quality)))
    headings = ("action", "held", "predicted", "threshold", "accuracy", "precision", "recall", "F1", "")
    headings = (*headings, "F1 majority", "F1 repeat", "AP", "cal. error")
    buttons = (f'<button type="button">{heading}</button>' if heading else "" for heading in headings)
    return table(buttons, rows, "Scores of each action", "sortable wide")


def weighted(found: Findings) -> str:
    training = found.run.saved.config.training
    if training.class_weights == "none":
        return ""
    return (
        f"This run weighs the loss where a button is held (<code>class_weights={training.class_weights}</code>): a "
        "rare button’s probabilities are meant to be higher than its frequency, so its dots lie below the diagonal."
    )


def precision_recall(found: Findings) -> str:
    plots = []
    thresholds = found.run.saved.decoding.thresholds.values()
    for a, (s, threshold) in enumerate(zip(found.scores["per_action"].values(), thresholds, strict=True)):
        is_placed = s["precision"] is not None and s["recall"] is not None
        place = (s["recall"], s["precision"]) if is_placed else None
        chosen = threshold, place
        plots.append(precision_recall_plot(found.names[a], found.curves[a], s["frequency"], chosen))
    return "".join(plots)


def mistakes(found: Findings) -> str:
    if not found.mistakes:
        return empty("None: every frame is exactly right.")
    rows = [
        row(
            combination(found.names, true),
            (escape(combination(found.names, predicted)), f"{count:,}", percent(count / found.scores["frames"])),
        )
        for true, predicted, count in found.mistakes
    ]
    return table(("recorded", "predicted", "frames", "share"), rows, "The commonest mistakes", "words")


def worst_frame(worst: WorstFrame, names: Sequence[str]) -> str:
    chips = []
    for name, held, predicted, p in zip(names, worst.true, worst.predicted, worst.probability.tolist(), strict=True):
        kind, sign = {(1, 1): ("hit", "✓"), (1, 0): ("missed", "−"), (0, 1): ("wrong", "+"), (0, 0): ("off", "")}[
            int(held), int(predicted)
        ]
        chips.append(f'<span class="chip {kind}">{sign}{"&nbsp;" * bool(sign)}{escape(name)} <i>{p:.2f}</i></span>')
    words = {
        "recorded": combination(names, worst.true.nonzero()[0].tolist()),
        "predicted": combination(names, worst.predicted.nonzero()[0].tolist()),
    }
    caption = f"{worst.place}: " + "; ".join(f"{who} {what}" for who, what in words.items())
    if isinstance(worst.picture, bytes):
        source = base64.b64encode(worst.picture).decode()
        picture = f'<img src="data:image/jpeg;base64,{source}" alt="{escape(caption)}">'
    else:
        picture = empty(f"The frame cannot be read: {worst.picture}")
    return (
        f"<figure>{picture}<figcaption><span>{escape(worst.place)}</span><span>loss {worst.loss:.2f}</span>"
        f'<div class="chips">{"".join(chips)}</div></figcaption></figure>'
    )


def combination(names: Sequence[str], held: Sequence[int]) -> str:
    return " + ".join(names[a] for a in held) or "nothing held"


def empty(text: str) -> str:
    return f'<p class="empty">{escape(text)}</p>'


def is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
