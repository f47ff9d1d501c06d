"""The file of a checkpoint that says how its probabilities become buttons, and that may change afterwards.

    <step>/decoding.json    decoding, tuned_on, and the SHA-256 of both

The file is replaced as a whole: if its writer is killed, it is as before or as after.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.files import sync, write_whole
from BC_training.training.run_folder import lock_run

_NAME, _CHECKSUM = "decoding.json", "sha256"


@dataclass(frozen=True)
class TunedOn:
    """What thresholds were tuned on: named episodes of the dataset with this fingerprint."""

    episodes: tuple[str, ...]
    fingerprint: str


def write_decoding(step: Path, decoding: Decoding, tuned_on: TunedOn | None = None) -> None:
    """Writes the file to the disk, whole or not at all; raises a UserError if the disk is full."""
    content = {"decoding": decoding.to_dict(), "tuned_on": None if tuned_on is None else asdict(tuned_on)}
    write_whole(step / _NAME, json.dumps(content | {_CHECKSUM: _checksum(content)}, indent=1) + "\n")
    sync(step / _NAME)
    sync(step)


def read_decoding(step: Path) -> tuple[Decoding, TunedOn | None]:
    """Reads the file; raises a UserError if it is missing or damaged."""
    try:
        content = json.loads((step / _NAME).read_text(encoding="utf-8"))
        if content.pop(_CHECKSUM) != _checksum(content):
            raise ValueError("it has changed")
        tuned = content["tuned_on"]
        tuned_on = None if tuned is None else TunedOn(tuple(tuned["episodes"]), tuned["fingerprint"])
        return Decoding.from_dict(content["decoding"]), tuned_on
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{step} is a damaged checkpoint ({_NAME}: {error}): use another step") from error


@contextlib.contextmanager
def changing(step: Path) -> Iterator[None]:
    """Keeps trainings out of a checkpoint's run, so that its decoding can be changed.

    Raises:
        UserError: a training is running there, or the checkpoint may not be written.
    """
    step = step.resolve()
    with contextlib.ExitStack() as stack:
        if step.parent.name in ("best", "last"):  # else it is a copy, outside a run
            stack.enter_context(lock_run(step.parent.parent))
        if not os.access(step, os.W_OK):
            raise UserError(f"cannot write to {step}: change its permissions, or copy the checkpoint and use that")
        yield


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
