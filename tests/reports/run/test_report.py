"""The page about a run, also in a browser."""

import base64
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
from pages import CHROMIUM, Page, browse
from PIL import Image
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


@pytest.fixture(scope="module")
def bare(tmp_path_factory, make_dataset, make_config, make_inputs) -> Path:
    """The folder of an untrained run of three buttons with hostile names, without logs: c/x, l/x and x.zarr."""
    folder = tmp_path_factory.mktemp("report")
    make_dataset(folder / "x.zarr", LENGTHS, actions=3, root_attributes={"keys": list(HOSTILE)})
    logging = LoggingConfig(log_dir=str(folder / "l"))
    config = dataclasses.replace(make_config(), dataset=DatasetConfig(path=str(folder / "x.zarr")), logging=logging)
    inputs = dataclasses.replace(make_inputs(), action_names=HOSTILE)
    save_run(folder / "c/x", config, inputs, val=("episode_0", "episode_1", "episode_2"))
    (folder / "l/x").mkdir(parents=True)
    return folder


@pytest.fixture
def whole(bare) -> Iterator[Path]:
    """The same, with logs, a score in play and a video."""
    folder = bare / "l/x"
    rows = [{"kind": "train", "step": s, "loss": 1 / s, "learning_rate": 0.1} for s in range(1, 11)]
    for epoch in (1, 2):
        rows.append({"kind": "epoch", "step": 5 * epoch, "epoch": epoch, "train_loss": 0.5, "frames_per_second": 9.0})
        rows.append({"kind": "val", "step": 5 * epoch, "epoch": epoch, "loss": 0.5 * epoch, "exact_match": 0.3})
        rows.append({"kind": "rollout", "step": 5 * epoch, "epoch": epoch, "mean": 40.0 * epoch})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    saved = checkpoint.read(bare / "c/x")
    play = {"game": "doom/basic?skill=5", "seed": 0, "episodes": 3, "seen": {}, "step": saved.step, "player": "x"}
    play |= {"decoding": saved.decoding.to_dict(), "mean": 60.0, "ci95": [50.0, 70.0], "returns": [50.0, 60.0, 70.0]}
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
    page = Page(report(bare / "c/x", quiet(), out=tmp_path / "x.html").read_text())
    pictures = page.of("img")
    assert 1 < len(pictures) <= report_findings.WORST
    for picture in pictures:
        match = re.match(r"episode_(\d) · frame (\d+) · [\d.]+ s: recorded (.*); predicted", picture["alt"] or "")
        assert match
        episode, frame = written[int(match[1])], int(match[2])
        held = [name for name, is_held in zip(HOSTILE, episode.actions[frame], strict=True) if is_held]
        assert match[3] == (" + ".join(held) or "nothing held")
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode((picture["src"] or "").split(",")[1]))))
        assert image.mean(axis=(0, 1)) == pytest.approx(episode.frames[frame].mean(axis=(1, 2)), abs=3)


def test_the_page_says_what_it_lacks(bare, tmp_path):
    console = quiet()
    text = Page(report(bare / "c/x", console, out=tmp_path / "x.html").read_text()).text
    assert "Not played: there is no" in text
    assert "No video: there is no" in text
    assert "metrics.jsonl lacks the steps and epochs" in text
    assert len(re.findall("^not in the report", console.file.getvalue(), re.MULTILINE)) == 3


def test_the_page_shows_the_log_play_and_video(whole, tmp_path):
    page = Page(report(whole / "c/x", quiet(), out=tmp_path / "x.html").read_text())
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
    assert base64.b64decode((video["src"] or "").split(",")[1]) == (whole / "l/x/rollout.mp4").read_bytes()


@pytest.mark.parametrize("expert", [0.9375, None])
def test_small_returns_are_not_rounded_away(whole, tmp_path, expert):
    file = whole / "l/x/rollout.json"
    play = {"mean": 0.4321, "ci95": [0.1234, 0.75], "random_mean": -0.1875, "expert_mean": expert}
    play |= {"returns": [0.875, -0.2, 0.25, 0.5], "episodes": 4}
    play |= {} if expert else {"normalized": None, "normalized_ci95": None, "failed": None, "failed_ci95": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | play))
    log = (whole / "l/x/metrics.jsonl").read_text()
    (whole / "l/x/metrics.jsonl").write_text(log.replace('"exact_match"', '"rollout": 0.0625, "exact_match"'))
    text = Page(report(whole / "c/x", quiet(), out=tmp_path / "x.html").read_text()).text
    assert "mean return 0.432 (0.123 to 0.750)" in text
    assert "Mean return0.43295 % interval (0.123 to 0.750)" in text
    assert "Random-0.188" in text
    assert ("Expert0.938" if expert else "Expert–") in text
    assert "Median return0.375lowest -0.200, highest 0.875" in text
    assert text.count("0.062") == 2  # of the epochs
    if expert is None:
        assert "a mean return of 0.432 over 4 episodes" in text


