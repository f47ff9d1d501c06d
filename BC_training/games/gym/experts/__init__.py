"""The scripted experts, by the id of the environment they play."""

from collections.abc import Callable
from typing import Any

EXPERTS: dict[str, Callable[[Any], Any]] = {}
