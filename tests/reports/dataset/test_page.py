"""The page of a dataset shows its frames and names, and stays small, also in a browser."""

import io
import re
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from pages import CHROMIUM, Page, browse, image_in, require_self_contained
from rich.console import Console

from BC_training.reports.dataset import analyze as package
from BC_training.reports.dataset import page, samples
from BC_training.reports.dataset.analyze import analyze

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{data}}", "[bold]\u202e[31mred", "a" * 200]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_the_frames_shown_are_those_of_the_dataset(tmp_path, make_dataset):
    written = make_dataset(tmp_path / "x.zarr", [30, 20], size=(48, 64), actions=3)
    analyze(tmp_path / "x.zarr", quiet())
    pictures = Page((tmp_path / "x.html").read_text()).of("img")
    assert len(pictures) == samples.SPREAD + 3
    for picture in pictures:
        match = re.fullmatch(r"episode_(\d) · frame (\d+) · ([\d.]+) s: (.*)", picture["alt"] or "")
        assert match
        episode, frame = written[int(match[1])], int(match[2])
        assert float(match[3]) == pytest.approx(frame / 17, abs=0.051)
        held = [f"a{a}" for a in range(3) if episode.actions[frame, a]]
        assert match[4] == (", ".join(held) or "nothing held")
        image = image_in(picture)
        assert image.shape == (48, 64, 3)
        assert image.mean(axis=(0, 1)) == pytest.approx(episode.frames[frame].mean(axis=(1, 2)), abs=3)
    for a, picture in enumerate(pictures[-3:]):
        number, frame = map(int, re.findall(r"\d+", picture["alt"] or "")[:2])
        assert written[number].actions[frame, a]
        assert frame == 0 or not written[number].actions[frame - 1, a]


def test_the_amounts_of_axes_are_shown_beside_the_buttons_or_alone(tmp_path, make_dataset):
    (written,) = make_dataset(tmp_path / "x.zarr", [30], actions=1, axes=2)
    analyze(tmp_path / "x.zarr", quiet())
    text = (tmp_path / "x.html").read_text()
    pictures = Page(text).of("img")
    assert len(pictures) == samples.SPREAD + 1
    for picture in pictures:
        frame = int(re.findall(r"\d+", picture["alt"] or "")[1])
        amounts = [f"x{i} {amount:+.3g}" for i, amount in enumerate(written.axes[frame].tolist()) if amount]
        shown = ["a0"] * int(written.actions[frame, 0]) + amounts
        assert (picture["alt"] or "").split(": ")[1] == (", ".join(shown) or "nothing held")
    assert "exactly right, every button" in text
    for part in ("Press durations", "The first frame of a press", "Baselines"):
        assert part in text
    require_self_contained(text)
    make_dataset(tmp_path / "y.zarr", [30, 1], actions=0, axes=2)
    analyze(tmp_path / "y.zarr", quiet())
    require_self_contained(text := (tmp_path / "y.html").read_text())
    for part in ("Press durations", "The first frame of a press", "<h2>Baselines", "combinations"):
        assert part not in text
    found = Page(text)
    drawn = [a["aria-label"] for a in found.of("svg") if (a["aria-label"] or "").startswith("Amounts of")]
    assert len(drawn) == len(found.of("option")) == 2
    assert len(found.of("caption")) == len(found.of("table")) == 3


def test_names_of_a_dataset_are_text_and_nothing_else(tmp_path, make_dataset):
    names = {"keys": HOSTILE, "attributes": HOSTILE[:3]}
    make_dataset(tmp_path / "x.zarr", [20, 20], actions=len(HOSTILE), root_attributes=names)
    for number, score in enumerate(("</script><script>alert(3)</script>", {"nested": ["<b>"]})):
        attrs = zarr.open_group(tmp_path / f"x.zarr/episode_{number}").attrs
        attrs.update({"score": score, "player": "<i>me</i>", "seed": 3})
    console = quiet()
    analyze(tmp_path / "x.zarr", console, json_file=tmp_path / "x.json")
    require_self_contained(text := (tmp_path / "x.html").read_text())
    found = Page(text)
    assert [a.get("type") for a in found.of("script")] == ["application/json", None]
    assert not found.of("i")
    assert found.text.count("{{data}}") > 5
    assert "<script>alert(1)</script>" in found.text
    assert "<i>me</i>" in found.text
    assert "a" * 61 not in found.text
    printed = console.file.getvalue()
    assert "\u202e" not in printed
    assert re.search("^ *\\[bold\\]\N{REPLACEMENT CHARACTER}\\[31mred +[0-9]", printed, re.MULTILINE)
    assert "\\u001b" not in (tmp_path / "x.json").read_text()


def test_text_that_no_file_can_hold_is_replaced():
    unknown = "\N{REPLACEMENT CHARACTER}"
    assert package.clean("a\ud800\n\u202eb") == f"a{unknown}{unknown}{unknown}b"


def test_the_page_loads_nothing_and_describes_its_tables(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [5])
    analyze(tmp_path / "x.zarr", quiet())
    require_self_contained(text := (tmp_path / "x.html").read_text())
    assert not re.search(r"https?:|{{", text)
    found = Page(text)
    assert all(a.get("scope") for a in found.of("th"))
    assert len(found.of("caption")) == len(found.of("table")) == 7


class FakeDataset:
    """Any number of long episodes, which are made up as they are read."""

    path, skipped, fps = Path("fake.zarr"), (), 17.0
    action_names, state_names, frame_size = tuple(f"action_{i}" for i in range(13)), (), (144, 256)
    axis_names = ("turn",)

    def __init__(self, count: int, length: int):
        known = {"length": length, "fps": 17.0, "labelled": [range(length)]}
        self.episodes = [SimpleNamespace(name=f"episode_{i}", attrs={"score": i / 7}, **known) for i in range(count)]
        self.frames_read = 0

    def __len__(self):
        return sum(e.length for e in self.episodes)

    def actions(self, episode):
        rng = np.random.default_rng(episode)
        return rng.random((self.episodes[episode].length, 13)) < 0.3

    def axes(self, episode):
        return np.random.default_rng(episode).normal(size=(self.episodes[episode].length, 1)).astype(np.float32)

    def frames(self, episode, indices):
        self.frames_read += len(indices)
        return np.random.default_rng(episode).integers(0, 256, (len(indices), 3, *self.frame_size), np.uint8)

    def action_frequencies(self, episodes):
        return np.full(len(self.action_names), 0.5)


@pytest.fixture
def fake(monkeypatch):
    def install(count: int, length: int) -> FakeDataset:
        dataset = FakeDataset(count, length)
        monkeypatch.setattr(package, "ZarrGameplayDataset", lambda *args, **options: dataset)
        return dataset

    return install


def test_page_of_20_long_episodes_stays_below_3_mb(tmp_path, fake):
    dataset = fake(20, 6000)
    analyze("fake.zarr", quiet(), out=tmp_path / "x.html")
    assert 1e6 < (tmp_path / "x.html").stat().st_size < 3e6  # noise, which compresses worst
    assert dataset.frames_read == samples.SPREAD + 13


def test_the_page_says_what_it_leaves_out_of_a_large_dataset(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(package, "TIMELINES", 20)
    monkeypatch.setattr(page, "TABLE_ROWS", 50)
    fake(100, 50)
    report = analyze("fake.zarr", quiet(), out=tmp_path / "x.html")
    assert report["episodes"] == len(report["per_episode"]) == 100
    text = (tmp_path / "x.html").read_text()
    assert len(Page(text).of("details")) == package.TIMELINES
    assert f"{package.TIMELINES} of 100 episodes are shown" in text
    assert f"{page.TABLE_ROWS} of 100 episodes are shown" in text
    assert text.count('<th scope="row">episode_') == page.TABLE_ROWS
    assert len(text) < 3e6


def test_timelines_are_thinned_until_they_fit():
    timelines = [{"rows": ["1" * 5 * (i + 1)], "axes": ["v" * 5 * (i + 1)]} for i in range(20)]
    kept = package._within(timelines, 1000)
    assert 1 < len(kept) < 20
    assert sum(len(row) for t in kept for row in t["rows"] + t["axes"]) <= 1000
    assert package._within(timelines, 10_000) == timelines
    assert len(package._within(timelines, 1)) == 1


def test_no_episode_stays_in_memory_once_it_is_counted(fake, monkeypatch):
    monkeypatch.setattr(package, "TIMELINES", 1)
    peaks = []
    for count in (2, 2, 20):  # the first pays for imports
        fake(count, 5000)
        tracemalloc.start()
        package._gather(package.ZarrGameplayDataset(""), "x", quiet())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 1e6  # 18 more episodes have 1.5 MB of buttons and axes


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("kind", ["rich", "bare", "axes"])
def test_page_in_a_browser(tmp_path, make_older_dataset, make_dataset, kind):
    if kind == "rich":
        names = [*HOSTILE, *(f"a{i}" for i in range(8))]
        make_older_dataset(tmp_path / "x.zarr", [40, 1, 25], root_attributes={"keys": names})
    elif kind == "axes":
        make_dataset(tmp_path / "x.zarr", [40, 1], actions=0, axes=2, root_attributes={"axes": HOSTILE[:2]})
    else:
        make_dataset(tmp_path / "x.zarr", [1], actions=1, state=0, fps=None, rows=[np.zeros((1, 1))])
    report = analyze(tmp_path / "x.zarr", quiet())
    shown = browse(tmp_path / "x.html", tmp_path)
    drawn = [a for a in shown.of("canvas") if "data-episode" in a]
    assert len(drawn) == report["episodes"]
    height = 14 * len(report["actions"]) + 30 * len(report["axes"]) + 18
    assert all(f"height: {height}px" in (a.get("style") or "") for a in drawn)
