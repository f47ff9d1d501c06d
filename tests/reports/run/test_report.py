"""The page about a run shows what there is and names what it lacks, also in a browser."""

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pages import CHROMIUM, Page, browse, file_in, image_in, require_self_contained
from rich.console import Console
from untrained import save_run

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.schema import DatasetConfig, LoggingConfig
from BC_training.play.video import VideoWriter
from BC_training.reports.run import findings as report_findings
from BC_training.reports.run.report import report
from BC_training.training import checkpoint

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{config}}")
LENGTHS = [40, 40, 30]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def page_of(folder: Path, tmp_path: Path, console: Console | None = None) -> Page:
    return Page(report(folder / "c/x", console or quiet(), out=tmp_path / "x.html").read_text())


@pytest.fixture(scope="module")
def bare(tmp_path_factory, make_dataset, make_config, make_inputs) -> Path:
    """The folder of an untrained run without logs, whose three buttons have hostile names: c/x, l/x and x.zarr."""
    folder = tmp_path_factory.mktemp("report")
    make_dataset(folder / "x.zarr", LENGTHS, actions=3, root_attributes={"keys": list(HOSTILE)})
    dataset, logging = DatasetConfig(path=str(folder / "x.zarr")), LoggingConfig(log_dir=str(folder / "l"))
    config = dataclasses.replace(make_config(), dataset=dataset, logging=logging)
    inputs = dataclasses.replace(make_inputs(), action_names=HOSTILE)
    save_run(folder / "c/x", config, inputs, val=("episode_0", "episode_1", "episode_2"))
    (folder / "l/x").mkdir(parents=True)
    return folder


@pytest.fixture
def whole(bare) -> Iterator[Path]:
    """The same folder with logs, a score in play and a video."""
    folder = bare / "l/x"
    rows = [{"kind": "train", "step": s, "loss": 1 / s, "learning_rate": 0.1} for s in range(1, 11)]
    for epoch in (1, 2):
        rows.append({"kind": "epoch", "step": 5 * epoch, "epoch": epoch, "train_loss": 0.5, "frames_per_second": 9.0})
        rows.append({"kind": "val", "step": 5 * epoch, "epoch": epoch, "loss": 0.5 * epoch, "exact_match": 0.3})
        rows.append({"kind": "rollout", "step": 5 * epoch, "epoch": epoch, "mean": 40.0 * epoch})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    saved = checkpoint.read(bare / "c/x")
    play = {"game": "doom/basic?skill=5", "seed": 0, "episodes": 3, "returns": [50.0, 60.0, 70.0], "player": "x"}
    play |= {"step": saved.step, "decoding": saved.decoding.to_dict(), "mean": 60.0, "ci95": [50.0, 70.0], "seen": {}}
    play |= {"normalized": 0.75, "normalized_ci95": [0.62, 0.88], "failed": 1, "failed_ci95": [0.2, 0.8]}
    play |= {"random_mean": 0.0, "random_ci95": None, "expert_mean": 80.0, "expert_ci95": [78.0, 82.0]}
    play |= {"video": str(folder / "rollout.mp4"), "references": {}, "restarts": 0}
    (folder / "rollout.json").write_text(json.dumps(play))
    with VideoWriter(folder / "rollout.mp4", 17.0) as video:
        for shade in range(20):
            video.add_picture(np.full((32, 64, 3), 10 * shade, np.uint8))
    yield bare
    for file in folder.iterdir():
        file.unlink()


def test_pictures_are_the_worst_frames_of_the_dataset(bare, make_dataset, tmp_path):
    written = make_dataset(tmp_path / "same.zarr", LENGTHS, actions=3)
    page = page_of(bare, tmp_path)
    pictures = page.of("img")
    assert 1 < len(pictures) <= report_findings.WORST
    for picture in pictures:
        match = re.match(r"episode_(\d) · frame (\d+) · [\d.]+ s: recorded (.*); predicted", picture["alt"] or "")
        assert match
        episode, frame = written[int(match[1])], int(match[2])
        held = [name for name, is_held in zip(HOSTILE, episode.actions[frame], strict=True) if is_held]
        assert match[3] == (" + ".join(held) or "nothing held")
        assert image_in(picture).mean(axis=(0, 1)) == pytest.approx(episode.frames[frame].mean(axis=(1, 2)), abs=3)


def test_the_page_says_what_it_lacks(bare, tmp_path):
    console = quiet()
    text = page_of(bare, tmp_path, console).text
    assert "Not played: there is no" in text
    assert "No video: there is no" in text
    assert "metrics.jsonl lacks the steps and epochs" in text
    assert len(re.findall("^not in the report", console.file.getvalue(), re.MULTILINE)) == 3


