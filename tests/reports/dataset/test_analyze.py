"""``analyze`` gathers a dataset's numbers, and refuses bad input."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from rich.console import Console

from BC_training import __main__ as command_line
from BC_training.common import metrics
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.metrics import class_weights
from BC_training.reports.dataset import analyze as package
from BC_training.reports.dataset.analyze import analyze, default_page


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_the_numbers_of_an_older_dataset_are_those_of_its_arrays(tmp_path, make_older_dataset):
    written = make_older_dataset(tmp_path / "x.zarr", [30, 1, 17])
    report = analyze(tmp_path / "x.zarr", quiet(), json_file=tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == report
    assert (report["episodes"], report["frames"]) == (3, 48)
    assert report["seconds"] == pytest.approx(48 / 17.08)
    assert report["hours"] == pytest.approx(48 / 17.08 / 3600)
    assert report["fps"] == {"mean": 17.08, "min": 17.08, "max": 17.08}
    everything = np.concatenate([e.actions for e in written])
    assert [a["frequency"] for a in report["actions"]] == pytest.approx(everything.mean(axis=0).tolist())
    states = np.concatenate([e.state for e in written])
    assert [s["mean"] for s in report["state"]] == pytest.approx(states.mean(axis=0, dtype=np.float64).tolist())
    assert [e["frames"] for e in report["per_episode"]] == [30, 1, 17]
    assert report["per_episode"][2]["frequencies"] == pytest.approx(written[2].actions.mean(axis=0).tolist())
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    for mode in ("none", "sqrt", "balanced"):
        expected = class_weights(dataset.action_frequencies([0, 1, 2]), mode, 10.0).tolist()
        assert [a["class_weight"][mode] for a in report["actions"]] == pytest.approx(expected)
    scores = metrics.report([e.actions for e in written], everything.astype(float), everything[0], "abcdefghijklm", 0.5)
    assert report["baselines"]["repeat_previous"] == scores["baselines"]["repeat_previous"]["exact_match"]


def test_a_dataset_without_state_and_frame_rate_has_durations_in_frames(tmp_path, make_dataset):
    rows = [np.array([[True, False]] * 3 + [[False, False]]), np.array([[True, False]])]
    make_dataset(tmp_path / "x.zarr", [4, 1], actions=2, state=0, fps=None, rows=rows)
    console = quiet()
    report = analyze(tmp_path / "x.zarr", console)
    assert report["fps"] is report["hours"] is report["seconds"] is None
    assert report["state"] == []
    duration = report["actions"][0]["duration"]
    assert (duration["unit"], duration["median"], duration["p90"], duration["longest"]) == ("frames", 1, 3, 3)
    assert report["actions"][1]["duration"]["median"] is None
    assert report["cooccurrence"]["conditional"][1] == [None, None]
    last = next(line for line in console.file.getvalue().splitlines() if line.strip().startswith("a1"))
    assert last.split() == ["a1", "0.0%", "0", "0.0", "–", "–", "1.00", "1.00"]
    text = (tmp_path / "x.html").read_text()
    assert "The dataset has no state" in text
    assert "never pressed" in text
    assert "<td>0</td><td>0.0</td>" in text
    assert "median 1 frames" in text
    assert 'title="a1, a0: –">–</td>' in text


@pytest.mark.parametrize("actions", [3, 0])
def test_the_numbers_of_axes_are_in_the_report_and_the_terminal(tmp_path, make_dataset, actions):
    written = make_dataset(tmp_path / "x.zarr", [30, 1, 17], actions=actions, axes=2)
    console = quiet()
    report = analyze(tmp_path / "x.zarr", console, json_file=tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == report
    everything = np.concatenate([e.axes for e in written])
    assert [a["name"] for a in report["axes"]] == ["x0", "x1"]
    assert [a["zeros"] for a in report["axes"]] == pytest.approx((everything == 0).mean(axis=0).tolist())
    assert [a["max"] for a in report["axes"]] == everything.max(axis=0).tolist()
    assert report["per_episode"][2]["moving"] == pytest.approx((written[2].axes != 0).mean(axis=0).tolist())
    assert (report["baselines"] is None) == (not actions)
    printed = console.file.getvalue()
    assert ("Actions: share" in printed) == ("exactly right of the buttons" in printed) == bool(actions)
    row = next(line.split() for line in printed.splitlines() if line.strip().startswith("x1"))
    assert row[1:4] == [f"{(everything[:, 1] == 0).mean():.1%}", *(f"{f(everything[:, 1]):.4g}" for f in (min, max))]


def test_the_facts_of_an_episode_say_who_labelled_it(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [10])
    attributes = {"player": "c/x", "label": "expert", "mix": 0.5}
    zarr.open_group(tmp_path / "x.zarr/episode_0").attrs.update(attributes | {"frame_count": 10})
    report = analyze(tmp_path / "x.zarr", quiet())
    assert report["per_episode"][0]["facts"] == attributes


def test_unusable_frame_rates_count_as_unknown(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [10, 10, 10], fps=20.0)
    for number, fps in ((0, 0), (1, "fast")):
        zarr.open_group(tmp_path / f"x.zarr/episode_{number}").attrs["fps"] = fps
    report = analyze(tmp_path / "x.zarr", quiet())
    assert report["fps"]["mean"] == 20
    assert report["seconds"] == pytest.approx(1.5)
    assert [e["fps"] for e in report["per_episode"]] == [None, None, 20.0]


def spoil(dataset: Path, chunks: str) -> None:
    for file in dataset.glob(chunks):
        if file.is_file():
            file.write_bytes(b"nonsense")


def call(monkeypatch, capsys, arguments: list[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["BC_training", "analyze", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.zarr"], "no dataset at nowhere.zarr"),
        (["."], ". is not a zarr group"),
        (["x.zarr", "--out", "no/where.html"], "cannot write no/where.html"),
        (["x.zarr", "--json", "no/where.json"], "cannot write no/where.json"),
        (["x.zarr", "--out", "same", "--json", "same"], "--out and --json name the same file"),
        (["x.zarr", "--actions", "a0,b1"], "unknown action 'b1'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(monkeypatch, capsys, tmp_path, make_dataset, arguments, message):
    make_dataset(tmp_path / "x.zarr", [3])
    monkeypatch.chdir(tmp_path)
    code, _, error = call(monkeypatch, capsys, arguments)
    assert (code, error[:7], error.count("\n")) == (2, "error: ", 1)
    assert message in error
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def test_the_command_takes_actions_in_their_order(monkeypatch, capsys, tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [9, 9])
    monkeypatch.chdir(tmp_path)
    arguments = ["x.zarr", "--actions", "a3, a1", "--out", "o.html", "--json", "o.json"]
    code, out, _ = call(monkeypatch, capsys, arguments)
    assert code == 0
    assert [a["name"] for a in json.loads(Path("o.json").read_text(encoding="utf-8"))["actions"]] == ["a3", "a1"]
    assert "wrote o.html" in out
    assert "Repeating the frame before" in out


def test_damaged_episodes_are_left_out_and_named(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [8, 8, 8])
    spoil(tmp_path / "x.zarr", "episode_1/actions/c/0/0")
    (tmp_path / "x.zarr/episode_2/zarr.json").write_text("{")
    console = quiet()
    report = analyze(tmp_path / "x.zarr", console)
    assert report["episodes"] == 1
    assert {s["name"] for s in report["skipped"]} == {"episode_1", "episode_2"}
    assert "left out episode_1" in console.file.getvalue()
    assert "Left out, 2 of 3 episodes" in (tmp_path / "x.html").read_text()
    spoil(tmp_path / "x.zarr", "episode_0/actions/c/0/0")
    (tmp_path / "x.html").unlink()
    with pytest.raises(UserError, match="no usable episode"):
        analyze(tmp_path / "x.zarr", quiet())
    assert not (tmp_path / "x.html").exists()


def test_frames_that_cannot_be_read_are_named(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [8])
    spoil(tmp_path / "x.zarr", "episode_0/frames/c/**/0")
    report = analyze(tmp_path / "x.zarr", quiet())
    assert report["frames"] == 8
    assert "cannot read 'frames'" in report["unreadable_frames"][0]
    text = (tmp_path / "x.html").read_text()
    assert "Sample frames that cannot be read" in text
    assert "<img" not in text


def test_the_page_lies_beside_the_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_page("data/x.zarr/") == tmp_path / "data/x.html"
    assert default_page(Path()) == tmp_path.parent / f"{tmp_path.name}.html"
    assert default_page("s3://bucket/runs/x.zarr/") == Path("x.html")
    assert default_page("s3://bucket") == Path("bucket.html")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://me:w@rd@h/x?sig=ab/c/episode_3: cannot read 'frames'", "https://h/x/episode_3: cannot read 'frames'"),
        ("https://h/x.zarr/episode_3?sig=abc: lost", "https://h/x.zarr/episode_3 lost"),
        (
            'reading "http://me@h/x/a.json?sig=abc": 404; see s3://k:w@b/x',
            'reading "http://h/x/a.json": 404; see s3://b/x',
        ),
        ("https://h/x.zarr?sig=abc", "https://h/x.zarr"),
        ("data/x.zarr/episode_3: why? me@host", "data/x.zarr/episode_3: why? me@host"),
    ],
)
def test_errors_and_addresses_are_shown_without_passwords_and_signatures(said, shown):
    assert package.error_text(said) == shown
    assert package.without_secrets("https://me:word@host/x.zarr?X-Signature=abc") == "https://host/x.zarr"
    assert package.without_secrets("data/x.zarr") == "data/x.zarr"


def test_a_page_tells_no_secret_of_a_dataset(tmp_path, make_dataset, monkeypatch):
    make_dataset(tmp_path / "x.zarr", [8, 8, 8])
    spoil(tmp_path / "x.zarr", "episode_1/actions/c/0/0")
    spoil(tmp_path / "x.zarr", "episode_2/frames/c/**/0")
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr", validate_episodes=True)
    dataset.path = address = "https://me:SECRET@host/x.zarr?sig=SECRET"
    monkeypatch.setattr(package, "ZarrGameplayDataset", lambda *_, **options: dataset)
    report = analyze(address, quiet(), out=tmp_path / "x.html", json_file=tmp_path / "x.json")
    assert report["skipped"][0]["reason"].startswith("https://host/x.zarr/episode_1: cannot read 'actions'")
    assert report["unreadable_frames"][0].startswith("https://host/x.zarr/episode_2: cannot read 'frames'")
    for file in ("x.html", "x.json"):
        assert "SECRET" not in (tmp_path / file).read_text()
