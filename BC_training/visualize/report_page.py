"""The page of a run's report, drawn from its findings; every text passes ``escape``."""

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from BC_training.common.metrics import number as three
from BC_training.visualize.charts import Line, line_chart, precision_recall_plot, reliability_plot
from BC_training.visualize.page import as_tiles, bar, clean, fill, heat_map, number, percent, row, table, warning
from BC_training.visualize.report_findings import APART, Findings, WorstFrame

_TEMPLATE = Path(__file__).with_name("report.html")
_BASELINES = {"majority": "always the commonest combination", "repeat_previous": "repeat the frame before"}


def render(found: Findings) -> str:
    """The page."""
    saved, log = found.run.saved, found.run.log
    parts = {
        "title": escape(clean(found.run.folder.name)),
        "checkpoint": escape(clean(saved.path, 300)),
        "facts": _facts(found),
        "tiles": as_tiles(_tiles(found)),
        "first": "".join(f"<li>{line}</li>" for line in _read_first(found)),
        "missing": warning("What this report lacks:", found.missing),
        "curves": _curves(found) if log else _empty("The run has no log."),
        "epochs": _epochs(found),
        "scores": _scores(found),
        "actions": _actions(found),
        "play": _play(found),
        "video": _video(found),
        "pooled": reliability_plot("all actions", found.pooled),
        "reliability": "".join(map(reliability_plot, found.names, found.reliability)),
        "weighted": _weighted(found),
        "precision_recall": _precision_recall(found),
        "pair_width": str(150 + 48 * len(found.names)),  # where they do not fit, one is under the other
        "given_held": heat_map(found.names, found.given_held, "Share of the row's frames with the column predicted"),
        "instead": heat_map(
            found.names, found.instead, "Share of the row's missed frames with the column in its place"
        ),
        "mistakes": _mistakes(found),
        "worst": "".join(_worst(w, found.names) for w in found.worst),
        "apart": f"{APART:g} s",
        "config": escape(found.config),
    }
    return fill(_TEMPLATE, parts)


def _facts(found: Findings) -> str:
    saved = found.run.saved
    inputs, evaluation = saved.inputs, saved.config.evaluation
    height, width = inputs.frame_size
    facts = {
        "trained on": saved.device or "a device the checkpoint does not name",
        "dataset": found.dataset,
        "frames": f"{height} × {width} pixels, {inputs.window.history} at once",
        "best by": evaluation.best_metric,
    }
    return " · ".join(f"<b>{name}</b> {escape(clean(fact, 300))}" for name, fact in facts.items())


def _tiles(found: Findings) -> list[tuple[str, str, str]]:
    saved, scores, costs, play = found.run.saved, found.scores, found.costs, found.run.play
    kind = saved.path.parent.name
    interval = play.get("ci95")
    minutes, speed = costs["minutes"], costs["frames_per_second"]
    return [
        ("Model", escape(saved.config.model.name), f"{found.parameters:,} parameters"),
        (
            "Checkpoint",
            f"step {saved.step:,}",
            f"epoch {saved.epoch} of {saved.config.training.num_epochs}" + f", {kind}" * (kind in ("best", "last")),
        ),
        ("Trained for", "–" if minutes is None else f"{minutes:.1f} min", f"{speed:,.0f} frames/s" if speed else ""),
        ("Scored on", escape(scores["split"]), f"{found.episodes:,} episodes, {scores['frames']:,} frames"),
        ("Exact match", percent(scores["exact_match"]), f"{percent(scores['change_match'])} where buttons change"),
        (
            "In play",
            "–"
            if not play
            else number(play["normalized"])
            if play["normalized"] is not None
            else f"{play['mean']:.0f}",
            "not played"
            if not play
            else f"mean return {play['mean']:,.0f}"
            + (f" ({interval[0]:,.0f} to {interval[1]:,.0f})" if interval else ""),
        ),
    ]


