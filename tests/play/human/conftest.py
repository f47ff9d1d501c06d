"""A person sits before a screen in all tests of this folder."""

from collections.abc import Iterator

import pytest
from scripted_person import Room, ScriptedPerson, register_games, screen

register_games()


@pytest.fixture(scope="module", autouse=True)
def person() -> Iterator[ScriptedPerson]:
    with screen() as name:
        Room.person = ScriptedPerson(name)
        yield Room.person
        Room.person.close()
