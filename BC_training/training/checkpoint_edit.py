"""Changes what a checkpoint says of itself; its arrays stay as they are."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error
from BC_training.training.checkpoint import CHECKSUMS, FORMAT_VERSION, NEXT_META, verify
from BC_training.training.checkpoint_writer import lock_run

_PARTIAL = ".partial"


@contextlib.contextmanager
def editing(step: Path) -> Iterator[None]:
    """Keeps trainings out of the run that a checkpoint is of, and finds out whether it can be changed.

    Raises:
        UserError: a training is running there, or it is damaged, too old, or may not be written.
    """
    step = step.resolve()
    with contextlib.ExitStack() as stack:
        if step.parent.name in ("best", "last"):  # else it is a copy, outside a run
            stack.enter_context(lock_run(step.parent.parent))
        verify(step)
        if not (step / CHECKSUMS).is_file() or "meta" not in json.loads((step / CHECKSUMS).read_text()):
            raise UserError(f"{step} is of an earlier version, without checksums: it cannot be changed, train again")
        for folder in (step, step / "meta"):
            if not os.access(folder, os.W_OK):
                raise UserError(
                    f"cannot write to {folder}: change its permissions, or copy the checkpoint and use that"
                )
        yield


def update_meta(step: Path, changes: dict[str, Any]) -> None:
    """Changes keys of a checkpoint's meta. Killed at any moment, it is as before or as after, and passes ``verify``.

    Metadata and checksums are two files, of which no file system replaces both at once. So the checksums come
    first, with those of the metadata before and after; then the metadata, then the checksums alone of what is there.

    Args:
        step: within ``editing``.
        changes: JSON types.

    Raises:
        UserError: the disk is full.
    """
    metadata, checksums = step / "meta" / "metadata", step / CHECKSUMS
    meta = json.loads(metadata.read_text()) | changes | {"format_version": FORMAT_VERSION}
    text = json.dumps(meta)
    sums = json.loads(checksums.read_text())
    sums.pop(NEXT_META, None)  # of one that was killed
    before = {name: _sha256(file) for name in sums["meta"] if (file := step / "meta" / name).is_file()}
    after = before | {"metadata": hashlib.sha256(text.encode()).hexdigest()}
    try:
        with disk_full_is_user_error(step):
            _replace(checksums, json.dumps(sums | {"meta": before, NEXT_META: after}, indent=1), step)
            _replace(metadata, text, step)
            _replace(checksums, json.dumps(sums | {"meta": after}, indent=1), step)
    finally:
        (step / _PARTIAL).unlink(missing_ok=True)


def _replace(file: Path, text: str, step: Path) -> None:
    """Writes a file whole or not at all, on the disk before this returns.

    It is written beside the checkpoint's folders: within them it would be a file without a checksum.
    """
    partial = step / _PARTIAL
    with open(partial, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
