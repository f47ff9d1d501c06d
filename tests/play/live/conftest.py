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
