"""Templates, script and style, texts and pictures of all HTML pages.

A page is one file that loads nothing. Jinja2 escapes every text of a dataset or a run, and the page's own policy lets
no script run but the template's.
"""

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from BC_training.common import metrics
from BC_training.play.intervals import interval_text

WARNINGS = 50  # lines
_MAX_TEXT = 60  # characters of a name
_MAX_WIDTH, _MAX_HEIGHT = 320, 240  # pixels: twice what a page shows, for sharp screens
_FOLDER = Path(__file__).parent


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def number(value: float | None, form: str = ",.2f") -> str:
    return "–" if value is None else format(value, form)


def _data_address(contents: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(contents).decode()}"


TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters |= {
    "percent": percent,
    "number": number,
    "three": metrics.number,
    "returns": metrics.return_text,
    "interval": lambda ends: interval_text(ends, metrics.return_text),
    "data_address": _data_address,
}
TEMPLATES.globals |= {"WARNINGS": WARNINGS}


def fill(template: str, *scripts: str, **parts: Any) -> str:
    """A page that extends layout.html; ``scripts`` run before the script of all pages."""
    texts = [(_FOLDER / name).read_text(encoding="utf-8") for name in (*scripts, "page.js")]
    script = "\n".join(['"use strict";', *texts])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    page = TEMPLATES.get_template(template)
    return page.render(script=Markup(script), script_digest=digest, style=Markup(style), **parts)


def clean(text: Any, limit: int = _MAX_TEXT) -> str:
    """One line of printable text: anybody may have made a dataset, and terminals obey control codes."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def without_secrets(source: str) -> str:
    """An address without the password or signature it may carry: pages are passed on."""
    address = urlsplit(source)
    if len(address.scheme) <= 1:
        return clean(source, 300)
    return clean(address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl(), 300)


def error_text(error: object) -> str:
    """An error's message, its addresses without passwords and signatures."""
    text = re.sub(r"(://)[^\s\"/?#]*@", r"\1", str(error))
    # After the query of a dataset's address, the name of an episode may follow.
    return clean(re.sub(r"(://[^\s\"?#]*)[?#][^\s\"]*?(?=/episode_\d+:|[\s\"]|$)", r"\1", text), 300)


def to_jpeg(frame: np.ndarray) -> bytes:
    """``frame`` uint8 [3, H, W] RGB as a JPEG file of at most 320x240 pixels."""
    image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    image.thumbnail((_MAX_WIDTH, _MAX_HEIGHT), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
