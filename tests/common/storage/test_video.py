import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dataset_files import file_server, read_episode, user_error
from filmed_datasets import encode, film, moving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from videos import decode

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.storage import reader, video
from BC_training.common.storage.video import VIDEO, VideoFrames

LENGTH = 70
ENCODINGS = {
    "as recorded": None,
    "stored in another order": {"bf": "3", "g": "12"},
    "one key frame": {"g": "1000", "bf": "0"},
}


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> Path:
    return film(tmp_path_factory.mktemp("filmed") / "x.zarr", [LENGTH, 30, 41])


@pytest.fixture(scope="module", params=list(ENCODINGS))
def encoded(request, filmed, tmp_path_factory) -> tuple[VideoFrames, np.ndarray]:
    """A video, and its frames as they are decoded in order."""
    path = Path(shutil.copytree(filmed, tmp_path_factory.mktemp("encoded") / "x.zarr"))
    file = path / "episode_0" / VIDEO
    if (options := ENCODINGS[request.param]) is not None:
        encode(file, moving(LENGTH), **options)
    opened = reader.open_array(read_episode(path), "frames")
    assert isinstance(opened, VideoFrames)
    return opened, decode(file)[0].transpose(0, 3, 1, 2)


@given(reads=st.lists(st.lists(st.integers(0, LENGTH - 1), max_size=6), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_are_those_of_the_video_decoded_in_order(encoded, reads):
    opened, frames = encoded
    assert opened.shape == frames.shape
    for rows in reads:
        np.testing.assert_array_equal(opened[np.array(rows, np.int64)].read().result(), frames[rows])
    np.testing.assert_array_equal(opened[5].read().result(), frames[5])
    np.testing.assert_array_equal(opened[8:30].read().result(), frames[8:30])


def test_threads_read_at_once(encoded):
    opened, frames = encoded
    rows = [np.random.default_rng(seed).integers(0, LENGTH, 5) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for wanted, found in zip(rows, pool.map(opened.read_rows, rows), strict=True):
            np.testing.assert_array_equal(found, frames[wanted])


def test_an_episode_read_in_blocks_is_decoded_once(filmed, monkeypatch):
    decoded, decode_one = [], video._Decoder._decode
    monkeypatch.setattr(video._Decoder, "_decode", lambda self, row: decoded.append(row) or decode_one(self, row))
    dataset = ZarrGameplayDataset(filmed)
    for start in range(0, LENGTH, 16):
        dataset.frames(0, range(start, min(start + 16, LENGTH)))
    assert decoded == list(range(LENGTH))


def test_videos_and_arrays_may_be_in_one_dataset(tmp_path, filmed):
    from BC_training.common.action import Action
    from BC_training.common.storage.writer import EpisodeWriter, Names, recording

    path = Path(shutil.copytree(filmed, tmp_path / "x.zarr"))
    with recording(path, Names(("left", "right"))):
        writer = EpisodeWriter(path, 3)
        for frame in moving(12):
            writer.append(frame, Action.of([1, 0]), None)
        writer.commit({"fps": 20.0})
    dataset = ZarrGameplayDataset(path)
    assert ([e.length for e in dataset.episodes], dataset.frame_size) == ([LENGTH, 30, 41, 12], (24, 32))
    kept, lost = dataset.read_frames([(3, np.arange(12)), (0, np.arange(12))])
    np.testing.assert_array_equal(kept, moving(12))
    error = np.square(lost.astype(float) - moving(12)).mean()
    assert 10 * np.log10(255**2 / error) > 32  # dB: H.264 in 4:2:0, with noise that it leaves out


def test_a_video_in_a_zip_file_or_on_a_server_reads_as_the_local_one(tmp_path, filmed):
    zipped = shutil.make_archive(str(tmp_path / "x"), "zip", filmed)
    local = ZarrGameplayDataset(filmed)
    with file_server(lambda path: filmed / path.strip("/")) as server:
        for address in (zipped, server.url):
            other = ZarrGameplayDataset(address)
            for i, episode in enumerate(local.episodes):
                whole = local.frames(i, range(episode.length))
                np.testing.assert_array_equal(other.frames(i, range(episode.length)), whole)
                np.testing.assert_array_equal(other.frames(i, [20, 3]), whole[[20, 3]])


def test_open_videos_are_bounded(filmed):
    opened = [reader.open_array(read_episode(filmed, number % 3), "frames") for number in range(video._IDLE + 5)]
    for frames in opened:
        frames[3].read().result()
    assert sum(len(frames._idle) for frames in opened) <= video._IDLE
    assert len(opened[-1]._idle) == 1


# --- videos that cannot be used

SPOILED = {
    "no MP4": (lambda file: file.write_bytes(b"no video" * 100), "cannot use frames.mp4"),
    "empty": (lambda file: file.write_bytes(b""), "cannot use frames.mp4"),
    "a playlist": (
        lambda file: file.write_text(f"ffconcat version 1.0\nfile {file.parent.parent}/y.mp4"),
        "cannot use",
    ),
    "another codec": (lambda file: encode(file, moving(LENGTH), "mpeg4"), "coded as mpeg4, not as H.264"),
    "fragments": (lambda file: encode(file, moving(LENGTH), flags="frag_keyframe+empty_moov"), "an MP4 of fragments"),
    "fewer frames": (lambda file: encode(file, moving(LENGTH - 1)), "lengths differ: frames 69, actions 70"),
    "another size": (lambda file: encode(file, moving(LENGTH, (32, 32))), "'frames' are 32x32"),
    "nothing": (lambda file: file.unlink(), "has no array 'frames', nor frames.mp4"),
    "a link": (
        lambda file: (file.rename(file.parents[2] / "y.mp4"), file.symlink_to(file.parents[2] / "y.mp4")),
        "link",
    ),
}


@pytest.mark.parametrize("case", list(SPOILED))
def test_a_video_that_cannot_be_used_is_one_line(tmp_path, filmed, case):
    spoil, expected = SPOILED[case]
    path = Path(shutil.copytree(filmed, tmp_path / "x.zarr"))
    spoil(path / "episode_0" / VIDEO)
    message = user_error(ZarrGameplayDataset, path)
    assert "episode_0" in message
    assert expected in message


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_video_that_is_cut_off_is_an_error_where_it_ends(tmp_path, filmed, kept):
    path = Path(shutil.copytree(filmed, tmp_path / "x.zarr"))
    file = path / "episode_0" / VIDEO
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    dataset = ZarrGameplayDataset(path)
    dataset.frames(0, range(10))
    message = user_error(dataset.frames, 0, [LENGTH - 1])
    assert f"{path}/episode_0: cannot read 'frames'" in message
    dataset.frames(0, range(10))
