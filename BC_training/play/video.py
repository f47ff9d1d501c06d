"""Writes videos for people."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from PIL import Image, ImageDraw

from BC_training.common.errors import UserError
from BC_training.common.files import require_writable
from BC_training.play.video_text import drawable, drawable_text, fit, font

_MIN_WIDTH = 512  # pixels: smaller frames are enlarged
_HELD, _RELEASED = (255, 196, 0), (70, 70, 70)

UNKNOWN_FPS = 20.0  # at which a recording without a frame rate is shown
RECORDED, PREDICTED, DISAGREE = _HELD, (86, 180, 233), (235, 50, 50)  # also the colour-blind see the difference


class VideoWriter:
    """Writes an MP4 (H.264) of pictures, or of frames with the held buttons drawn under each.

    Args:
        fps: frames per second.
        action_names: the A buttons, for ``add``.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float, action_names: Sequence[str] = ()):
        try:
            self._container = av.open(str(path.absolute()), "w")  # "a:b.mp4" would mean a protocol "a"
        except OSError as error:
            raise UserError(f"cannot write the video {path}: {error.strerror or error}") from error
        self._stream = self._container.add_stream("libx264", rate=round(fps * 1000), options={"crf": "23"})
        # A fractional rate such as 17.5 needs a time base finer than a frame.
        self._stream.codec_context.framerate = _fraction(fps)
        self._stream.codec_context.time_base = 1 / _fraction(fps)
        self._stream.pix_fmt = "yuv420p"
        self._names = list(action_names)

    def add(self, image: np.ndarray, action: np.ndarray, caption: str = "") -> None:
        """Adds an image uint8 [H, W, 3] RGB, all of one size, under which ``action`` bool [A] is drawn as held."""
        self.add_picture(draw_buttons(image, self._names, action, caption))

    def add_picture(self, picture: np.ndarray) -> None:
        """Adds a picture uint8 [H, W, 3] RGB, H and W even, all of one size."""
        if self._stream.width != picture.shape[1] or self._stream.height != picture.shape[0]:
            self._stream.width, self._stream.height = picture.shape[1], picture.shape[0]
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
            self._container.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._stream.width:  # there was a picture: the encoder has started
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()


def require_video(path: Path) -> None:
    """Raises a UserError, before the work, if no MP4 can be written to ``path`` or it does not end in .mp4."""
    if path.suffix != ".mp4":
        raise UserError(f"cannot write {path}: videos are MP4, call it {path.stem or 'video'}.mp4")
    require_writable(path)


def draw_buttons(image: np.ndarray, names: Sequence[str], action: np.ndarray, caption: str) -> np.ndarray:
    """The image uint8 [H, W, 3], at least 512 pixels wide, above its buttons; those of ``action`` bool [A] are held.

    Returns:
        uint8 [H', W', 3], H' and W' even, as the codec needs them.
    """
    scale = max(1, -(-_MIN_WIDTH // image.shape[1]))
    height, width = image.shape[0] * scale, image.shape[1] * scale
    columns = min(len(names), max(1, width // 120))
    rows = -(-len(names) // columns)
    line, margin = 22, 4
    full = height + rows * line + margin
    canvas = Image.new("RGB", (width + width % 2, full + full % 2))
    canvas.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (0, 0))
    pen, small = ImageDraw.Draw(canvas), font(11)
    for i, name in enumerate(drawable(names)):
        left, right = (column * width // columns for column in (i % columns, i % columns + 1))
        top = height + margin + (i // columns) * line
        pen.rounded_rectangle((left + 2, top, right - 3, top + line - 4), 4, fill=_HELD if action[i] else _RELEASED)
        colour, place = (0, 0, 0) if action[i] else (170, 170, 170), ((left + right) / 2, top + line / 2 - 2)
        pen.text(place, fit(name, small, right - left - 6), fill=colour, font=small, anchor="mm")
    if caption:
        style = {"fill": (255, 255, 255), "font": small, "stroke_width": 2, "stroke_fill": (0, 0, 0)}
        pen.text((6, 4), drawable_text(caption), **style)
    return np.asarray(canvas)


def _fraction(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1000)
