"""The tables of an evaluation fit a terminal and show its numbers."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from BC_training.common.axes import AxisBins, RecordedAxes
from BC_training.common.decode import Decoding
from BC_training.common.metrics import number, report
from BC_training.evaluation.events import event_scores
from BC_training.evaluation.results import AblationScores, Diagnosis, Evaluation
from BC_training.evaluation.tables import (
    ablation_table,
    axis_table,
    button_table,
    event_table,
    print_evaluation,
    summary_table,
)

NAMES = tuple(f"some_longer_button_{i:02}" for i in range(13))


def an_evaluation(
    frames: int = 500,
    names: tuple[str, ...] = NAMES,
    decoding: Decoding | None = None,
    axis_names: tuple[str, ...] = (),
) -> Evaluation:
    rng, shape = np.random.default_rng(0), (frames, len(names))
    true, p = [rng.random(shape) < 0.5], rng.random(shape)
    axes, moved = None, None
    if axis_names:
        amounts, previous, moved = rng.normal(0, 900, (3, frames, len(axis_names))).astype(np.float32)
        axes = RecordedAxes(axis_names, AxisBins.fit(amounts, 21, 10.0), amounts, previous)
    values = report(true, p, np.zeros(len(names), bool), names, decoding or 0.5, 0, axes, moved)
    for scores in (values, *values["baselines"].values()):
        scores["events"] = event_scores(true, p >= 0.5, names, 3)
    values |= {"step": 1, "split": "val", "chosen_here": ["checkpoint"], "diagnosis": Diagnosis(False, [], None, {})}
    return Evaluation.from_dict(values)


def rows(table) -> dict[str, list[str]]:
    """The cells of each line in 80 columns, by their first word."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(table)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    found = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    return found | {"text": " ".join(text.split()).split()}


def numbers(scores, *names: str) -> list[str]:
    return [number(getattr(scores, name)) for name in names]


def test_the_summary_has_a_row_for_the_policy_and_each_baseline():
    found = an_evaluation()
    shown = rows(summary_table(found, "BC_training/checkpoints/a_run_with_a_long_name/best/12345 on val: 10 episodes"))
    columns = ("exact_match", "change_match", "macro_f1", "l1", "l2", "kl")
    assert shown["policy"] == numbers(found, *columns)
    assert shown["majority"] == numbers(found.baselines["majority"], *columns)
    assert shown["repeat"][1:] == numbers(found.baselines["repeat_previous"], *columns)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("names", [NAMES, ("move_forward", "dodge_roll/dash", "lock_on")])
def test_each_button_has_its_scores_and_its_threshold_where_thresholds_differ(own, names):
    rules = Decoding(dict(zip(names, np.linspace(0.2, 0.8, len(names)).tolist(), strict=True))) if own else None
    found = an_evaluation(9, names, rules)
    shown = rows(button_table(found))
    for name, scores in found.per_action.items():
        base = [number(found.baselines[b].per_action[name].f1) for b in ("majority", "repeat_previous")]
        at = [number(found.decoding.thresholds[name])] if own else []
        assert shown[name] == [*at, *map(number, vars(scores).values()), *base]
    assert ("thresholds of their own" if own else "By action at threshold 0.5:") in " ".join(shown["text"])


@pytest.mark.parametrize("fps", [17.5, None])
def test_each_button_has_its_presses_and_releases(fps):
    found = an_evaluation(20_000)
    shown, exact, within = rows(event_table(found, fps)), found.events.exact, found.events.within
    assert ("(0.17 s)" in " ".join(shown["text"])) == (fps is not None)
    for name in NAMES:
        cells = []
        for kind in ("onset", "offset"):
            ours, near = (getattr(part.per_action[name], kind) for part in (exact, within))
            cells += [str(ours.recorded), str(ours.predicted), number(ours.f1), number(near.f1)]
        assert shown[name] == cells


def test_each_axis_has_its_scores_above_those_of_no_movement_and_of_repeating():
    names = tuple(f"some_long_joint_{i:02}" for i in range(7))
    found = an_evaluation(axis_names=names)
    shown = rows(axis_table(found))
    text = " ".join(shown["text"])
    players = {"majority": "zero", "repeat_previous": "repeat previous"}
    for name in names:
        for said, scores in {
            name: found.per_axis[name],
            **{players[who]: base.per_axis[name] for who, base in found.baselines.items()},
        }.items():
            error, *others = vars(scores).values()
            assert " ".join([said, f"{error:.4g}", *map(number, others)]) in text
    assert "Axes by their likeliest bin:" in text
    mean = replace(found, decoding=replace(found.decoding, axes="mean"))
    assert "Axes by their mean:" in " ".join(rows(axis_table(mean))["text"])


def test_nothing_is_shown_of_buttons_where_there_are_none_nor_of_axes():
    def printed(found: Evaluation) -> str:
        console = Console(file=io.StringIO(), width=80)
        nothing = AblationScores(None, None, None, None)
        print_evaluation(replace(found, ablations={"blank_frames": nothing}), "a run", console)
        return console.file.getvalue()

    of_buttons = ("F1", "L1", "KL", "By action", "Presses")
    alone = printed(an_evaluation(names=(), axis_names=("steer",)))
    assert not any(words in alone for words in of_buttons)
    assert all(words in alone for words in ("exact match", "changes", "Axes by", "steer", "blank frames"))
    both = printed(an_evaluation(names=("fire",), axis_names=("steer",)))
    assert all(words in both for words in (*of_buttons, "Axes by"))
    assert "Axes by" not in printed(an_evaluation(names=("fire",)))


def test_ablations_stand_below_the_intact_policy():
    nothing = AblationScores(None, None, None, None)
    names = ("blank_frames", "shuffled_frames_and_state", "no_previous_actions")
    found = replace(an_evaluation(), ablations=dict.fromkeys(names, nothing))
    shown = rows(ablation_table(found))
    assert shown["intact"] == numbers(found, "exact_match", "change_match", "macro_f1", "onset_f1")
    assert shown["shuffled"] == ["frames", "and", "state", "–", "–", "–", "–"]


def test_notes_follow_the_tables():
    found = an_evaluation()
    copycat = Diagnosis(True, ["it copies", "it repeats"], 0.75, {})
    found = replace(found, decoding=replace(found.decoding, temperature=0.5), diagnosis=copycat)
    console = Console(file=io.StringIO(), width=300)
    print_evaluation(found, "a run", console)
    *_, copycat, sampling, chosen = console.file.getvalue().splitlines()
    assert "(right in 75.0% of those frames): it copies; and it repeats." in copycat
    assert sampling.endswith("in play it samples at temperature 0.5")
    assert chosen == "the policy was chosen by these frames (val): expect less on others"
