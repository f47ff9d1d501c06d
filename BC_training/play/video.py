"""Writes videos for people."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageDraw

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.files import require_writable
from BC_training.common.storage import video_writer
from BC_training.play.video_text import drawable, drawable_text, fit, font

Colour = tuple[int, int, int]

_CRF = 23
_MIN_WIDTH = 512  # pixels: smaller frames are enlarged
_HELD, _RELEASED = (255, 196, 0), (70, 70, 70)
_MARGIN = 4
_FINE = 3  # dials are drawn so many times finer, and averaged

UNKNOWN_FPS = 20.0  # at which a recording without a frame rate is shown
RECORDED, PREDICTED, DISAGREE = _HELD, (86, 180, 233), (235, 50, 50)  # also the colour-blind see the difference


class VideoWriter:
    """Writes an MP4 (H.264) of pictures, or of frames with the held buttons drawn under each.

    Args:
        fps: frames per second.
        buttons, axes: their names, for ``add``.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float, buttons: Sequence[str] = (), axes: Sequence[str] = ()):
        self._frames = video_writer.VideoWriter(path, fps, crf=_CRF, preset="medium")
        self._hud = Hud(buttons, axes)

    def add(self, image: np.ndarray, action: Action, caption: str = "") -> None:
        """Adds an image uint8 [H, W, 3] RGB, all of one size, under which ``action`` is drawn."""
        self.add_picture(self._hud.draw(image, action, caption))

    def add_picture(self, picture: np.ndarray) -> None:
        """Adds a picture uint8 [H, W, 3] RGB, H and W even, all of one size."""
        self._frames.append(picture.transpose(2, 0, 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._frames.close()


def require_video(path: Path) -> None:
    """Raises a UserError, before the work, if no MP4 can be written to ``path`` or it does not end in .mp4."""
    if path.suffix != ".mp4":
        raise UserError(f"cannot write {path}: videos are MP4, call it {path.stem or 'video'}.mp4")
    require_writable(path)


class Hud:
    """Draws actions under pictures: buttons, of which the held ones are lit, and a dial for each axis.

    A dial's needle is upright at 0 and at an end at 1, or at the largest amount drawn so far where that is more.
    """

    def __init__(self, buttons: Sequence[str], axes: Sequence[str]):
        self._buttons, self._axes = drawable(buttons), drawable(axes)
        self._largest = np.ones(len(axes))

    def draw(self, image: np.ndarray, action: Action, caption: str) -> np.ndarray:
        """The image uint8 [H, W, 3], at least 512 pixels wide, above the action.

        Returns:
            uint8 [H', W', 3], H' and W' even, as the codec needs them.
        """
        scale = max(1, -(-_MIN_WIDTH // image.shape[1]))
        height, width = image.shape[0] * scale, image.shape[1] * scale
        below = height + _MARGIN
        pads = list(_cells(len(self._buttons), width, 120, below, 22))
        dials = list(_cells(len(self._axes), width, 160, pads[-1][3] if pads else below, 44))
        full = int((dials or pads)[-1][3])
        canvas = Image.new("RGB", (width + width % 2, full + full % 2))
        canvas.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (0, 0))
        pen, small = ImageDraw.Draw(canvas), font(11)
        for name, held, (left, top, right, bottom) in zip(self._buttons, action.buttons, pads, strict=True):
            pen.rounded_rectangle((left + 2, top, right - 3, bottom - 4), 4, fill=_HELD if held else _RELEASED)
            colour, place = (0, 0, 0) if held else (170, 170, 170), ((left + right) / 2, (top + bottom) / 2 - 2)
            pen.text(place, fit(name, small, right - left - 6), fill=colour, font=small, anchor="mm")
        self._largest = np.maximum(self._largest, np.abs(action.axes))
        for i, (name, (left, top, right, bottom)) in enumerate(zip(self._axes, dials, strict=True)):
            drawn = dial(30, {_HELD: float(action.axes[i] / self._largest[i])})
            canvas.paste(drawn, (int(left) + 6, int(bottom) - 4 - drawn.height))
            style = {"fill": (170, 170, 170), "font": small}
            pen.text((left + 74, top + 8), fit(name, small, right - left - 78), **style)
            pen.text((left + 74, top + 23), f"{action.axes[i]:.3g}", **style)
        if caption:
            style = {"fill": (255, 255, 255), "font": small, "stroke_width": 2, "stroke_fill": (0, 0, 0)}
            pen.text((6, 4), drawable_text(caption), **style)
        return np.asarray(canvas)


def dial(radius: int, needles: Mapping[Colour, float], back: Colour = (0, 0, 0)) -> Image.Image:
    """A half circle with a needle for each colour, from -1 at its left end to 1 at its right end.

    The picture is 2 ``radius`` wide and ``radius`` + 4 pixels high.
    """
    fine = Image.new("RGB", (2 * radius * _FINE, (radius + 4) * _FINE), back)
    pen, x, y, thick = ImageDraw.Draw(fine), radius * _FINE, radius * _FINE, 3 * _FINE
    rim = (0, 0, 2 * x, 2 * y)
    pen.arc(rim, 180, 360, fill=_RELEASED, width=thick)
    pen.line((x, 0, x, 2 * thick), fill=_RELEASED, width=2 * _FINE)  # marks 0
    for colour, turn in needles.items():
        angle = np.pi / 2 * np.clip(turn, -1, 1)
        end = (x + (x - thick) * np.sin(angle), y - (y - thick) * np.cos(angle))
        pen.line((x, y, *end), fill=colour, width=thick)
        pen.arc(rim, *sorted((270, 270 + np.degrees(angle))), fill=colour, width=thick)
    pen.ellipse((x - thick, y - thick, x + thick, y + thick), fill=_RELEASED)
    return fine.reduce(_FINE)


def _cells(count: int, width: int, least: int, top: float, height: int) -> Iterator[tuple[float, float, float, float]]:
    """The (left, top, right, bottom) of cells in rows, each at least ``least`` wide where that fits."""
    columns = min(count, max(1, width // least))
    for i in range(count):
        left, right = (column * width // columns for column in (i % columns, i % columns + 1))
        yield left, top + i // columns * height, right, top + (i // columns + 1) * height
