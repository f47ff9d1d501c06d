"""Videos of every container are read upright and to their last whole frame, or refused."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from dataset_files import user_error
from recorded_sessions import frame_of, number_of, turn, write_sound, write_video

from BC_training.convert.video import Video, upright

TIMES = [i * 50_000 for i in range(40)]


def encode(path: Path, codec="libx264", container_options=None, pixel_aspect=Fraction(1), frames=40, **options):
    """Frames at 20 a second, with B-frames where the codec has them, in the container of ``path.suffix``."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=20, options={"g": "8", "threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_of(i, (48, 64)), format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(video: Video) -> list[int]:
    return [number_of(frame) for frame in video.frames(np.arange(len(video.times)))]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_a_display_matrix_turns_and_mirrors_the_frame(tmp_path, turned, one, other):
    a, b, c, d = (0, one, other, 0) if turned else (one, 0, 0, other)
    write_video(tmp_path / "v.mp4", TIMES[:2])
    plain = next(Video(tmp_path / "v.mp4").frames(np.arange(2)))
    frame = next(Video(turn(tmp_path / "v.mp4", a, b, c, d)).frames(np.arange(2)))
    rows, columns = np.mgrid[: plain.shape[1], : plain.shape[2]]
    x, y = a * columns + c * rows, b * columns + d * rows
    expected = np.zeros_like(frame)
    expected[:, y - y.min(), x - x.min()] = plain
    np.testing.assert_array_equal(frame, expected)


def test_a_turn_in_matroska_is_followed_and_an_oblique_one_is_refused(tmp_path):
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
    assert "v.mp4 is to be shown at an oblique angle" in user_error(list, video.frames(np.arange(2)))


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
        container_options={"movflags": "faststart"} if suffix in (".mp4", ".mov") else {},
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


@pytest.mark.parametrize(("suffix", "container", "is_start"), [
    (".mp4", {"movflags": "frag_keyframe+empty_moov"}, lambda data: data[4:8] in (b"moof", b"mdat", b"mfra")),
    (".mkv", {"live": "1"}, lambda data: data[:4] == b"\x1f\x43\xb6\x75"),  # of a cluster
])  # fmt: skip
def test_an_unfinished_recording_is_used_and_a_cut_is_noted_but_between_elements(tmp_path, suffix, container, is_start):
    file = encode(tmp_path / f"v{suffix}", bf="0", container_options=container)
    assert Video(file).notes == ()
    data = file.read_bytes()
    starts = [at for at in range(len(data)) if is_start(data[at:])]
    middle = starts[len(starts) // 2 :][:3]
    cuts = {int(len(data) * share) for share in (0.4, 0.7, 0.9)} | {at + i for at in middle for i in range(13)}
    for cut in cuts:
        file.write_bytes(data[:cut])
        video = Video(file)
        assert numbers(video) == list(range(len(video.times)))
        assert sum("is cut off" in note for note in video.notes) == (cut not in starts), cut


def blotted(data: bytes) -> bytes:
    """With damage in the middle of the coded pictures."""
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    return data[:middle] + bytes(400) + data[middle + 400 :]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"not a video" * 100, blotted])
def test_a_damaged_video_is_refused(tmp_path, damage):
    file = tmp_path / "video.mp4"
    write_video(file, TIMES, size=(96, 128), codec="libx264", faststart=True)
    file.write_bytes(damage(file.read_bytes()))
    assert re.search(r"video\.mp4 is damaged .*: restore it", user_error(lambda: numbers(Video(file))))


def test_a_video_without_an_index_or_with_too_few_frames_is_refused(tmp_path):
    file = tmp_path / "video.mp4"
    write_video(file, TIMES)
    file.write_bytes(file.read_bytes()[:-200])
    assert "video.mp4 is damaged" in user_error(Video, file)
    write_video(file, [0])
    assert "has 1 frames with a time stamp, 2 are needed" in user_error(Video, file)
    write_sound(file)
    assert "holds no video" in user_error(Video, file)


def test_a_video_that_begins_late_in_its_file_is_whole(tmp_path):
    write_video(tmp_path / "v.mkv", [time + 5_000_000 for time in TIMES])
    video = Video(tmp_path / "v.mkv")
    assert (len(video.times), video.notes) == (40, ())


def test_pixels_that_are_not_square_are_noted(tmp_path):
    file = encode(tmp_path / "v.mp4", pixel_aspect=Fraction(4, 3), frames=2)
    assert "pixels of 4/3, not square" in Video(file).notes[0]
