"""Runs are compared, from a small training and from numbers made up here."""

import csv
import json
import shlex
import shutil
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import trainings
from pages import Page
from PIL import Image
from rich.console import Console

from BC_training import __main__ as command_line
from BC_training.common.axes import AxisBins
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.evaluation.evaluate import evaluate
from BC_training.evaluation.results import AxisScores, Evaluation
from BC_training.play.results import RolloutResult
from BC_training.reports.compare.compare import compare
from BC_training.reports.compare.runs import Run, incomparable
from BC_training.reports.compare.scores import (
    Comparison,
    Row,
    TrainingCosts,
    training_costs,
    validation_scores,
)
from BC_training.reports.compare.show import draw, tables, to_csv, to_markdown
from BC_training.training import checkpoint
from BC_training.training.decoding_file import write_decoding

BUTTONS = ["move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right"]
GAME = "doom/deadly_corridor"
TEST_SCORES = ("test_exact_match", "test_macro_f1", "test_onset_f1")  # which runs "a" and "b" do not have
PLAY = {
    **{"game": GAME, "episodes": 1, "seed": 0, "player": "c/a", "video": None, "restarts": 0, "seen": {}},
    **{"mean": 1000.0, "ci95": [500.0, 1500.0], "returns": [1000.0], "references": {}},
    **{"random_mean": 0.0, "random_ci95": None, "expert_mean": 2000.0, "expert_ci95": None},
    **{"normalized": 0.5, "normalized_ci95": [0.25, 0.75], "failed": 1, "failed_ci95": [0.2, 1.0]},
}


def played(**changes: Any) -> RolloutResult:
    return RolloutResult.from_dict(PLAY | {"step": 1, "decoding": None} | changes)


