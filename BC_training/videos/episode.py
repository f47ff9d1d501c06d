"""The video of a recorded episode: recorded and predicted actions over time, and where they disagree."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from BC_training.common.files import disk_full_is_user_error
from BC_training.evaluation.predict import EpisodePredictions, frames_of, open_episode, predict_episode
from BC_training.play.say import say
from BC_training.play.video import (
    DISAGREE,
    PREDICTED,
    RECORDED,
    UNKNOWN_FPS,
    Colour,
    VideoWriter,
    dial,
    require_video,
)
from BC_training.play.video_text import drawable, fit, font, substitutions
from BC_training.videos.rerun_file import require_rerun, write_episode

_WIDTH = 640  # pixels, at least: smaller frames are enlarged
_WINDOW = 8.0  # seconds that a strip shows; then it turns to the next
_ROW, _FOOT, _BORDER = 32, 26, 6
_AXIS_ROW, _RADIUS = 44, 23  # the row of an axis, and its dial
_NAME, _BOX = 128, 18  # the columns left of the strip
_LEFT = _NAME + 2 * (_BOX + 6) + 52  # where it begins
_FINE = 3  # strips are drawn so many times finer, and averaged

_BACK, _TRACK, _OFF, _TEXT, _FAINT = (16, 16, 18), (34, 34, 38), (70, 70, 70), (235, 235, 235), (140, 140, 145)


def film_episode(
    checkpoint: str | Path,
    out: Path,
    console: Console,
    *,
    data: str | Path | None = None,
    episode: int = 0,
    rerun: Path | None = None,
) -> EpisodePredictions:
    """Writes the video of a recorded episode and what a policy predicts in it.

    Args:
        data: a dataset; None for the one the policy was trained on.
        episode: the number in the name of the episode's folder.
        rerun: where to write a Rerun recording of the same.

    Raises:
        UserError: that of ``predict.open_episode``, or for a file that cannot be written (before any work).
    """
    require_video(out)
    if rerun is not None:
        require_rerun(rerun)
    policy, dataset, position = open_episode(checkpoint, data, episode)
    shown = predict_episode(policy, dataset, position, console)
    for names, what in ((shown.action_names, "actions"), (shown.axis_names, "axes")):
        if note := substitutions(names, what):
            say(console, note, style="yellow")
    fps = shown.fps or UNKNOWN_FPS
    painter = EpisodePainter(shown, fps)
    frames = track(frames_of(dataset, position), "drawing", len(shown), console=console, transient=True)
    with disk_full_is_user_error(out), VideoWriter(out, fps) as writer:
        for t, frame in enumerate(frames):
            writer.add_picture(painter.paint(frame, t))
    if rerun is not None:
        with disk_full_is_user_error(rerun):
            write_episode(rerun, shown, fps, frames_of(dataset, position))
    wrong = int((shown.disagree.any(axis=1) | shown.axes_disagree.any(axis=1)).sum())
    written = f"{out} and {rerun}" if rerun is not None else f"{out}"
    line = f"{shown.episode} of {dataset.path}: {len(shown):,} frames, {wrong:,} disagree; written to {written}"
    say(console, line, highlight=False)
    return shown


class EpisodePainter:
    """Draws the pictures of an episode, uint8 [H', W', 3] RGB of one size, H' and W' even.

    The frame is on top, framed red where a prediction differs from the recording. A row for each button has its name,
    whether it was recorded (yellow) and predicted (blue) as held, its probability, and some seconds of that as a strip:
    the threshold dashed, recorded presses as yellow bands, frames that disagree red at the foot, the present one white.
    A row for each axis has a dial with both needles, the predicted amount, and a strip of both amounts, 0 dashed; a
    frame disagrees where the amounts are more than one bin apart. Dials and strips end at the largest amount.
    """

    def __init__(self, predictions: EpisodePredictions, fps: float):
        self._shown, self._fps = predictions, fps
        self._span = max(2, round(_WINDOW * fps))
        self._page, self._strips = -1, np.empty(0)
        self._font, self._small = font(12), font(10)
        self._names, self._axes = drawable(predictions.action_names), drawable(predictions.axis_names)
        self._disagree, self._apart = predictions.disagree, predictions.axes_disagree
        amounts = np.abs(np.concatenate([predictions.true_axes, predictions.predicted_axes]))
        self._largest = np.where(amounts.any(axis=0), amounts.max(axis=0), 1)
        heights = [_ROW] * len(self._names) + [_AXIS_ROW] * len(self._axes)
        self._tops = np.cumsum([0, *heights]).tolist()  # of the rows below the frame, and their end

    def paint(self, frame: np.ndarray, t: int) -> np.ndarray:
        """The picture of frame ``t``, uint8 [3, H, W] as recorded."""
        scale = max(1, -(-_WIDTH // frame.shape[2]))
        height, width = frame.shape[1] * scale, frame.shape[2] * scale
        names, end = self._names + self._axes, height + self._tops[-1]
        canvas = Image.new("RGB", (_even(width), _even(end + _FOOT)), _BACK)
        picture = Image.fromarray(np.moveaxis(frame, 0, -1)).resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(picture, (0, 0))
        pen = ImageDraw.Draw(canvas)
        wrong = np.concatenate([self._disagree[t], self._apart[t]])
        self._label(pen, (12, 10), f"{self._shown.episode}   frame {t} of {len(self._shown)}   {t / self._fps:.1f} s")
        if wrong.any():
            pen.rectangle((0, 0, width - 1, height - 1), outline=DISAGREE, width=_BORDER)
            named = ", ".join(name for name, differs in zip(names, wrong, strict=True) if differs)
            self._label(pen, (width - 12, 10), f"disagrees: {named}", "ra")
        page = t // self._span
        if page != self._page:
            self._page, self._strips = page, self._draw_strips(page * self._span, width - _LEFT)
        canvas.paste(Image.fromarray(self._strips), (_LEFT, height))
        for i, name in enumerate(names):
            top, bottom = height + self._tops[i], height + self._tops[i + 1]
            if wrong[i]:
                pen.rectangle((0, top + 2, 4, bottom - 3), fill=DISAGREE)
            middle = (top + bottom) / 2
            pen.text((12, middle), fit(name, self._font, _NAME - 18), fill=_TEXT, font=self._font, anchor="lm")
            if i < len(self._names):
                text = self._draw_boxes(pen, middle, i, t)
            else:
                text = self._draw_dial(canvas, top, i - len(self._names), t)
            pen.text((_LEFT - 10, middle), text, fill=PREDICTED, font=self._font, anchor="rm")
        x = _LEFT + (t % self._span + 0.5) * (width - _LEFT) / self._span
        pen.line((x, height, x, end), fill=(255, 255, 255), width=2)
        self._draw_foot(pen, end, width)
        return np.asarray(canvas)

    def _draw_boxes(self, pen: ImageDraw.ImageDraw, middle: float, i: int, t: int) -> str:
        """Draws whether a button was recorded and predicted, and returns its probability."""
        shown = self._shown
        recorded = bool(shown.true[t, i]) if t < len(shown.true) else None
        for column, (held, colour) in enumerate(((recorded, RECORDED), (bool(shown.predicted[t, i]), PREDICTED))):
            left = _NAME + column * (_BOX + 6)
            box = (left, middle - _BOX / 2, left + _BOX, middle + _BOX / 2)
            pen.rounded_rectangle(box, 4, fill=colour if held else None, outline=colour if held else _OFF, width=2)
        return f"{shown.probability[t, i]:.2f}"

    def _draw_dial(self, canvas: Image.Image, top: int, i: int, t: int) -> str:
        """Draws an axis's recorded and predicted amounts, and returns the latter."""
        shown, needles = self._shown, {}
        if t < len(shown.true_axes):
            needles[RECORDED] = float(shown.true_axes[t, i] / self._largest[i])
        needles[PREDICTED] = float(shown.predicted_axes[t, i] / self._largest[i])
        canvas.paste(dial(_RADIUS, needles, _BACK), (_NAME - 2, top + (_AXIS_ROW - _RADIUS) // 2 - 4))
        return f"{shown.predicted_axes[t, i]:.3g}"

    def _draw_foot(self, pen: ImageDraw.ImageDraw, top: int, width: int) -> None:
        """The times at both ends of the strip, and what the colours mean."""
        middle, start = top + _FOOT / 2, self._page * self._span / self._fps
        x = 12
        for text, colour in (("recorded", RECORDED), ("predicted", PREDICTED), ("disagree", DISAGREE)):
            pen.rectangle((x, middle - 5, x + 9, middle + 4), fill=colour)
            pen.text((x + 14, middle), text, fill=_TEXT, font=self._small, anchor="lm")
            x += 72
        pen.text((_LEFT, middle), f"{start:.1f} s", fill=_FAINT, font=self._small, anchor="lm")
        end = f"{start + self._span / self._fps:.1f} s"
        pen.text((width - 4, middle), end, fill=_FAINT, font=self._small, anchor="rm")

    def _draw_strips(self, start: int, width: int) -> np.ndarray:
        """All strips from frame ``start`` on, uint8 [rows, width, 3]."""
        shown, end = self._shown, min(start + self._span, len(self._shown))
        buttons = len(self._names)
        fine = Image.new("RGB", (width * _FINE, self._tops[-1] * _FINE), _BACK)
        pen, step = ImageDraw.Draw(fine), width * _FINE / self._span
        for i in range(len(self._tops) - 1):
            top, bottom = (self._tops[i] + 3) * _FINE, (self._tops[i + 1] - 4) * _FINE
            foot = bottom - 4 * _FINE  # under the lowest value, where disagreement is marked
            pen.rectangle((0, top, width * _FINE, bottom), fill=_TRACK)

            def height(share: float, top: int = top, foot: int = foot) -> float:
                return foot - share * (foot - top - _FINE)

            if i < buttons:
                for first, last in _spells(shown.true[start:end, i]):
                    pen.rectangle((first * step, top, last * step, foot), fill=_dimmed(RECORDED))
                level, apart = float(shown.thresholds[i]), self._disagree[start:end, i]
                lines = {PREDICTED: shown.probability[start:end, i]}
            else:
                axis, level = i - buttons, 0.5
                amounts = {RECORDED: shown.true_axes, PREDICTED: shown.predicted_axes}
                lines = {c: 0.5 + 0.5 * x[start:end, axis] / self._largest[axis] for c, x in amounts.items()}
                apart = self._apart[start:end, axis]
            for x in range(0, width * _FINE, 8 * _FINE):
                pen.line((x, height(level), x + 4 * _FINE, height(level)), fill=_FAINT, width=_FINE)
            for colour, values in lines.items():
                points = [((t + 0.5) * step, height(float(value))) for t, value in enumerate(values)]
                pen.line(points, fill=colour, width=2 * _FINE, joint="curve")
            for first, last in _spells(apart):
                pen.rectangle((first * step, foot + _FINE, last * step, bottom), fill=DISAGREE)
        return np.asarray(fine.reduce(_FINE))

    def _label(self, pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, anchor: str = "la") -> None:
        white, black = (255, 255, 255), (0, 0, 0)
        pen.text(place, text, fill=white, font=self._font, anchor=anchor, stroke_width=2, stroke_fill=black)


def _spells(held: np.ndarray) -> Iterable[tuple[int, int]]:
    """Where ``held`` bool [N] is true, as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]]).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _dimmed(colour: Colour) -> Colour:
    red, green, blue = ((2 * c + 3 * t) // 5 for c, t in zip(colour, _TRACK, strict=True))
    return red, green, blue


def _even(length: int) -> int:
    return length + length % 2