def test_the_page_shows_the_log_play_and_video(whole, tmp_path):
    page = page_of(whole, tmp_path)
    assert "lacks" not in page.text
    assert "0.75" in page.text  # 60 of 80
    assert "95 % interval 0.62 to 0.88" in page.text
    assert "doom/basic?skill=5, seeds 0 to 2." in page.text
    assert "Failed episodes1 of 395 % interval of the share 20.0 to 80.0 %" in page.text
    assert "lowest after epoch 1, of 2." in page.text
    labels = [a["aria-label"] or "" for a in page.of("svg")]
    assert any("mean return 40 to 80" in label for label in labels)
    assert any("learning rate 0.1 to 0.1" in label for label in labels)
    (video,) = page.of("video")
    assert file_in(video) == (whole / "l/x/rollout.mp4").read_bytes()


@pytest.mark.parametrize("expert", [0.9375, None])
def test_small_returns_are_not_rounded_away(whole, tmp_path, expert):
    file = whole / "l/x/rollout.json"
    play = {"mean": 0.4321, "ci95": [0.1234, 0.75], "random_mean": -0.1875, "expert_mean": expert}
    play |= {"returns": [0.875, -0.2, 0.25, 0.5], "episodes": 4}
    play |= {} if expert else {"normalized": None, "normalized_ci95": None, "failed": None, "failed_ci95": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | play))
    log = (whole / "l/x/metrics.jsonl").read_text()
    (whole / "l/x/metrics.jsonl").write_text(log.replace('"exact_match"', '"rollout": 0.0625, "exact_match"'))
    text = page_of(whole, tmp_path).text
    assert "mean return 0.432 (0.123 to 0.750)" in text
    assert "Mean return0.43295 % interval (0.123 to 0.750)" in text
    assert "Random-0.188" in text
    assert ("Expert0.938" if expert else "Expert–") in text
    assert "Median return0.375lowest -0.200, highest 0.875" in text
    assert text.count("0.062") == 2  # once for each epoch
    if expert is None:
        assert "a mean return of 0.432 over 4 episodes" in text


@pytest.mark.parametrize("video", [None, "play.mp4", "elsewhere.mp4", "x/rollout.mp4"])
def test_the_video_of_this_play_is_shown_and_not_an_older_one_in_the_logs(whole, tmp_path, monkeypatch, video):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "play.mp4").write_bytes(b"this play")
    file = whole / "l/x/rollout.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"video": video}))
    page = page_of(whole, tmp_path)
    if video == "play.mp4":
        (shown,) = page.of("video")
        assert file_in(shown) == b"this play"
        assert "The first episode, play.mp4" in page.text
    else:
        assert not page.of("video")
        reason = f"there is no {video}" if video else f"{whole / 'l/x/rollout.json'} is of play that was not filmed"
        assert f"No video: {reason}; to film an episode: " in page.text


def test_the_video_of_a_run_that_was_set_aside_is_with_its_logs():
    run: Any = SimpleNamespace(log_dir=Path("l/x.1"), saved=SimpleNamespace(config=SimpleNamespace()))
    run.saved.config.logging = LoggingConfig(run_name="x")
    for named, found in (("l/x/play.mp4", "l/x.1/play.mp4"), ("play.mp4", "play.mp4")):
        run.play = SimpleNamespace(video=named)
        assert report_findings.video_file(run) == Path(found)


def test_a_large_video_is_named_instead(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(report_findings, "VIDEO_LIMIT", 100)
    page = page_of(whole, tmp_path)
    assert not page.of("video")
    assert f"{whole / 'l/x/rollout.mp4'} has 0.0 MB, more than" in page.text


def test_names_are_text_and_the_page_loads_nothing(whole, tmp_path):
    text = report(whole / "c/x", quiet(), out=tmp_path / "x.html").read_text()
    require_self_contained(text)
    assert len(Page(text).of("script")) == 1
    assert Page(text).text.count("{{config}}") > 3


def test_a_frame_that_cannot_be_read_tells_no_secret(bare, tmp_path, monkeypatch):
    def fail(dataset, episode, indices):
        raise UserError(f"https://me:SECRET@host/x.zarr?sig=SECRET/episode_{episode}: cannot read 'frames'")

    monkeypatch.setattr(ZarrGameplayDataset, "frames", fail)
    text = report(bare / "c/x", quiet(), out=tmp_path / "x.html").read_text()
    assert "The frame cannot be read: https://host/x.zarr/episode_" in text
    assert "SECRET" not in text


def test_a_page_that_cannot_be_written_is_refused_before_predicting(bare, tmp_path):
    (tmp_path / "file").write_text("")
    console = quiet()
    with pytest.raises(UserError, match="cannot write"):
        report(bare / "c/x", console, out=tmp_path / "file/x.html")
    assert console.file.getvalue() == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("kind", ["bare", "whole"])
def test_page_in_a_browser(request, tmp_path, kind):
    page = report(request.getfixturevalue(kind) / "c/x", quiet(), out=tmp_path / "x.html")
    (html,) = browse(page, tmp_path).of("html")
    videos = int(kind == "whole")
    assert html.get("data-videos") == f"{videos}/{videos}"
