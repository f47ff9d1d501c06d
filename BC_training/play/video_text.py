"""Text in pictures: characters that the font can draw, and substitutes for others."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont


@lru_cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """The font at this size in pixels."""
    return ImageFont.truetype(_font_file(), size)


def fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """``text`` without its end where it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def drawable(names: Sequence[str]) -> list[str]:
    """``names``, in which a number from 1 replaces each name that the font cannot draw."""
    return [name if _can_draw(name) else str(number) for number, name in enumerate(names, 1)]


def drawable_text(text: str) -> str:
    """``text`` with a question mark for each character that the font cannot draw."""
    return "".join(character if _can_draw(character) else "?" for character in text)


def substitutions(names: Sequence[str], what: str) -> str | None:
    """A line that lists the numbers and the names that they replace; None where all names are drawn."""
    pairs = [f"{shown} for {name}" for shown, name in zip(drawable(names), names, strict=True) if shown != name]
    return f"{what} with characters that the font lacks are drawn as numbers: {', '.join(pairs)}" if pairs else None


def _can_draw(text: str) -> bool:
    return text.isprintable() and all(ord(character) in _glyphs() for character in text)


@lru_cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_file())).get_charmap())


def _font_file() -> Path:
    """DejaVu Sans: Latin, Cyrillic, Greek and more, but no Chinese, Japanese, Korean or emoji."""
    import matplotlib  # here: most processes that play draw nothing

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
