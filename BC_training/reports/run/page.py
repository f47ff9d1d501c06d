"""The page of a run's report, drawn from its findings; every text passes ``escape``."""

import base64
import statistics
from html import escape
from pathlib import Path
from typing import Any

from BC_training.common.metrics import chosen_text, return_text
from BC_training.common.metrics import number as three
from BC_training.evaluation import diagnose as diagnosis
from BC_training.play.intervals import interval_text
from BC_training.reports.charts import reliability_plot
from BC_training.reports.compare.scores import play_scores
from BC_training.reports.page import as_tiles, clean, fill, heat_map, number, percent, warning
from BC_training.reports.run import sections
from BC_training.reports.run.findings import APART, Findings, video_file
from BC_training.training.seeds import seen_text

_TEMPLATE = Path(__file__).with_name("report.html")


def render(found: Findings) -> str:
    """The page."""
    saved = found.run.saved
    decoding, shift = saved.decoding, saved.inputs.window.action_shift
    tolerance = found.scores["events"]["tolerance"]
    parts = {
        "title": escape(clean(found.run.folder.name)),
        "checkpoint": escape(clean(saved.path, 300)),
        "facts": _facts(found),
        "tiles": as_tiles(_tiles(found)),
        "first": "".join(f"<li>{line}</li>" for line in _read_first(found)),
        "missing": warning("What this report lacks:", [f"{part}: {reason}" for part, reason in found.missing.items()]),
        "curves": sections.curves(found) if found.run.log else sections.empty(found.missing["training"]),
        "epochs": sections.epochs(found),
        "scores": sections.scores(found),
        "events": sections.events(found),
        "decoding": _decoding(found),
        "actions": sections.actions(found),
        "play": _play(found),
        "video": _video(found),
        "pooled": reliability_plot("all actions", found.pooled),
        "reliability": "".join(map(reliability_plot, found.names, found.reliability)),
        "weighted": sections.weighted(found),
        "precision_recall": sections.precision_recall(found),
        "pair_width": str(150 + 48 * len(found.names)),  # where they do not fit, one is under the other
        "given_held": heat_map(found.names, found.given_held, "Share of the row's frames with the column predicted"),
        "instead": heat_map(
            found.names, found.instead, "Share of the row's missed frames with the column in its place"
        ),
        "mistakes": sections.mistakes(found),
        "worst": "".join(sections.worst_frame(w, found.names) for w in found.worst),
        "apart": f"{APART:g} s",
        "tolerance": f"± {tolerance} frame{'s' * (tolerance != 1)}",
        "beside": ", beside the line where other rules of decoding count"
        * (decoding.hysteresis > 0 or bool(decoding.exclusive)),
        "shift": f" Actions are those of {shift} frames after the picture (dataset.action_shift)." * (shift > 0),
        "config": escape(found.config),
    }
    return fill(_TEMPLATE, parts)


def _facts(found: Findings) -> str:
    saved = found.run.saved
    inputs, evaluation = saved.inputs, saved.config.evaluation
    height, width = inputs.frame_size
    facts = {
        "dataset": found.dataset,
        "frames": f"{height} × {width} pixels, {inputs.window.history} at once",
        "best by": evaluation.best_metric,
    }
    return " · ".join(f"<b>{name}</b> {escape(clean(fact, 300))}" for name, fact in facts.items())


def _tiles(found: Findings) -> list[tuple[str, str, str]]:
    saved, scores, costs, play = found.run.saved, found.scores, found.costs, found.run.play
    kind = saved.path.parent.name
    minutes, speed = costs["minutes"], costs["frames_per_second"]
    played, note = "–", "not played"
    if play:
        normalized = play_scores(play)["normalized"]
        played = return_text(play["mean"]) if normalized is None else f"{normalized:.2f}"
        note = f"mean return {return_text(play['mean'])}" + interval_text(play["ci95"], return_text)
    tested = [
        (
            "Exact match, test split",
            percent(test["exact_match"]),
            f"{test['frames']:,} frames that nothing was chosen by",
        )
        for test in [scores.get("test")]
        if test
    ]
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
        *tested,
        ("In play", played, note),
    ]