SMALL = ["model.conv_features=[4]", "model.conv_strides=[4]", "logging.report=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_dataset) -> Path:
    """A folder with a dataset, a run "a" with scores in play that are made up, and its copy "b" without them."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_dataset(folder / "x.zarr", [18, 24, 18], root_attributes={"keys": BUTTONS})
        trainings.run(".", "x.zarr", "logging.run_name=a", *SMALL)
        shutil.copytree("c/a", "c/b")
        shutil.copytree("l/a", "l/b")
        saved = checkpoint.read("c/a")
        write("l/a/rollout.json", PLAY | {"step": saved.step, "decoding": saved.decoding.to_dict()})
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch) -> list[Path]:
    """Both runs in a copy of the folder, which is the current one."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("BC_training.reports.compare.compare._TIMED", 20)
    return [Path("c/a"), Path("c/b")]


def write(file: str | Path, values: dict[str, Any]) -> None:
    Path(file).write_text(json.dumps(values), encoding="utf-8")


def read(file: str | Path) -> dict[str, Any]:
    return json.loads(Path(file).read_text(encoding="utf-8"))


def compared(paths: list[Path], **files: Path) -> tuple[Comparison, str]:
    """The result, and what 80 columns showed of it."""
    screen = StringIO()
    return compare(paths, Console(file=screen, width=80), **files), screen.getvalue()


def call(monkeypatch, capsys, command: str) -> tuple[int, str]:
    """Runs a command as it was printed; its exit code and what it said of an error."""
    program, _, arguments = command.partition("uv run -m BC_training ")
    assert program == ""
    monkeypatch.setattr(sys, "argv", ["BC_training", *shlex.split(arguments)])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    return int(exit_.value.code or 0), capsys.readouterr().err


def test_every_number_is_the_one_in_its_file(runs):
    result, _ = compared(runs)
    for row, path in zip((vars(row) for row in result.runs), runs, strict=True):
        saved, logs = checkpoint.read(path), Path("l") / path.name
        assert (row["run"], row["step"], row["model"]) == (path.name, saved.step, "pure_cnn")
        assert row["parameters"] == checkpoint.read_model(saved).parameter_count
        assert row["checkpoint_mb"] == sum(f.stat().st_size for f in saved.path.glob("**/*") if f.is_file()) / 1e6
        report = read(logs / "evaluation.json")
        for key in ("exact_match", "macro_f1", "onset_f1"):
            assert row[key] == report[key]
        assert row["rarest_f1"] == report["per_action"][row["rarest_action"]]["f1"]
        epochs = [json.loads(line) for line in (logs / "metrics.jsonl").read_text().splitlines()]
        rates = [line["frames_per_second"] for line in epochs if line["kind"] == "epoch"]
        assert row["frames_per_second"] == np.median(rates)
        per_epoch = epochs[-1]["step"] // len(rates) * 16  # frames
        assert row["total_minutes"] == pytest.approx(sum(per_epoch / rate for rate in rates) / 60)
        assert 0 < row["minutes"] <= row["total_minutes"]
        assert 0 < row["latency_p50_ms"] <= row["latency_p99_ms"]
    assert [row.normalized for row in result.runs] == [0.5, None]
    assert result.device == jax.devices()[0].device_kind


def test_terminal_markdown_csv_and_json_say_the_same(runs):
    files = {f"{kind}_file": Path(f"out.{kind}") for kind in ("json", "csv", "markdown")}
    result, shown = compared(runs, **files, plot_file=Path("out.png"))
    assert Comparison.from_dict(read("out.json")) == result
    with open("out.csv", encoding="utf-8", newline="") as file:
        saved = list(csv.DictReader(file))
    assert saved == [{k: "" if v is None else str(v) for k, v in row.cells.items()} for row in result.runs]
    markdown = Path("out.markdown").read_text(encoding="utf-8").splitlines()
    heading, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in markdown[:4])
    assert [line[0] for line in lines] == ["a", "b"]
    assert [line[heading.index("normalized")] for line in lines] == ["0.500", "–"]
    assert [line[heading.index("95 % interval")] for line in lines] == ["0.250 to 0.750", "–"]
    assert [line.removeprefix("- ") for line in markdown[5:]] == result.notes
    for note in result.notes:
        assert shown.splitlines().count(note) == 1
    for line in lines:
        rows = [row.split() for row in shown.splitlines()]
        assert [cell for row in rows if row[:1] == line[:1] for cell in row[1:]] == " ".join(line[1:]).split()
    assert max(len(line) for line in shown.splitlines() if line not in result.notes) <= 80
    with Image.open("out.png") as picture:
        assert picture.size == (1200, 750)


def test_the_commands_below_the_table_make_what_is_missing(runs, monkeypatch, capsys):
    Path("l/b/evaluation.json").unlink()
    result, shown = compared(runs)
    assert {key for key, value in vars(result.runs[1]).items() if value is None} == {
        *("exact_match", "macro_f1", "rarest_action", "rarest_f1", "onset_f1"),
        *("mean_return", "normalized", "normalized_low", "normalized_high", "episodes"),
        *("failed", "failed_low", "failed_high"),
        *TEST_SCORES,
    }
    lines = [line.split() for line in shown.splitlines() if line.split()[:1] == ["b"]]
    assert len(lines) > 1
    assert all("–" in line and "0.000" not in line for line in lines[1:])  # the tables of validation and play
    for note, name in zip(result.notes, ("evaluation.json", "rollout.json"), strict=True):
        start, _, command = note.partition(": uv run")
        assert start == f"b: there is no l/b/{name}"
        assert call(monkeypatch, capsys, f"uv run{command}") == (0, "")
    result, _ = compared(runs)
    assert read("l/b/rollout.json")["seed"] == PLAY["seed"]
    row = result.runs[1]
    assert row.mean_return == read("l/b/rollout.json")["mean"]
    lacking = {key for key, value in vars(row).items() if value is None}
    assert lacking == {"normalized_low", "normalized_high", *TEST_SCORES}
    assert result.notes[0].startswith("scores are normalised by means over other episodes (a: random 0.0, ")
    assert result.notes[1].startswith("b: one episode has no interval: uv run -m BC_training rollout --player c/b ")
    assert "--episodes 20" in result.notes[1]