def _read_first(found: Findings) -> list[str]:
    """The few sentences with which to begin, HTML."""
    scores, play = found.scores, found.run.play
    lines = []
    if play and play["normalized"] is not None:
        lines.append(
            f'<a href="#play">In play</a> it scores <b>{play["normalized"]:.2f}</b>, where random buttons score 0 and '
            f"the expert 1, over {play['episodes']} episodes. That is the measure; the scores below are on recordings."
        )
    elif play:
        lines.append(
            f'<a href="#play">In play</a> its mean return is <b>{play["mean"]:,.0f}</b> over {play["episodes"]} episodes.'
        )
    else:
        lines.append("It has not been played. Scores on recordings alone say little about how well it plays.")
    repeat = scores["baselines"]["repeat_previous"]
    lines.append(
        f'It is <a href="#scores">exactly right</a> in <b>{percent(scores["exact_match"])}</b> of the frames; repeating '
        f"the buttons of the frame before would be in {percent(repeat['exact_match'])}. On the "
        f"{scores['change_frames']:,} frames where the buttons change it is right in "
        f"<b>{percent(scores['change_match'])}</b>, repeating in none."
    )
    held = {name: s for name, s in zip(found.names, scores["per_action"].values(), strict=True) if s["frequency"]}
    weakest = sorted(held, key=lambda name: held[name]["f1"] or 0)[:2]
    if weakest:
        named = " and ".join(
            f"<b>{escape(name)}</b> (F1 {three(held[name]['f1'])}, held in {percent(held[name]['frequency'])} of frames)"
            for name in weakest
        )
        lines.append(f'<a href="#actions">Weakest</a>: {named}.')
    if found.mistakes:
        true, predicted, count = found.mistakes[0]
        lines.append(
            f'The commonest <a href="#confusions">mistake</a>: {escape(_combination(found.names, predicted))} where the '
            f"recording has {escape(_combination(found.names, true))}, in {percent(count / scores['frames'])} of frames."
        )
    losses = [(r["loss"], r["epoch"]) for r in found.run.log if r["kind"] == "val" and _finite(r.get("loss"))]
    if len(losses) > 1:
        lowest, last = min(losses)[1], losses[-1][1]
        then = "so it may gain from more epochs" if lowest == last else f"training went on to epoch {last}"
        lines.append(f'The <a href="#training">validation loss</a> was lowest after epoch {lowest}; {then}.')
    return lines


def _curves(found: Findings) -> str:
    log, step = found.run.log, found.run.saved.step
    steps = max(r["step"] for r in log)

    def points(kind: str, key: str, rows: Iterable[dict] = log) -> list[tuple[float, float]]:
        return [(r["step"], r[key]) for r in rows if r["kind"] == kind and _finite(r.get(key))]

    played = [r for r in log if r["kind"] == "rollout" and "epoch" in r]
    band = [(r["step"], r["ci95_low"], r["ci95_high"]) for r in played if "ci95_low" in r]
    repeat = "baselines/repeat_previous"
    in_play = [Line("mean return", points("rollout", "mean", played), band=band)]
    in_play += [Line(who, points("rollout", f"{who}_mean", played), dashed=True) for who in ("expert", "random")]
    every = "evaluation.rollout.every_n_epochs"
    charts = [
        line_chart(
            "Loss", [Line("training", points("train", "loss")), Line("validation", points("val", "loss"))], steps, step
        ),
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
        else f"<figure><figcaption><b>Return in play</b></figcaption>{_empty(f'Not played while training ({every}).')}</figure>",
    ]
    return f'<div class="grid charts">{"".join(charts)}</div>'


def _epochs(found: Findings) -> str:
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
                number(values.get("rollout"), ",.0f"),
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


def _scores(found: Findings) -> str:
    keys = ("exact_match", "change_match", "macro_f1", "onset_f1", "l1", "l2", "kl")
    of = {"this policy": found.scores} | {words: found.scores["baselines"][key] for key, words in _BASELINES.items()}
    rows = (row(name, (three(values.get(key)) for key in keys)) for name, values in of.items())
    headings = ("", "exact match", "at changes", "macro F1", "onset F1", "L1", "L2", "KL")
    return table(headings, rows, "Scores beside the baselines")


def _actions(found: Findings) -> str:
    keys = ("accuracy", "precision", "recall", "f1")
    base = [found.scores["baselines"][key]["per_action"] for key in _BASELINES]
    rows = []
    for a, (key, s) in enumerate(found.scores["per_action"].items()):
        curve = found.curves[a]
        shares = [percent(s["frequency"]), percent(s["predicted_frequency"]), f"{found.thresholds[a]:.3g}"]
        quality = [three(None if curve is None else curve.average), three(found.reliability[a].error)]
        f1 = [*(three(s[k]) for k in keys), bar(s["f1"])]
        rows.append(row(found.names[a], (*shares, *f1, *(three(b[key]["f1"]) for b in base), *quality)))
    headings = ("action", "held", "predicted", "threshold", "accuracy", "precision", "recall", "F1", "")
    headings = (*headings, "F1 majority", "F1 repeat", "avg. precision", "cal. error")
    buttons = (f'<button type="button">{heading}</button>' if heading else "" for heading in headings)
    return table(buttons, rows, "Scores of each action", "sortable wide")


