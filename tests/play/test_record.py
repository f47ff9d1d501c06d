"""Recording the real game into a real dataset."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO

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


def attrs(dataset: ZarrGameplayDataset, name: str) -> list:
    return [episode.attrs[name] for episode in dataset.episodes]


def test_recording_equals_the_play_it_recorded(tmp_path):
    record(tmp_path / "x.zarr", SMALL, 1, QUIET)
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert attrs(dataset, "seed") == [10_000, 10_001]
    assert attrs(dataset, "player") == ["expert", "expert"]
    assert dataset.fps == 17.5
    env = make_game(SMALL.game, frame_size=SMALL.frame_size)
    try:
        player = make_player("expert", SMALL.game, env)
        observation, _ = env.reset(seed=10_001)
        score, length = 0.0, dataset.episodes[1].length
        frames, actions, state = dataset.frames(1, range(length)), dataset.actions(1), dataset.state(1)
        for t in range(length):
            np.testing.assert_array_equal(frames[t], observation["frame"])
            np.testing.assert_array_equal(state[t], observation["state"])
            np.testing.assert_array_equal(actions[t], player.act(observation))
            observation, reward, terminated, _, _ = env.step(actions[t])
            score += float(reward)
        assert terminated
        assert attrs(dataset, "score")[1] == pytest.approx(score)
    finally:
        env.close()


def test_recording_again_appends_new_seeds_and_workers_change_nothing_but_the_time(tmp_path):
    record(tmp_path / "one.zarr", dataclasses.replace(SMALL, episodes=4), 1, QUIET)
    for workers in (1, 2):
        record(tmp_path / "two.zarr", SMALL, workers, QUIET)
    one, two = ZarrGameplayDataset(tmp_path / "one.zarr"), ZarrGameplayDataset(tmp_path / "two.zarr")
    assert [e.name for e in two.episodes] == [f"episode_{n}" for n in range(4)]
    assert attrs(one, "seed") == attrs(two, "seed") == [10_000, 10_001, 10_002, 10_003]
    for e in range(4):
        length = one.episodes[e].length
        np.testing.assert_array_equal(one.frames(e, range(length)), two.frames(e, range(length)))
        np.testing.assert_array_equal(one.actions(e), two.actions(e))


def test_noise_moves_the_game_but_not_the_label(tmp_path):
    noisy = RecordConfig(CORRIDOR, "noop", episodes=1, frame_size=(24, 32), noise=0.2, noise_frames=5)
    record(tmp_path / "noisy.zarr", noisy, 1, QUIET)
    record(tmp_path / "still.zarr", RecordConfig(CORRIDOR, "noop", episodes=1, frame_size=(24, 32)), 1, QUIET)
    moved, still = ZarrGameplayDataset(tmp_path / "noisy.zarr"), ZarrGameplayDataset(tmp_path / "still.zarr")
    column = moved.state_names.index("player_angle")
    assert not moved.actions(0).any()  # noop's label
    assert np.ptp(moved.state(0)[:, column]) > 1
    assert np.ptp(still.state(0)[:, column]) < 1


@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_frames_that_a_player_reaches_are_labelled_by_another(tmp_path, mix):
    """Replayed: a fresh expert presses the labels, and what was executed leads from frame to frame."""
    config = dataclasses.replace(SMALL, player="random", episodes=1, label="expert", mix=mix)
    record(tmp_path / "x.zarr", config, 1, QUIET)
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    assert (attrs(dataset, "player"), attrs(dataset, "label"), attrs(dataset, "mix")) == (["random"], ["expert"], [mix])
    length = dataset.episodes[0].length
    frames, actions = dataset.frames(0, range(length)), dataset.actions(0)
    env = make_game(SMALL.game, frame_size=SMALL.frame_size)
    try:
        player, expert = (make_player(name, SMALL.game, env) for name in ("random", "expert"))
        observation, _ = env.reset(seed=10_000)
        player.reset(10_000)
        draws, differing, over = np.random.default_rng([10_000, 2]), 0, False
        for t in range(length):
            assert not over
            np.testing.assert_array_equal(frames[t], observation["frame"])
            label, chosen = expert.act(observation), player.act(observation)
            np.testing.assert_array_equal(actions[t], label)
            differing += (label != chosen).any()
            observation, _, terminated, truncated, _ = env.step(label if draws.random() < mix else chosen)
            over = terminated or truncated
        assert over
        assert differing > length / 2
    finally:
        env.close()


def test_a_player_that_never_acts_leaves_the_labellers_own_recording(tmp_path):
    config = dataclasses.replace(SMALL, player="noop", label="expert", mix=1.0, noise=0.05)
    record(tmp_path / "mixed.zarr", config, 1, QUIET)
    record(tmp_path / "own.zarr", dataclasses.replace(SMALL, noise=0.05), 1, QUIET)
    mixed, own = ZarrGameplayDataset(tmp_path / "mixed.zarr"), ZarrGameplayDataset(tmp_path / "own.zarr")
    for e in range(2):
        length = own.episodes[e].length
        np.testing.assert_array_equal(mixed.frames(e, range(length)), own.frames(e, range(length)))
        np.testing.assert_array_equal(mixed.actions(e), own.actions(e))
        np.testing.assert_array_equal(mixed.state(e), own.state(e))


def test_label_and_mix_tell_recordings_apart(tmp_path):
    path = tmp_path / "x.zarr"
    record(path, dataclasses.replace(SMALL, episodes=1), 1, QUIET)
    for same in (SMALL, dataclasses.replace(SMALL, label="expert"), dataclasses.replace(SMALL, game=f"{GAME}?skill=3")):
        assert len(recorded_episodes(path, same)) == 1
    for other in (
        {"label": "noop"},
        {"label": "expert", "mix": 0.5},
        {"player": "noop", "label": "expert"},
        {"game": f"{GAME}?skill=4"},
    ):
        assert not recorded_episodes(path, dataclasses.replace(SMALL, **other))


def test_episodes_are_added_to_those_of_others_under_their_own_numbers(tmp_path):
    path, noop = tmp_path / "x.zarr", dataclasses.replace(SMALL, player="noop", label="expert")
    record(path, SMALL, 1, QUIET)
    record_missing(path, noop, 1, QUIET, first_number=2)
    shutil.rmtree(path / "episode_2")
    record_missing(path, noop, 1, QUIET, first_number=2)
    dataset = ZarrGameplayDataset(path)
    assert attrs(dataset, "player") == ["expert", "expert", "noop", "noop"]
    assert attrs(dataset, "seed") == [10_000, 10_001, 10_000, 10_001]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mix": 0.5}, "mixes in the actions of nobody"),
        ({"mix": 1.5, "label": "expert"}, "mix=1.5 is out of range: 0 to 1"),
        ({"mix": -0.1, "label": "expert"}, "mix=-0.1 is out of range"),
    ],
)
def test_a_mix_is_a_share_of_somebodys_actions(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **fields)


def test_missing_episodes_are_completed_and_others_left_alone(tmp_path):
    path = tmp_path / "x.zarr"
    record_missing(path, SMALL, 1, QUIET)
    record_missing(path, SMALL, 1, QUIET)
    assert len(ZarrGameplayDataset(path).episodes) == 2
    three = RecordConfig(SMALL.game, "expert", episodes=3, frame_size=SMALL.frame_size)
    record_missing(path, three, 1, QUIET)
    assert attrs(ZarrGameplayDataset(path), "seed") == [10_000, 10_001, 10_002]
    record_missing(path, RecordConfig(SMALL.game, "noop", episodes=9, frame_size=SMALL.frame_size), 1, QUIET)
    assert len(ZarrGameplayDataset(path).episodes) == 3  # another player's: somebody's own


def test_a_complete_dataset_of_another_frame_size_is_an_error(tmp_path):
    path = tmp_path / "x.zarr"
    record_missing(path, dataclasses.replace(SMALL, episodes=1), 1, QUIET)
    for episodes in (1, 2):
        other = dataclasses.replace(SMALL, episodes=episodes, frame_size=(48, 64))
        with pytest.raises(UserError, match="frames of 24x32, not 48x64"):
            record_missing(path, other, 1, QUIET)
    assert len(ZarrGameplayDataset(path).episodes) == 1


def test_an_episode_that_was_lost_gets_its_own_number_again(tmp_path):
    """Several workers that are killed leave gaps; the dataset has to end as if they had not been."""
    path, three = tmp_path / "x.zarr", dataclasses.replace(SMALL, episodes=3)
    record_missing(path, three, 1, QUIET)
    shutil.rmtree(path / "episode_1")
    record_missing(path, three, 1, QUIET)
    dataset = ZarrGameplayDataset(path)
    assert [e.name for e in dataset.episodes] == ["episode_0", "episode_1", "episode_2"]
    assert attrs(dataset, "seed") == [10_000, 10_001, 10_002]
    later = dataclasses.replace(SMALL, seed=10_002)  # its number 1 is taken
    record_missing(path, later, 1, QUIET)
    assert attrs(ZarrGameplayDataset(path), "seed") == [10_000, 10_001, 10_002, 10_003]


def test_a_recorder_killed_while_it_creates_the_dataset_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    path = tmp_path / "x.zarr"

    def killed(folder, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("zarr.create_group", killed)
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
    fields = {"game": SMALL.game, "player": "expert", "episodes": 1, "frame_size": (24, 32)} | change
    with pytest.raises(UserError, match=message):
        record(path, RecordConfig(**fields), 1, QUIET)
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
    record(path, SMALL, 1, QUIET)
    after = ZarrGameplayDataset(path)
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
