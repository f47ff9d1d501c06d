"""HTML pages as a browser finds them."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def file_in(element: dict[str, str | None]) -> bytes:
    """The file that an element's address holds."""
    return base64.b64decode((element["src"] or "").split(",")[1])


def image_in(element: dict[str, str | None]) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(file_in(element))))


def require_self_contained(text: str) -> None:
    """Asserts that a page loads nothing, runs no script but its own, leads nowhere and describes its pictures."""
    page = Page(text)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|\bimport\b", text)
    assert not page.of("link")
    named = [item for _, attributes in page.tags for item in attributes.items()]
    assert not [name for name, _ in named if name.startswith("on")]
    addresses = [address or "" for name, address in named if name in ("src", "href", "srcset")]
    assert addresses
    assert all(address.startswith(("data:image/jpeg;base64,", "data:video/mp4;base64,", "#")) for address in addresses)
    identifiers = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {(link["href"] or "")[1:] for link in page.of("a")} <= identifiers
    assert all(image.get("alt") for image in page.of("img"))
    assert all(drawing.get("aria-label") for tag in ("canvas", "svg") for drawing in page.of(tag))


def browse(file: Path, folder: Path) -> Page:
    """The page as Chromium has it after its scripts, which load every picture and report no error.

    Args:
        folder: where the browser may keep its profile.
    """
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
        *("--virtual-time-budget=3000", "--dump-dom", f"--user-data-dir={folder / 'profile'}"),
    ]
    done = subprocess.run([str(CHROMIUM), *options, file.as_uri()], capture_output=True, text=True, timeout=60)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    shown, images = Page(done.stdout), len(Page(file.read_text(encoding="utf-8")).of("img"))
    (html,) = shown.of("html")
    assert images >= 1
    assert (html.get("data-ready"), html.get("data-images")) == ("true", f"{images}/{images}")
    return shown