def test_the_test_split_is_scored_shown_and_compared_where_there_is_one(runs, monkeypatch, capsys):
    split = "dataset.split={train: 0.34, val: 0.33, test: 0.33}"
    options = ["logging.run_name=t", "logging.report=true", "training.num_epochs=1"]
    trainings.run(".", "x.zarr", *SMALL, *options, split)
    report = Evaluation.from_dict(read("l/t/evaluation.json"))
    assert (report.split, report.chosen_here) == ("val", ["checkpoint"])
    assert (report.test.split, report.test.chosen_here) == ("test", [])
    page = Page(Path("l/t/report.html").read_text(encoding="utf-8")).text
    assert "Exact match, test split" in page
    assert f"{report.test.frames} frames that nothing was chosen by" in page
    result, shown = compared([Path("c/t"), Path("c/b")])
    assert [row.test_exact_match for row in result.runs] == [report.test.exact_match, None]
    assert "test exact match" in shown
    write("l/t/evaluation.json", replace(report, test=None).to_dict())
    (note,) = (note for note in compared([Path("c/t")])[0].notes if "test split" in note)
    start, _, command = note.partition(": uv run")
    assert start == "t: l/t/evaluation.json has no scores of the test split"
    assert call(monkeypatch, capsys, f"uv run{command}") == (0, "")
    assert Evaluation.from_dict(read("l/t/evaluation.json")) == report


def test_files_of_another_checkpoint_or_split_are_not_used(runs):
    for key, value, reason in (("step", 99, "is not of step"), ("split", "all", "is of split 'all'")):
        report = read("l/a/evaluation.json")
        write("l/a/evaluation.json", report | {key: value})
        result, _ = compared(runs[:1])
        write("l/a/evaluation.json", report)
        assert result.runs[0].exact_match is None
        assert result.notes[0].startswith(f"a: l/a/evaluation.json {reason}")
    assert Run.read(Path("c/a")).missing == {}
    other = Path("c/a/last/1") if checkpoint.find("c/a").name != "1" else Path("c/a/last/2")
    assert set(Run.read(other).missing) == {"evaluation.json", "rollout.json"}


def test_scores_with_other_thresholds_than_the_checkpoint_has_are_not_used(runs):
    saved = checkpoint.read("c/a")
    assert Run.read(Path("c/a")).missing == {}
    write_decoding(saved.path, saved.decoding.override(["thresholds.attack=0.3"]))
    result, _ = compared(runs[:1])
    assert (result.runs[0].exact_match, result.runs[0].mean_return) == (None, None)
    commands = {"evaluation": "evaluate c/a", "rollout": "rollout --player c/a"}
    for note, (name, verb) in zip(result.notes, commands.items(), strict=True):
        reason, _, command = note.partition(": uv run -m BC_training ")
        assert reason == f"a: l/a/{name}.json is of other thresholds or rules of decoding than the checkpoint has"
        assert command.startswith(verb)
        assert command.endswith(f"--json l/a/{name}.json")
    evaluate(Path("c/a"), Console(file=StringIO()), json_file=Path("l/a/evaluation.json"))
    assert set(Run.read(Path("c/a")).missing) == {"rollout.json"}


def test_a_training_that_goes_on_with_other_logs_reads_those(runs):
    trainings.run(".", "x.zarr", "logging.run_name=a", *SMALL, "logging.report=true", "logging.log_dir=m")
    text = Page(Path("m/a/report.html").read_text(encoding="utf-8")).text
    assert "there is no m/a/rollout.json" in text
    assert "l/a/" not in text