@pytest.mark.parametrize("video", [None, "play.mp4", "elsewhere.mp4", "x/rollout.mp4"])
def test_only_the_video_of_this_play_is_shown(whole, tmp_path, monkeypatch, video):
    """An older one lies in the logs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "play.mp4").write_bytes(b"this play")
    file = whole / "l/x/rollout.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"video": video}))
    page = Page(report(whole / "c/x", quiet(), out=tmp_path / "x.html").read_text())
    if video == "play.mp4":
        (shown,) = page.of("video")
        assert base64.b64decode((shown["src"] or "").split(",")[1]) == b"this play"
        assert "The first episode, play.mp4" in page.text
    else:
        assert not page.of("video")
        reason = f"there is no {video}" if video else f"{whole / 'l/x/rollout.json'} is of play that was not filmed"
        assert f"No video: {reason}; to film an episode: " in page.text


def test_the_video_of_a_run_set_aside_is_with_its_logs():
    run: Any = SimpleNamespace(log_dir=Path("l/x.1"), saved=SimpleNamespace(config=SimpleNamespace()))
    run.saved.config.logging = LoggingConfig(run_name="x")
    for named, found in (("l/x/play.mp4", "l/x.1/play.mp4"), ("play.mp4", "play.mp4")):
        run.play = SimpleNamespace(video=named)
        assert report_findings.video_file(run) == Path(found)


def test_a_large_video_is_named_instead(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(report_findings, "VIDEO_LIMIT", 100)
    page = Page(report(whole / "c/x", quiet(), out=tmp_path / "x.html").read_text())
    assert not page.of("video")
    assert f"{whole / 'l/x/rollout.mp4'} has 0.0 MB, more than" in page.text


def test_names_are_text_and_the_page_loads_nothing(whole, tmp_path):
    text = report(whole / "c/x", quiet(), out=tmp_path / "x.html").read_text()
    page = Page(text)
    assert len(page.of("script")) == 1
    assert page.text.count("{{config}}") > 3
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", text)
    addresses = [v or "" for _, attributes in page.tags for k, v in attributes.items() if k in ("src", "href")]
    assert all(a.startswith(("data:image/jpeg;base64,", "data:video/mp4;base64,", "#")) for a in addresses)
    identifiers = {a["id"] for _, a in page.tags if "id" in a}
    assert {(a["href"] or "")[1:] for a in page.of("a")} <= identifiers
    assert all(a.get("alt") for a in page.of("img"))
    assert all(a.get("aria-label") for a in page.of("svg"))


def test_a_frame_that_cannot_be_read_tells_no_secret(bare, tmp_path, monkeypatch):
    def fail(dataset, episode, indices):
        raise UserError(f"https://me:SECRET@host/x.zarr?sig=SECRET/episode_{episode}: cannot read 'frames'")

    monkeypatch.setattr(ZarrGameplayDataset, "frames", fail)
    text = report(bare / "c/x", quiet(), out=tmp_path / "x.html").read_text()
    assert "The frame cannot be read: https://host/x.zarr/episode_" in text
    assert "SECRET" not in text


def test_a_page_that_cannot_be_written_is_found_first(bare, tmp_path):
    (tmp_path / "file").write_text("")
    console = quiet()
    with pytest.raises(UserError, match="cannot write"):
        report(bare / "c/x", console, out=tmp_path / "file/x.html")
    assert console.file.getvalue() == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("kind", ["bare", "whole"])
def test_page_in_a_browser(request, tmp_path, kind):
    page = report(request.getfixturevalue(kind) / "c/x", quiet(), out=tmp_path / "x.html")
    shown = browse(page, tmp_path)
    (html,) = shown.of("html")
    images = len(Page(page.read_text()).of("img"))
    assert images > 1
    videos = int(kind == "whole")
    assert html.get("data-ready") == "true"
    assert html.get("data-images") == f"{images}/{images}"
    assert html.get("data-videos") == f"{videos}/{videos}"
