import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from dataset_files import user_error
from filmed_datasets import encode, moving
from videos import decode

from BC_training.common.storage import video_writer
from BC_training.common.storage.video_writer import LiveVideo, VideoWriter, join, segments, whole_frames


def write(file, frames, fps=20.0, **options):
    with VideoWriter(file, fps, **options) as writer:
        for frame in frames:
            writer.append(frame)
    return decode(file)[0].transpose(0, 3, 1, 2)


def decibels(found: np.ndarray, frames: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(found.astype(float) - frames).mean())


@pytest.mark.parametrize("fps", [20, 17.5, 16.993])
@pytest.mark.parametrize("size", [(24, 32), (23, 31)])
def test_frames_are_near_what_they_were_at_a_constant_rate(tmp_path, fps, size):
    import av

    frames = moving(60, size)
    assert decibels(write(tmp_path / "x.mp4", frames, fps), frames) > 32
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
        keys = [i for i, entry in enumerate(stream.index_entries) if entry.is_keyframe]
    np.testing.assert_allclose(np.array(times, float), np.arange(60) / fps, atol=1e-4)
    assert len(set(np.diff(times))) == 1
    assert keys == list(range(0, 60, round(fps)))


def test_less_loss_is_nearer(tmp_path):
    frames = moving(20)
    assert decibels(write(tmp_path / "a.mp4", frames, crf=5), frames) > 2 + decibels(
        write(tmp_path / "b.mp4", frames, crf=30), frames
    )


LIVE = """
    import sys, time
    from pathlib import Path
    from filmed_datasets import moving
    from BC_training.common.storage import video_writer
    video_writer._SEGMENT_SECONDS = 4
    live = video_writer.LiveVideo(Path(sys.argv[1]), 20)
    for frame in moving(2000):
        live.append(frame)
        print(live.frame_count, flush=True)
        time.sleep(0.001)
"""


@pytest.mark.parametrize("kill_at", [50, 101, 183])
def test_a_kill_loses_the_last_two_seconds_at_most(tmp_path, kill_at):
    command = [sys.executable, "-c", textwrap.dedent(LIVE), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while int(process.stdout.readline()) < kill_at:
            pass
        process.send_signal(signal.SIGKILL)
        written = kill_at + len(process.stdout.readlines())
    files = segments(tmp_path)
    assert len(files) == 1 + (written - 1) // 80
    count = join(files, tmp_path / "frames.mp4")
    assert written - 42 <= count == sum(whole_frames(file) for file in files)
    found = decode(tmp_path / "frames.mp4")[0].transpose(0, 3, 1, 2)
    assert len(found) == count
    assert decibels(found, moving(2000)[:count]) > 32


def test_segments_are_joined_without_encoding_them_again(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer, "_SEGMENT_SECONDS", 1)
    live, frames = LiveVideo(tmp_path, 20), moving(61)
    for frame in frames:
        live.append(frame)
    live.close()
    (tmp_path / "frames_00009.mp4").write_bytes(b"a kill before anything was written")
    files = segments(tmp_path)
    assert [whole_frames(file) for file in files] == [20, 20, 20, 1, 0]
    for limit, count in ((None, 61), (61, 61), (60, 60), (33, 33), (1, 1)):
        assert join(files, tmp_path / "frames.mp4", limit) == count
        joined, rate = decode(tmp_path / "frames.mp4")
        assert rate == pytest.approx(20)
        np.testing.assert_array_equal(joined, np.concatenate([decode(file)[0] for file in files[:4]])[:count])


def test_a_cut_keeps_whole_pictures_where_they_are_stored_in_another_order(tmp_path):
    encode(tmp_path / "x.mp4", moving(40), bf="3", g="12")
    frames = decode(tmp_path / "x.mp4")[0]
    for limit in (10, 20, 40):
        count = join([tmp_path / "x.mp4"], tmp_path / "y.mp4", limit)
        assert limit - 4 < count <= limit
        np.testing.assert_array_equal(decode(tmp_path / "y.mp4")[0], frames[:count])


def test_what_no_video_can_be_is_one_line(tmp_path):
    assert "0.001 to 1,000,000 frames per second" in user_error(VideoWriter, tmp_path / "x.mp4", 0)
    assert "cannot write the video" in user_error(VideoWriter, tmp_path / "none" / "x.mp4", 20)
    assert "a side above" in user_error(write, tmp_path / "x.mp4", np.zeros((1, 3, 8, 20_000), np.uint8))
    assert "no whole frame" in user_error(join, [], tmp_path / "x.mp4")