def test_without_dataset_and_logs_size_and_latency_are_left(runs):
    shutil.rmtree("x.zarr")
    shutil.rmtree("l/a")
    result, _ = compared(runs[:1])
    there = {key for key, value in result.runs[0].cells.items() if value is not None}
    latency = {"latency_p50_ms", "latency_p99_ms"}
    assert there == {"run", "checkpoint", "step", "model", "parameters", "checkpoint_mb", *latency}
    log, evaluation, rollout, latency = result.notes
    assert "l/a/metrics.jsonl lacks its epochs" in log
    assert evaluation.partition(": mkdir -p l/a && ")[2].endswith("--json l/a/evaluation.json")
    assert rollout.endswith("rollout --player c/a --json l/a/rollout.json")
    assert latency.startswith("a: latency is of random frames")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "nothing to compare"),
        ("l/a", "l/a is not a checkpoint"),
        ("c/a nowhere", "nowhere does not exist"),
        ("c/a c/b c/a/last", "c/a and c/a/last are the same run"),
        ("c/a --json no/x", "cannot write no/x"),
        ("c/a --plot no/x.png", "cannot write no/x.png"),
        ("c/a --plot x.pdf", "call it x.png"),
        ("c/a --json x --csv ./x", "two results would go to"),
        ("c/b --plot x.png", "nothing to draw: no run has both minutes and a score in play; b: there is no l/b/roll"),
    ],
)
def test_bad_input_is_found_before_measuring(runs, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("BC_training.reports.compare.compare._latency", None)
    before = sorted(Path().rglob("*"))
    code, error = call(monkeypatch, capsys, f"uv run -m BC_training compare {arguments}")
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("change", [{"game": "doom/other?skill=4"}, {"seed": 7}])
def test_different_play_does_not_compare(runs, monkeypatch, capsys, change):
    write("l/b/rollout.json", read("l/a/rollout.json") | change)
    code, error = call(monkeypatch, capsys, "uv run -m BC_training compare c/a c/b")
    assert (code, error.count("\n")) == (2, 1)
    assert "b played " in error
    assert str(next(iter(change.values()))) in error
    assert "rollout --player c/b --game doom/deadly_corridor --episodes 1 --seed 0 --json l/b/roll" in error
    write("l/a/rollout.json", read("l/a/rollout.json") | {"game": f"{GAME}?delay=4"})
    _, error = call(monkeypatch, capsys, "uv run -m BC_training compare c/a c/b")
    assert "--game 'doom/deadly_corridor?delay=4' --episodes 1 --seed 0 --json l/b/roll" in error


@pytest.mark.parametrize(
    "text",
    [
        *("{", '["a"]', '{"game": "doom/deadly_corridor"}'),
        *(json.dumps(PLAY | {name: "<b>3</b>"}) for name in ("episodes", "mean", "seen")),
        *(json.dumps(PLAY | {name: value}) for name, value in (("ci95", ["<b>3</b>", 4]), ("mean", float("nan")))),
    ],
)
def test_damaged_scores_are_named_and_not_used(runs, text):
    Path("l/a/rollout.json").write_text(text, encoding="utf-8")
    run = Run.read(Path("c/a"))
    assert run.play is None
    assert "l/a/rollout.json is damaged" in run.missing["rollout.json"]


def test_a_damaged_log_is_an_error(runs):
    write("l/a/evaluation.json", read("l/a/evaluation.json") | {"exact_match": "<b>3</b>"})
    reason = "l/a/evaluation.json is damaged (exact_match is '<b>3</b>', not float)"
    assert Run.read(Path("c/a")).missing == {"evaluation.json": reason}
    stopped = '{"kind": "epoch", "epoch": 1, "step": 2, "frames_per_second": 0}'
    named = '{"kind": "val", "epoch": "<b>1</b>", "step": 2, "loss": 0.5}'
    for row in ("{", '{"kind": "epoch"}', stopped, stopped.replace(": 0}", ": null}"), named):
        Path("l/a/metrics.jsonl").write_text(row, encoding="utf-8")
        with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
            Run.read(Path("c/a"))


# --- the numbers -----------------------------------------------------------------------------


def saved_at(step: int, epoch: int, seconds: float = 0.0, **window: Any) -> Any:
    """What ``training_costs`` reads of a checkpoint; the batch size is 10."""
    parts = {"config": SimpleNamespace(training=SimpleNamespace(batch_size=10), finetune=None)}
    parts |= {"progress": SimpleNamespace(seconds=seconds), "inputs": SimpleNamespace(window=Window(**window))}
    return SimpleNamespace(step=step, epoch=epoch, **parts)


EPOCHS = [
    {"epoch": 1, "step": 60, "frames_per_second": 5.0},  # 120 s
    {"epoch": 2, "step": 120, "frames_per_second": 20.0},  # 30 s
    {"epoch": 3, "step": 180, "frames_per_second": 10.0},  # 60 s
]


def test_minutes_are_those_up_to_the_checkpoint_and_those_of_all_epochs():
    assert training_costs(EPOCHS, saved_at(120, 2)) == TrainingCosts(10.0, 2.5, 3.5)
    assert training_costs(EPOCHS, saved_at(150, 2, 30.0)).minutes == 3.0  # saved in the middle of the last epoch
    assert training_costs(EPOCHS, saved_at(200, 3, 30.0)) == TrainingCosts(10.0, 4.0, 4.0)
    windows = saved_at(120, 2, history=4, every_frame=True)  # every frame of a window counts
    assert training_costs(EPOCHS, windows).minutes == 4 * 2.5
    for log_that_ends_before in ([], EPOCHS[:1]):
        assert training_costs(log_that_ends_before, saved_at(120, 2)) == TrainingCosts(None, None, None)


def test_the_rarest_action_is_one_that_is_pressed():
    buttons = {"often": (0.5, 0.9), "never": (0.0, None), "seldom": (0.1, 0.2), "sometimes": (0.2, 0.1)}

    def rarest(*names: str) -> tuple[str | None, float | None]:
        per_action = {name: SimpleNamespace(frequency=buttons[name][0], f1=buttons[name][1]) for name in names}
        found: Any = SimpleNamespace(per_action=per_action, per_axis={}, test=None)
        scores = validation_scores(found)
        return scores["rarest_action"], scores["rarest_f1"]

    assert rarest(*buttons) == ("seldom", 0.2)
    assert rarest("never") == (None, None)


# --- how they are shown ----------------------------------------------------------------------


def a_row(name: str, **values: Any) -> Row:
    row = {"model": "pure_cnn", "parameters": 655_623, "rarest_action": "attack", "minutes": 2.0}
    row |= {"normalized": 0.5, "normalized_low": 0.4, "normalized_high": 0.6, "failed": 2, "per_axis": {}}
    return Row(**(dict.fromkeys(Row.__annotations__, 1.0) | row | values | {"run": name}))


def bold_cells(rows: list[Row], *without_best: str) -> list[str]:
    found = []
    for table in tables(rows, set(without_best)):
        found += [str(cell) for column in table.columns for cell in column.cells if "bold" in str(cell.style)]
    return found


def test_the_best_value_of_each_column_is_bold():
    rows = [
        a_row("a", macro_f1=0.2, latency_p50_ms=7.0, onset_f1=None),
        a_row("b", macro_f1=0.3, latency_p50_ms=8.0, onset_f1=0.9),
        a_row("c", macro_f1=0.3, latency_p50_ms=None, onset_f1=None),
    ]
    assert sorted(bold_cells(rows)) == ["0.300", "0.300", "7.00"]
    assert bold_cells(rows, "macro_f1") == ["7.00"]


def test_each_axis_has_a_table_and_named_columns_elsewhere():
    scores = AxisScores(0.0123456, 0.75, None, 0.9, 0.5, 0.4)
    better = replace(scores, mean_absolute_error=0.001, within_one_bin=0.8)
    none = dict.fromkeys(("macro_f1", "rarest_action", "rarest_f1", "onset_f1", "test_macro_f1", "test_onset_f1"))
    rows = [
        a_row("a", per_axis={"steer": scores}, **none),
        a_row("b", per_axis={"steer": better, "[red]": scores}, **none),
    ]
    console = Console(file=StringIO(), width=80)
    for table in tables(rows, set()):
        console.print(table)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert lines[lines.index("Axis steer") + 1] == "run error within one bin correlation right side at 0"
    assert lines[lines.index("Axis steer") + 2] == "a 0.01235 0.750 – 0.900 0.400"
    assert lines[lines.index("Axis [red]") + 2] == "a – – – – –"
    assert lines[lines.index("Validation") + 1] == "run exact match"  # there are no buttons to score
    assert set(bold_cells(rows)) == {"0.001", "0.800"}
    assert "| steer error | steer within one bin | steer correlation | steer right side |" in to_markdown(rows, [])
    (first, second) = csv.DictReader(StringIO(to_csv(rows)))
    assert (first["steer/mean_absolute_error"], second["[red]/zeros"]) == ("0.0123456", "0.5")
    assert (first["steer/correlation"], first["[red]/zeros"]) == ("", "")


def test_scores_on_other_labels_are_named_and_none_is_the_best():
    inputs = SimpleNamespace(action_names=("a",), axis_names=("x",), axis_bins=None, window=Window())
    runs: list[Any] = []
    for names, play in ((["e0", "e1"], played()), (["e1", "e0"], played(expert_mean=1.0)), (["e2"], None)):
        saved = SimpleNamespace(fingerprint="f", split={"val": names, "test": []}, inputs=inputs)
        runs.append(SimpleNamespace(saved=saved, evaluation=True, play=play))
    assert incomparable(["a", "b"], [runs[0], runs[0]]) == ([], set())
    lines, columns = incomparable(["a", "b", "c"], runs)
    assert lines[0] == "validation scores of a and c do not compare: they are of other labels"
    assert "a: random 0.0, expert 2000.0; b: random 0.0, expert 1.0" in lines[1]
    of_axis = {f"x/{score}" for score in AxisScores.__annotations__}
    assert columns == {"exact_match", "macro_f1", "rarest_f1", "onset_f1", *TEST_SCORES, *of_axis}
    finer = SimpleNamespace(**vars(inputs) | {"axis_bins": AxisBins((1.0,), 41, 10.0)})
    runs[1] = SimpleNamespace(**vars(runs[0]) | {"saved": SimpleNamespace(**vars(runs[0].saved) | {"inputs": finer})})
    assert len(incomparable(["a", "b"], runs[:2])[1]) == len(columns)  # one bin off is less in finer bins


def test_the_rarest_action_is_named_in_the_heading_or_in_the_cells():
    both = to_markdown([a_row("a"), a_row("b")], [])
    assert "| F1 of attack |" in both
    different = to_markdown([a_row("a"), a_row("b", rarest_action="jump|duck", rarest_f1=0.25)], ["note"])
    assert "| F1 of the rarest action |" in different
    assert "| 1.000 attack |" in different
    assert "| 0.250 jump\\|duck |" in different
    assert different.endswith("|\n\n- note\n")


def test_runs_of_one_name_are_called_by_their_paths(runs):
    shutil.copytree("c", "d")
    result, _ = compared([Path("c/a"), Path("d/a"), Path("c/b")])
    assert [row.run for row in result.runs] == ["c/a", "d/a", "b"]


@pytest.mark.parametrize("interval", [(0.4, 0.6), (None, None)])
def test_a_picture_takes_any_name_and_a_point_without_interval(tmp_path, interval):
    low, high = interval
    rows = [a_row(n, normalized_low=low, normalized_high=high) for n in ("a_$run_$", "b", "a" * 60)]
    draw(tmp_path / "x.png", [*rows, a_row("c", normalized=None), a_row("d", minutes=None)])
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (1200, 750)