def _play(found: Findings) -> str:
    play = found.run.play
    if not play:
        return _empty(next(line for line in found.missing if line.startswith("play: ")))
    interval, returns = play["ci95"], sorted(play.get("returns", []))
    span = play["seed"], play["seed"] + play["episodes"] - 1
    tiles = [
        (
            "Mean return",
            f"{play['mean']:,.0f}",
            f"95 % interval {interval[0]:,.0f} to {interval[1]:,.0f}" if interval else "",
        ),
        ("Normalized", number(play["normalized"]), _normalized_interval(play)),
        ("Expert", number(play["expert_mean"], ",.0f"), "mean return, same seeds"),
        ("Random", number(play["random_mean"], ",.0f"), "mean return, same seeds"),
    ]
    if returns:
        middle = returns[len(returns) // 2]
        tiles.append(("Median return", f"{middle:,.0f}", f"lowest {returns[0]:,.0f}, highest {returns[-1]:,.0f}"))
    what = f"{clean(play['game'])}, skill {play['skill']}, seeds {span[0]} to {span[1]}"
    delay = f", actions {play['delay']} tics late" if play.get("delay") else ""
    return f'<p>{escape(what + delay)}.</p><dl class="tiles">{as_tiles(tiles)}</dl>'


def _normalized_interval(play: dict) -> str:
    low, high, interval = play["random_mean"], play["expert_mean"], play["ci95"]
    if interval is None or high is None or high == low:
        return "random 0, expert 1"
    return "95 % interval {:.2f} to {:.2f}".format(*((end - low) / (high - low) for end in interval))


def _video(found: Findings) -> str:
    if found.video is None:
        return _empty(f"No video: {found.video_note}.")
    return (
        f'<figure class="film"><video controls preload="metadata" src="data:video/mp4;base64,{found.video}"></video>'
        f"<figcaption><span>{escape(clean(found.video_note, 300))}</span></figcaption></figure>"
    )


def _weighted(found: Findings) -> str:
    training = found.run.saved.config.training
    if training.class_weights == "none":
        return ""
    return (
        f"This run weighs the loss where a button is held (<code>training.class_weights={training.class_weights}</code>): "
        "a rare button’s probabilities are meant to be higher than its frequency, and its dots lie below the diagonal."
    )


def _precision_recall(found: Findings) -> str:
    plots = []
    for a, s in enumerate(found.scores["per_action"].values()):
        is_placed = s["precision"] is not None and s["recall"] is not None
        place = (s["recall"], s["precision"]) if is_placed else None
        chosen = float(found.thresholds[a]), place
        plots.append(precision_recall_plot(found.names[a], found.curves[a], s["frequency"], chosen))
    return "".join(plots)


def _mistakes(found: Findings) -> str:
    if not found.mistakes:
        return _empty("None: every frame is exactly right.")
    rows = [
        row(
            _combination(found.names, true),
            (escape(_combination(found.names, predicted)), f"{count:,}", percent(count / found.scores["frames"])),
        )
        for true, predicted, count in found.mistakes
    ]
    return table(("recorded", "predicted", "frames", "share"), rows, "The commonest mistakes", "words")


def _worst(worst: WorstFrame, names: Sequence[str]) -> str:
    chips = []
    for name, held, predicted, p in zip(names, worst.true, worst.predicted, worst.probability.tolist(), strict=True):
        kind, sign = {(1, 1): ("hit", "✓"), (1, 0): ("missed", "−"), (0, 1): ("wrong", "+"), (0, 0): ("off", "")}[
            int(held), int(predicted)
        ]
        chips.append(f'<span class="chip {kind}">{sign}{"&nbsp;" * bool(sign)}{escape(name)} <i>{p:.2f}</i></span>')
    words = {
        "recorded": _combination(names, worst.true.nonzero()[0].tolist()),
        "predicted": _combination(names, worst.predicted.nonzero()[0].tolist()),
    }
    caption = f"{worst.place}: " + "; ".join(f"{who} {what}" for who, what in words.items())
    if isinstance(worst.picture, bytes):
        source = base64.b64encode(worst.picture).decode()
        picture = f'<img src="data:image/jpeg;base64,{source}" alt="{escape(caption)}">'
    else:
        picture = _empty(f"The frame cannot be read: {worst.picture}")
    return (
        f"<figure>{picture}<figcaption><span>{escape(worst.place)}</span><span>loss {worst.loss:.2f}</span>"
        f'<div class="chips">{"".join(chips)}</div></figcaption></figure>'
    )


def _combination(names: Sequence[str], held: Sequence[int]) -> str:
    return " + ".join(names[a] for a in held) or "nothing held"


def _empty(text: str) -> str:
    return f'<p class="empty">{escape(text)}</p>'


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
