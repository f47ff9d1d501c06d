"""Videos of every container are read upright and to their last whole frame, or refused."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from recorded_sessions import frame_of, number_of, turn, write_sound, write_video

from BC_training.common.errors import UserError
from BC_training.convert.video import Video, upright

TIMES = [i * 50_000 for i in range(40)]


def encode(path: Path, codec="libx264", **options):
    """40 frames at 20 a second, with B-frames where the codec has them, of container ``path.suffix``."""
    container_options = options.pop("container", {})
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=20, options={"g": "8", "threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_of(i, (48, 64)), format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(video: Video) -> list[int]:
    return [number_of(frame) for frame in video.frames(np.arange(len(video.times)))]


@pytest.mark.parametrize("matrix", [
    (a, b, c, d) for a, b, c, d in np.ndindex(3, 3, 3, 3)
    if sorted((a != 1, d != 1)) == sorted((a != 1,) * 2) and (a != 1) != (b != 1) and (b != 1) == (c != 1)
])  # fmt: skip
def test_a_display_matrix_turns_and_mirrors_the_frame(tmp_path, matrix):
    a, b, c, d = (int(value) - 1 for value in matrix)
    write_video(tmp_path / "v.mp4", TIMES[:2])
    plain = next(Video(tmp_path / "v.mp4").frames(np.arange(2)))
    frame = next(Video(turn(tmp_path / "v.mp4", a, b, c, d)).frames(np.arange(2)))
    rows, columns = np.mgrid[: plain.shape[1], : plain.shape[2]]
    x, y = a * columns + c * rows, b * columns + d * rows
    expected = np.zeros_like(frame)
    expected[:, y - y.min(), x - x.min()] = plain
    np.testing.assert_array_equal(frame, expected)


def test_a_turn_in_matroska_is_followed_and_an_oblique_one_refused(tmp_path):
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=20, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        stream.set_display_rotation(90)  # counterclockwise
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_of(0, (24, 32)), format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "v.mkv")) as container:
        frame = upright(next(container.decode(video=0)), tmp_path)
    np.testing.assert_array_equal(frame, np.rot90(frame_of(0, (24, 32))))
    write_video(tmp_path / "v.mp4", TIMES[:2])
    video = Video(turn(tmp_path / "v.mp4", 1, 1, -1, 1))
    with pytest.raises(UserError, match=r"v\.mp4 is to be shown at an oblique angle"):
        list(video.frames(np.arange(2)))


def flv_tag_ends(data: bytes) -> Iterator[int]:
    """Where the tags of an FLV file end; the four bytes behind each repeat its size."""
    end = 9
    while end + 15 <= len(data):
        end += 4 + 11 + int.from_bytes(data[end + 5 : end + 8], "big")
        yield end


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".flv", ".ts", ".webm"])
def test_every_container_is_read_and_a_cut_is_noted(tmp_path, suffix):
    file = encode(
        tmp_path / f"v{suffix}",
        **({"codec": "libvpx-vp9", "lossless": "1", "deadline": "realtime"} if suffix == ".webm" else {}),
        **({"container": {"movflags": "faststart"}} if suffix in (".mp4", ".mov") else {}),
    )
    video = Video(file)
    assert numbers(video) == list(range(40))
    assert (video.fps, video.notes) == (pytest.approx(20, rel=0.01), ())
    data = file.read_bytes()
    # Where nothing shows a cut: after a whole number of transport packets, or of an FLV file's tags.
    whole = list(flv_tag_ends(data)) if suffix == ".flv" else []
    ends = range(len(data) * 9 // 10 | 1, len(data), 2)
    file.write_bytes(data[: next(end for end in ends if not any(0 <= end - tag <= 4 for tag in whole))])
    video = Video(file)
    assert 8 < len(video.times) < 39
    assert set(numbers(video)) <= set(range(40))
    assert numbers(video)[:8] == list(range(8))
    assert f"v{suffix} is cut off: its {len(video.times)} whole frames are used" in video.notes[0]


@pytest.mark.parametrize(("suffix", "container"), [
    (".mp4", {"movflags": "frag_keyframe+empty_moov"}), (".mkv", {"live": "1"}),
])  # fmt: skip
def test_an_unfinished_recording_is_used_and_the_cut_is_noted(tmp_path, suffix, container):
    file = encode(tmp_path / f"v{suffix}", bf="0", container=container)
    assert Video(file).notes == ()
    data = file.read_bytes()
    for share in (0.4, 0.7, 0.9):
        file.write_bytes(data[: int(len(data) * share)])
        video = Video(file)
        assert numbers(video) == list(range(len(video.times)))
        assert "is cut off" in video.notes[0]


def blotted(data: bytes) -> bytes:
    """With damage in the middle of the coded pictures."""
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    return data[:middle] + bytes(400) + data[middle + 400 :]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"not a video" * 100, blotted])
def test_a_damaged_video_is_refused(tmp_path, damage):
    file = tmp_path / "video.mp4"
    write_video(file, TIMES, size=(96, 128), codec="libx264", faststart=True)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"video\.mp4 is damaged .*: restore it"):
        numbers(Video(file))


def test_a_video_without_an_index_or_with_too_few_frames_is_refused(tmp_path):
    file = tmp_path / "video.mp4"
    write_video(file, TIMES)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"video\.mp4 is damaged"):
        Video(file)
    write_video(file, [0])
    with pytest.raises(UserError, match="has 1 frames with a time stamp, 2 are needed"):
        Video(file)
    write_sound(file)
    with pytest.raises(UserError, match="holds no video"):
        Video(file)


def test_a_video_that_begins_late_in_its_file_is_whole(tmp_path):
    write_video(tmp_path / "v.mkv", [time + 5_000_000 for time in TIMES])
    video = Video(tmp_path / "v.mkv")
    assert (len(video.times), video.notes) == (40, ())


def test_pixels_that_are_not_square_are_noted(tmp_path):
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for i in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_of(i, (48, 64)), format="rgb24")))
        container.mux(stream.encode())
    assert "pixels of 4/3, not square" in Video(tmp_path / "v.mp4").notes[0]
