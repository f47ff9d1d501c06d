"""Reads a dataset once from end to end and lists what is wrong with it, by episode and frame."""

import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.files import require_writable, write_whole
from BC_training.common.storage import reader
from BC_training.common.storage.metadata import Fault
from BC_training.common.storage.store import open_store
from BC_training.runtime.workers import run_tasks
from BC_training.validate.findings import (
    STUCK_SECONDS,
    WHOLE_SECONDS,
    Checked,
    Finding,
    Report,
    in_order,
    print_report,
    spans_of,
)
from BC_training.validate.metadata import check_metadata, check_names
from BC_training.validate.oddities import find_oddities, gather
from BC_training.validate.repair import Plan, free_folder, names_of, repair
from BC_training.validate.scan import TASK_FRAMES, Scanned, Scanner, Task

_FEW_FRAMES = 4096  # one process has read these before a second one has started


def validate(
    path: str | Path,
    console: Console,
    *,
    workers: int | None = None,
    json_file: Path | None = None,
    repair_to: str | Path | None = None,
) -> list[Finding]:
    """Prints the findings, sorted by severity and episode, and returns them.

    Args:
        path: the dataset's folder, or its s3://, gs:// or http(s):// address; it is only read.
        workers: processes; None for as many as pay off.
        json_file: where to write the findings as JSON.
        repair_to: where to write a new dataset of what is good; must not exist.

    Raises:
        UserError: not a dataset, it has no episodes or cannot be reached, or a result cannot be
            written.
    """
    if json_file is not None:
        require_writable(json_file)
    out = None if repair_to is None else free_folder(repair_to)
    store = open_store(path)
    root = reader.read_attributes(store)
    names = store.episode_names()
    if not names:
        raise UserError(f"{path} has no episodes (folders episode_0, episode_1, ...): record some into it")
    started = time.monotonic()
    episodes = dict(zip(names, reader.read_episodes(store, names), strict=True))
    findings, root = check_names(root, episodes, store.address)
    misnamed = next((f.message for f in findings if f.kind == "names"), None)
    more, checked = check_metadata(root, episodes, store)
    findings += more
    scanned = _scan(checked, root, workers, console)
    faults = {c.info.name: _faults(tasks) for c, tasks in scanned}
    findings += [finding for name, rows in faults.items() for finding in _group(name, rows)]
    seen = [gather(c, tasks) for c, tasks in scanned]
    findings = in_order(findings + find_oddities(seen, names_of(root)), names)
    report = Report(str(path), len(names), sum(episode.frames for episode in seen), findings)
    print_report(report, time.monotonic() - started, console)
    document = report.to_dict()
    if out is not None:
        if misnamed:
            raise UserError(f"{path}: {misnamed}; then --repair it")
        plans = [_plan(name, findings, faults.get(name), checked) for name in names]
        document["repair"] = repair(str(path), root, plans, out, workers or _cores(), console)
    if json_file is not None:
        write_whole(json_file, json.dumps(document, indent=2) + "\n")
    return findings


def _scan(
    checked: list[Checked], root: dict[str, Any], workers: int | None, console: Console
) -> list[tuple[Checked, list[Scanned]]]:
    tasks: list[Task] = []
    owners: list[int] = []
    for i, episode in enumerate(checked):
        # Frames beyond the shortest array belong to nothing.
        readable = "frames" in episode.arrays and all(episode.info.arrays["frames"].shape)
        length = episode.length if readable else 0
        stuck = max(2, int(min(STUCK_SECONDS, WHOLE_SECONDS) * episode.rate))
        for start in range(0, max(length, 1), TASK_FRAMES):
            stop = min(start + TASK_FRAMES, length)
            tasks.append(Task(episode.info, episode.arrays, start, stop, episode.length, stuck))
            owners.append(i)
    # A process decodes in as many threads as there are cores, so on two cores a second process gains nothing.
    few = sum(task.stop - task.start for task in tasks) <= _FEW_FRAMES
    workers = workers or (1 if few else max(1, _cores() // 2))
    unit = ("frames", lambda scanned: len(scanned.same))
    results = run_tasks(Scanner, (root,), tasks, workers, console, title="reading", unit=unit) if tasks else []
    gathered: list[tuple[Checked, list[Scanned]]] = [(episode, []) for episode in checked]
    for owner, result in zip(owners, results, strict=True):
        gathered[owner][1].append(result)
    return gathered


def _cores() -> int:
    return os.cpu_count() or 1


def _faults(tasks: list[Scanned]) -> dict[tuple[str, int], Fault]:
    """Why rows cannot be used, by array and row."""
    faults = {("frames", frame): fault for task in tasks for frame, fault in task.faults.items()}
    labels = next(task.labels for task in tasks if task.labels is not None)
    return faults | labels.faults


def _group(name: str, faults: dict[tuple[str, int], Fault]) -> list[Finding]:
    """One finding for each array and kind of fault."""
    groups: dict[tuple[str, str], list[int]] = {}
    for (array, row), fault in faults.items():
        groups.setdefault((array, fault.kind), []).append(row)
    findings = []
    for (array, kind), rows in groups.items():
        reason = faults[array, min(rows)].message
        message = {
            "missing": f"chunks of '{array}' are missing",
            "damaged": f"chunks of '{array}' cannot be decoded ({reason})",
        }.get(kind, reason)
        findings.append(Finding(kind, name, message, spans_of(rows)))
    return findings


def _plan(
    name: str, findings: list[Finding], faults: dict[tuple[str, int], Fault] | None, checked: list[Checked]
) -> Plan:
    """What to keep of an episode: all frames before its first fault."""
    reasons = [f.message for f in findings if f.episode == name and f.severity == "error"]
    episode = next((c for c in checked if c.info.name == name), None)
    if episode is None or faults is None or not episode.sound:
        return Plan(name, None, 0, reasons)
    return Plan(name, episode.info, min([episode.length, *(row for _, row in faults)]), reasons)
