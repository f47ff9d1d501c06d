"""What the HTML pages share: their style and script, tables, tiles, heat maps, texts, pictures.

A page is one file that loads nothing. All of it is HTML and SVG; every text that comes from a
dataset or a run passes ``escape``, and the page's own policy lets no script run but the template's.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

WARNINGS = 50  # lines
_MAX_TEXT = 60  # characters of a name
_MAX_WIDTH, _MAX_HEIGHT = 320, 240  # pixels: twice what a page shows, for sharp screens
_FOLDER = Path(__file__).parent


def fill(template: Path, parts: Mapping[str, str]) -> str:
    """The page: an HTML template whose {{name}} are replaced by ``parts``, which are HTML.

    {{style}} and {{script}} are those that all pages share, {{script_digest}} is of the one script
    that may run: the template's ``<script>`` without attributes.
    """
    text = template.read_text(encoding="utf-8")
    for name, file in (("{{style}}", "page.css"), ("{{script}}", "page.js")):
        text = text.replace(name, (_FOLDER / file).read_text(encoding="utf-8"))
    script = text[text.index("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # In one pass: a dataset's text that looks like a placeholder stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: digest if match[1] == "script_digest" else parts[match[1]], text)


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def number(value: float | None, form: str = ",.2f") -> str:
    return "–" if value is None else format(value, form)


def table(headings: Iterable[str], rows: Iterable[str], caption: str, kind: str = "") -> str:
    """A table of ready-made cells; ``headings`` are HTML."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(heading: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{escape(heading)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def bar(share: float | None) -> str:
    return "" if share is None else f'<span class="bar" style="--v:{share:.4f}"></span>'


def heat_map(names: Sequence[str], values: Sequence[Sequence[float | None]], caption: str) -> str:
    """A table of shares, coloured by them; None is a dash."""
    largest = max((v for row in values for v in row if v is not None), default=0) or 1
    rows = []
    for a, row in enumerate(values):
        cells = []
        for b, v in enumerate(row):
            words = escape(f"{names[a]}, {names[b]}: {percent(v, 2)}")
            # The square root lets small shares show.
            heat = 0 if v is None else (v / largest) ** 0.5
            text = "–" if v is None else f"{100 * v:.0f}" if v == 0 or v >= 0.095 else f"{100 * v:.1f}"
            cells.append(f'<td style="--v:{heat:.3f}" class="{"own" * (a == b)}" title="{words}">{text}</td>')
        rows.append(f'<tr><th scope="row">{escape(names[a])}</th>{"".join(cells)}</tr>')
    headings = ("", *(f"<span>{escape(name)}</span>" for name in names))
    return table(headings, rows, f"{caption}, in percent", "heat")


def as_tiles(tiles: Iterable[tuple[str, str, str]]) -> str:
    return "".join(
        f'<div class="tile" style="--letters:{max(len(value), 1)}"><dt>{name}</dt>'
        f"<dd>{value}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )


def warning(heading: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    shown = [*lines[:WARNINGS], *([f"and {len(lines) - WARNINGS:,} more"] if len(lines) > WARNINGS else [])]
    items = "".join(f"<li>{escape(line)}</li>" for line in shown)
    return f'<div class="warning"><p>{heading}</p><ul>{items}</ul></div>'


def clean(text: Any, limit: int = _MAX_TEXT) -> str:
    """One line of printable text: a dataset may come from anybody, and terminals obey control codes."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def without_secrets(source: str) -> str:
    """An address without the password or signature it may carry: pages are passed on."""
    address = urlsplit(source)
    if len(address.scheme) <= 1:
        return clean(source, 300)
    return clean(address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl(), 300)


def error_text(error: object) -> str:
    """What an error says, for a page: the addresses in it are without passwords and signatures, too."""
    text = re.sub(r"(://)[^\s\"/?#]*@", r"\1", str(error))
    # Of a dataset's address, what follows its query may name the episode.
    return clean(re.sub(r"(://[^\s\"?#]*)[?#][^\s\"]*?(?=/episode_\d+:|[\s\"]|$)", r"\1", text), 300)


def to_jpeg(frame: np.ndarray) -> bytes:
    """``frame`` uint8 [3, H, W] RGB as a JPEG file of at most 320x240 pixels."""
    image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    image.thumbnail((_MAX_WIDTH, _MAX_HEIGHT), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
