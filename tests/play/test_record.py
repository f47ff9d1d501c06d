"""The real game is recorded into a real dataset."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.schema import RecordConfig
from BC_training.games import make_game
from BC_training.play.players import make_player
from BC_training.play.record import record, record_missing, recorded_episodes

GAME, CORRIDOR = "doom/basic", "doom/deadly_corridor"
SMALL = RecordConfig(GAME, "expert", episodes=2, frame_size=(24, 32))
QUIET = Console(file=StringIO())


def recorded(path: Path, config: RecordConfig, workers: int = 1) -> ZarrGameplayDataset:
    record(path, config, workers, QUIET)
    return ZarrGameplayDataset(path)


def complete(path: Path, config: RecordConfig, **options: int) -> ZarrGameplayDataset:
    record_missing(path, config, 1, QUIET, **options)
    return ZarrGameplayDataset(path)


def attrs(dataset: ZarrGameplayDataset, name: str) -> list:
    return [episode.attrs[name] for episode in dataset.episodes]


@pytest.mark.parametrize(("player", "mix"), [("expert", 0.0), ("random", 0.0), ("random", 0.4), ("random", 1.0)])
def test_a_recording_equals_its_replay_and_is_labelled_by_the_expert(tmp_path, player, mix):
    """A fresh expert presses the labels, and what was executed leads from frame to frame."""
    dataset = recorded(tmp_path / "x.zarr", replace(SMALL, player=player, episodes=1, label="expert", mix=mix))
    how = [attrs(dataset, name) for name in ("seed", "player", "label", "mix")]
    assert how == [[10_000], [player], ["expert"], [mix]]
    assert dataset.fps == 17.5
    length = dataset.episodes[0].length
    frames, actions, state = dataset.frames(0, range(length)), dataset.actions(0), dataset.state(0)
    with closing(make_game(GAME, frame_size=SMALL.frame_size)) as env:
        chooser, expert = (make_player(name, GAME, env) for name in (player, "expert"))
        observation, _ = env.reset(seed=10_000)
        chooser.reset(10_000)
        draws, differing, score, over = np.random.default_rng([10_000, 2]), 0, 0.0, False
        for t in range(length):
            assert not over
            np.testing.assert_array_equal(frames[t], observation["frame"])
            np.testing.assert_array_equal(state[t], observation["state"])
            label, chosen = expert.act(observation), chooser.act(observation)
            np.testing.assert_array_equal(actions[t], label.buttons)
            differing += (label.buttons != chosen.buttons).any()
            observation, reward, terminated, truncated, _ = env.step(label if draws.random() < mix else chosen)
            score, over = score + float(reward), terminated or truncated
    assert over
    assert attrs(dataset, "score") == [pytest.approx(score)]
    assert (differing > length / 2) == (player == "random")


def test_recording_again_appends_new_seeds_and_workers_change_nothing_but_the_time(tmp_path):
    one = recorded(tmp_path / "one.zarr", replace(SMALL, episodes=4))
    recorded(tmp_path / "two.zarr", SMALL)
    two = recorded(tmp_path / "two.zarr", SMALL, workers=2)
    assert [e.name for e in two.episodes] == [f"episode_{n}" for n in range(4)]
    assert attrs(one, "seed") == attrs(two, "seed") == [10_000, 10_001, 10_002, 10_003]
    for e in range(4):
        length = one.episodes[e].length
        np.testing.assert_array_equal(one.frames(e, range(length)), two.frames(e, range(length)))
        np.testing.assert_array_equal(one.actions(e), two.actions(e))


def test_noise_moves_the_game_but_not_the_label(tmp_path):
    config = RecordConfig(CORRIDOR, "noop", episodes=1, frame_size=(24, 32))
    moved = recorded(tmp_path / "noisy.zarr", replace(config, noise=0.2, noise_frames=5))
    still = recorded(tmp_path / "still.zarr", config)
    column = moved.state_names.index("player_angle")
    assert not moved.actions(0).any()
    assert np.ptp(moved.state(0)[:, column]) > 1
    assert np.ptp(still.state(0)[:, column]) < 1


def test_label_and_mix_tell_recordings_apart(tmp_path):
    path = tmp_path / "x.zarr"
    record(path, replace(SMALL, episodes=1), 1, QUIET)
    for same in (SMALL, replace(SMALL, label="expert"), replace(SMALL, game=f"{GAME}?skill=3")):
        assert len(recorded_episodes(path, same)) == 1
    for other in (
        {"label": "noop"},
        {"label": "expert", "mix": 0.5},
        {"player": "noop", "label": "expert"},
        {"game": f"{GAME}?skill=4"},
    ):
        assert not recorded_episodes(path, replace(SMALL, **other))


def test_frames_may_be_recorded_as_a_video(tmp_path):
    kept = recorded(tmp_path / "x.zarr", replace(SMALL, episodes=1))
    filmed = recorded(tmp_path / "y.zarr", replace(SMALL, episodes=1, video=True))
    assert (tmp_path / "y.zarr" / "episode_0" / "frames.mp4").is_file()
    np.testing.assert_array_equal(filmed.actions(0), kept.actions(0))
    frames = [dataset.frames(0, range(dataset.episodes[0].length)).astype(float) for dataset in (kept, filmed)]
    assert np.square(frames[0] - frames[1]).mean() < 200  # of 255^2
    assert len(complete(tmp_path / "y.zarr", replace(SMALL, video=True)).episodes) == 2


def test_a_mix_is_a_share():
    with pytest.raises(UserError, match=r"mix=1\.5 is out of range: 0 to 1"):
        replace(SMALL, label="expert", mix=1.5)


def test_missing_episodes_are_completed_and_others_left_alone(tmp_path):
    path = tmp_path / "x.zarr"
    complete(path, SMALL)
    assert len(complete(path, SMALL).episodes) == 2
    assert attrs(complete(path, replace(SMALL, episodes=3)), "seed") == [10_000, 10_001, 10_002]
    assert len(complete(path, replace(SMALL, player="noop", episodes=9)).episodes) == 3  # it may be somebody's own
    with pytest.raises(UserError, match="frames of 24x32, not 48x64"):
        complete(path, replace(SMALL, frame_size=(48, 64)))


def test_a_lost_episode_is_recorded_again_under_its_own_number(tmp_path):
    """Workers that are killed leave gaps; the dataset has to end as if they had not been killed."""
    path, three = tmp_path / "x.zarr", replace(SMALL, episodes=3)
    noop = replace(SMALL, player="noop", label="expert")
    complete(path, three)
    complete(path, noop, first_number=3)
    for lost in (1, 3):
        shutil.rmtree(path / f"episode_{lost}")
    complete(path, three)
    dataset = complete(path, noop, first_number=3)
    assert attrs(dataset, "player") == ["expert"] * 3 + ["noop"] * 2
    assert attrs(dataset, "seed") == [10_000, 10_001, 10_002, 10_000, 10_001]
    later = complete(path, replace(SMALL, seed=10_002))  # the number 1 of its second seed is taken
    assert attrs(later, "seed")[5:] == [10_003]
    assert [e.name for e in later.episodes] == [f"episode_{n}" for n in range(6)]


def test_a_recorder_killed_while_it_creates_the_dataset_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    path = tmp_path / "x.zarr"

    def killed(folder, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("zarr.create_group", killed)
    with pytest.raises(KeyboardInterrupt):
        record_missing(path, SMALL, 1, QUIET)
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_size": (48, 64)}, "holds frames of 24x32, not 48x64"),
        ({"game": "doom/deadly_coridor"}, "unknown game"),
        ({"player": "nobody"}, "unknown player"),
        ({"label": "nobody"}, "unknown player"),
        ({"label": "."}, "is not a checkpoint"),
    ],
)
def test_what_cannot_be_recorded_leaves_the_dataset_alone(tmp_path, change, message):
    path = tmp_path / "x.zarr"
    record(path, SMALL, 1, QUIET)
    before = sorted(path.rglob("*"))
    with pytest.raises(UserError, match=message):
        record(path, replace(SMALL, **change), 1, QUIET)
    assert sorted(path.rglob("*")) == before


def test_a_killed_recorder_loses_only_the_episode_in_progress(tmp_path):
    path = tmp_path / "x.zarr"
    command = [sys.executable, "-m", "BC_training", "record", "--game", GAME, "--out", str(path), "--episodes", "500"]
    command += ["--size", "24x32", "--workers", "1"]
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while len(list(path.glob("episode_*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.killpg(recorder.pid, signal.SIGKILL)
        recorder.wait()
    kept = ZarrGameplayDataset(path)
    assert len(kept.episodes) >= 2
    for e in range(len(kept.episodes)):
        kept.frames(e, range(kept.episodes[e].length))  # every chunk is there and whole
    after = recorded(path, SMALL)
    assert len(after.episodes) == len(kept.episodes) + 2
    assert len(set(attrs(after, "seed"))) == len(after.episodes)
    assert not list(path.glob(".partial-*"))


def test_full_disk_keeps_what_was_finished(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        fields = RecordConfig(CORRIDOR, "expert", episodes=6, frame_size=(72, 128))
        with pytest.raises(UserError, match=r"disk that holds .* is full"):
            record(disk / "x.zarr", fields, 1, QUIET)
        assert not list((disk / "x.zarr").glob(".partial-*"))
        kept = ZarrGameplayDataset(disk / "x.zarr")
        for e in range(len(kept.episodes)):
            kept.frames(e, range(kept.episodes[e].length))
    finally:
        subprocess.run(["umount", disk], check=True)