def _read_first(found: Findings) -> list[str]:
    """The few sentences with which to begin, HTML."""
    scores, play, names = found.scores, found.run.play, found.names
    lines = ["It has not been played. Scores on recordings alone say little about how well it plays."]
    if play:
        value = f"a mean return of <b>{return_text(play['mean'])}</b>"
        if play_scores(play)["normalized"] is not None:
            value = f"<b>{play_scores(play)['normalized']:.2f}</b>, where random buttons score 0 and the expert 1,"
        lines = [
            f'<a href="#play">In play</a> it reaches {value} over {play["episodes"]} episodes. That is the measure; '
            "the scores below are on recordings."
        ]
    repeat = scores["baselines"]["repeat_previous"]["exact_match"]
    lines.append(
        f'It is <a href="#scores">exactly right</a> in <b>{percent(scores["exact_match"])}</b> of the frames; '
        f"repeating the buttons of the frame before would be in {percent(repeat)}. On the "
        f"{scores['change_frames']:,} frames where the buttons change it is right in "
        f"<b>{percent(scores['change_match'])}</b>, repeating in none."
    )
    if text := chosen_text(scores):
        test = scores.get("test")
        beside = f" On the test split it is exactly right in <b>{percent(test['exact_match'])}</b>." if test else ""
        lines.append(f"{escape(text[0].upper() + text[1:])}.{beside}")
    if text := diagnosis.warning(scores):
        lines.append(f"<b>{escape(text)}</b>")
    held = [(s["f1"], name, s) for name, s in zip(names, scores["per_action"].values(), strict=True) if s["frequency"]]
    weakest = [
        f"<b>{escape(name)}</b> (F1 {three(f1)}, held in {percent(s['frequency'])} of frames)"
        for f1, name, s in sorted(held, key=lambda entry: entry[0])[:2]
    ]
    if weakest:
        lines.append(f'<a href="#actions">Weakest</a>: {" and ".join(weakest)}.')
    if found.mistakes:
        *pair, count = found.mistakes[0]
        true, predicted = (escape(sections.combination(names, held)) for held in pair)
        lines.append(
            f'The commonest <a href="#confusions">mistake</a>: <b>{predicted}</b> where the recording has '
            f"<b>{true}</b>, in {percent(count / scores['frames'])} of frames."
        )
    rows = [r for r in found.run.log if r["kind"] == "val" and sections.is_finite(r.get("loss"))]
    if len(rows) > 1:
        lowest, last = min(rows, key=lambda r: r["loss"])["epoch"], rows[-1]["epoch"]
        then = "the last: more epochs may help" if lowest == last else f"of {last}"
        lines.append(f'The <a href="#training">validation loss</a> was lowest after epoch {lowest}, {then}.')
    return lines


def _decoding(found: Findings) -> str:
    decoding = found.run.saved.decoding
    words = decoding.describe()
    if decoding.temperature is not None:
        words += f"; in play sampled at temperature {decoding.temperature:g}, which these scores leave out"
    return escape(words)


def _play(found: Findings) -> str:
    play = found.run.play
    if not play:
        return sections.empty(f"Not played: {found.missing['play']}")
    returns, scores = play.get("returns"), play_scores(play)
    span = play["seed"], play["seed"] + play["episodes"] - 1
    tiles = [
        (
            "Mean return",
            return_text(play["mean"]),
            f"95 % interval{interval_text(play['ci95'], return_text)}" if play["ci95"] else "",
        ),
        ("Normalized", number(scores["normalized"]), _normalized_interval(scores)),
        ("Expert", return_text(play["expert_mean"]), _of_reference(play, "expert")),
        ("Random", return_text(play["random_mean"]), _of_reference(play, "random")),
    ]
    if scores["failed"] is not None:
        low, high = 100 * scores["failed_low"], 100 * scores["failed_high"]
        words = f"95 % interval of the share {low:.1f} to {high:.1f} %; nearer to random's mean than to the expert's"
        tiles.append(("Failed episodes", f"{scores['failed']} of {play['episodes']}", words))
    if returns:
        ends = f"lowest {return_text(min(returns))}, highest {return_text(max(returns))}"
        tiles.append(("Median return", return_text(statistics.median(returns)), ends))
    what = f"{clean(play['game'])}, seeds {span[0]} to {span[1]}"
    seen = f" Attention: {seen_text(play['seen'], play['episodes'])}." if play.get("seen") else ""
    return f'<p>{escape(what)}.{escape(clean(seen, 300))}</p><dl class="tiles">{as_tiles(tiles)}</dl>'


def _of_reference(play: dict[str, Any], who: str) -> str:
    return "mean return, same seeds" + interval_text(play.get(f"{who}_ci95"), return_text)


def _normalized_interval(scores: dict[str, Any]) -> str:
    if scores["normalized_low"] is None:
        return "random 0, expert 1"
    return f"95 % interval {scores['normalized_low']:.2f} to {scores['normalized_high']:.2f}"


def _video(found: Findings) -> str:
    if isinstance(found.video, str):
        return sections.empty(f"No video: {clean(found.video, 500)}")
    source = base64.b64encode(found.video).decode()
    file = clean(video_file(found.run), 300)
    return (
        f'<figure class="film"><video controls preload="metadata" src="data:video/mp4;base64,{source}"></video>'
        f"<figcaption><span>The first episode, {escape(file)}</span></figcaption></figure>"
    )
