"""Frames are read from videos, from pictures among the rows and from files that the rows name."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import lerobot_datasets as lr
import numpy as np
import pyarrow as pa
import pytest
from dataset_files import user_error
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from BC_training.common.errors import UserError
from BC_training.convert.pictures import decode_picture


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def test_pictures_of_any_mode_become_rgb():
    image = lr.picture(1, 2)
    grey = image[..., 0]
    alpha = np.dstack([image, np.full(grey.shape, 77, np.uint8)])
    palette = Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content, expected in (
            (encoded(image), image),
            (encoded(grey), np.dstack([grey] * 3)),
            (encoded(alpha), image),
            (encoded(palette, transparency=bytes([0, 128, 255])), np.asarray(palette.convert("RGB"))),
            (encoded(image, exif=exif), np.rot90(image, -1)),
        ):
            np.testing.assert_array_equal(decode_picture(content, "x", ""), expected)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("image", "part"), [
    *[({"bytes": bomb(side, side)}, f"cannot decode the picture (Image size ({side**2} pixels) exceeds")
      for side in (10_000, 30_000)],
    ({"bytes": encoded(lr.picture(0, 0))[:60]}, "cannot decode the picture"),
    ({"bytes": b"no picture"}, "is no picture in a known format: restore the file"),
    ({"bytes": b"\xff\xd8\xff"}, "is no picture in a known format"),
    ({"bytes": encoded(np.full((4, 4), 40_000, np.uint16))}, "has one channel of more than 8 bits (mode I;16)"),
    ({"bytes": encoded(np.full((4, 4), 0.5, np.float32), "TIFF")}, "(mode F)"),
    *[({"path": path}, "outside the dataset: copy the pictures")
      for path in ("../secret.png", "/etc/hostname", "C:\\pictures\\1.png")],
    *[({"path": path}, f"{path}, which is missing: restore") for path in ("images/gone.png", "x" * 300, "data")],
    *[({"path": path}, "holds no image, but nothing") for path in ("", None)],
])  # fmt: skip
def test_a_picture_that_cannot_be_read_costs_only_its_episode(v21, tmp_path, image, part):
    (tmp_path / "secret.png").write_bytes(encoded(lr.picture(2, 3)))
    lr.edit_column(lr.CAMERA, 3, {"bytes": None, "path": None} | image)(v21)
    message = user_error(lr.imported, v21, tmp_path / "x.zarr")
    parts = ["1 of 3 recordings", f"episode 2, frame 3: '{lr.CAMERA}'", part]
    assert not [part for part in parts if part not in message], message
    assert " at 0x" not in message


@given(st.binary(max_size=200), st.integers(0, 199), st.binary(min_size=1, max_size=20))
def test_damaged_pictures_are_refused_or_decoded(content, place, damage):
    whole = bytearray(encoded(lr.picture(0, 0)))
    whole[place : place + len(damage)] = damage
    for raw in (content, bytes(whole)):
        try:
            frame = decode_picture(raw, "x", "restore it")
        except UserError:
            continue
        assert frame.dtype == np.uint8
        assert frame.shape[2:] == (3,)


def in_images(episode: int, frame: int) -> str:
    return f"images/{lr.CAMERA}/episode_{episode:06d}/frame_{frame:06d}.png"


def move_pictures(root: Path, name: Callable[[int, int], str], place: Callable[[int, int], str] = in_images) -> None:
    """Moves the pictures out of the rows into files at ``place``, which the rows call ``name``."""

    def move(content: list[dict[str, Any]]) -> None:
        for row in content:
            numbered = row["episode_index"], row["frame_index"]
            target = root / place(*numbered)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(row[lr.CAMERA]["bytes"])
            row[lr.CAMERA] = {"bytes": None, "path": name(*numbered)}

    for file in sorted(root.glob("data/*/*.parquet")):
        lr.rewrite(file, move)


@pytest.mark.parametrize("style", ["relative", "alone", "windows", "absolute", "beside"])
def test_pictures_may_be_files_that_the_rows_name(source, style):
    names = {
        "relative": in_images,
        "alone": lambda e, i: f"frame_{i:06d}.png",
        "windows": lambda e, i: in_images(e, i).replace("/", "\\"),
        "absolute": lambda e, i: f"{source}/{in_images(e, i)}",
        "beside": lambda e, i: f"pictures/{e}_{i}.png",
    }
    move_pictures(source, names[style], names[style] if style == "beside" else in_images)
    lr.check_read(source)


@pytest.mark.parametrize("field", ["bytes", "path"])
def test_a_column_may_hold_bytes_or_paths_alone(source, field):
    if field == "path":
        move_pictures(source, in_images)
    wide = pa.large_binary() if field == "bytes" else pa.large_string()
    for change in (
        lambda c: c.combine_chunks().field(field),
        lambda c: c.cast(wide),
        pa.ChunkedArray.dictionary_encode,
    ):
        lr.replace_column(lr.CAMERA, change)(source)
        lr.check_read(source)


@pytest.mark.parametrize("camera", ["image", "video"])
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_digest_distinguishes_episodes_wherever_they_lie(copy, tmp_path, version, camera):
    source = copy(version, camera)
    digests = [lr.opened(source).digest(episode) for episode in lr.opened(source).episodes]
    assert len(set(digests)) == len(lr.LENGTHS)
    moved = lr.opened(source.rename(tmp_path / "moved"))
    assert [moved.digest(episode) for episode in moved.episodes] == digests


def test_a_turned_video_is_upright(copy):
    source = copy("v2.1", "video")
    upright = [frame for frame, _, _ in lr.read(source)[0]]
    lr.set_feature(lr.CAMERA, shape=[lr.WIDTH, lr.HEIGHT, 3])(source)
    for file in source.glob("videos/*/*/*.mp4"):
        plain = file.rename(file.with_suffix(".plain.mp4"))
        with av.open(str(plain)) as there, av.open(str(file), "w") as turned:
            stream = turned.add_stream_from_template(there.streams.video[0])
            stream.set_display_rotation(90)  # counterclockwise
            for packet in there.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    turned.mux(packet)
    np.testing.assert_array_equal([frame for frame, _, _ in lr.read(source)[0]], np.rot90(upright, axes=(2, 3)))
