from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    from scripted_person import screen  # here: tests beside need no X11

    with screen() as name:
        yield name


@pytest.fixture
def person(display) -> Iterator[Any]:
    from scripted_person import ScriptedPerson

    with closing(ScriptedPerson(display)) as person:
        yield person


@pytest.fixture
def window(person) -> Iterator[Any]:
    """A black one, with the focus and the pointer."""
    from live_recording import TITLE
    from toy_windows import ToyWindow

    with closing(ToyWindow(TITLE, place=(0, 0), size=(400, 300), colour=0)) as window:
        window.focus()
        person.move(-800, -600)
        person.move(100, 100)
        yield window
