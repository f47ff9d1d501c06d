"""Reads a dataset once from end to end and lists what is wrong with it, by episode and frame."""

import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.files import require_writable
from BC_training.common.storage import zarr_groups
from BC_training.common.storage.store import open_store
from BC_training.runtime.workers import run_tasks
from BC_training.validate.findings import Checked, Finding, counts, in_order, print_findings, spans_of
from BC_training.validate.metadata import check_metadata, check_names
from BC_training.validate.oddities import STUCK_SECONDS, WHOLE_SECONDS, Seen, find_oddities, gather
from BC_training.validate.repair import Plan, free_folder, repair
from BC_training.validate.scan import TASK_FRAMES, Fault, Scanned, Scanner, Task

_FEW_FRAMES = 4096  # read before a second process has started


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
        path: the dataset's folder, or its s3://, gs:// or http(s):// address; only read.
        workers: processes; None for as many as pay off.
        json_file: where to write the findings, too.
        repair_to: where to write a dataset of what is good; must not exist.

    Raises:
        UserError: not a dataset, it has no episodes or cannot be reached, or a result cannot be
            written.
    """
    if json_file is not None:
        require_writable(json_file)
    out = None if repair_to is None else free_folder(repair_to)
    store = open_store(path)
    root = zarr_groups.read_attributes(store)
    names = store.episode_names()
    if not names:
        raise UserError(f"{path} has no episodes (folders episode_0, episode_1, ...): record some into it")
    started = time.monotonic()
    found = dict(zip(names, zarr_groups.read_episodes(store, names), strict=True))
    findings, root = check_names(root, found, store.address)
    misnamed = next((f.message for f in findings if f.kind == "names"), None)
    more, checked = check_metadata(root, found, store)
    findings += more
    scanned = _scan(checked, root, workers, console)
    faults = {c.info.name: _faults(tasks) for c, tasks in scanned}
    findings += [finding for name, rows in faults.items() for finding in _group(name, rows)]
    seen = [gather(c, tasks) for c, tasks in scanned]
    findings = in_order(findings + find_oddities(seen, root["keys"], root.get("attributes") or []), names)
    report = _report(path, names, seen, findings)
    _print(report, findings, time.monotonic() - started, console)
    if out is not None:
        if misnamed:
            raise UserError(f"{path}: {misnamed}; then --repair it")
        plans = [_plan(name, findings, faults.get(name), checked) for name in names]
        report["repair"] = repair(str(path), root, plans, out, workers or _cores(), console)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    return findings


def _scan(
    checked: list[Checked], root: dict[str, Any], workers: int | None, console: Console
) -> list[tuple[Checked, list[Scanned]]]:
    tasks: list[Task] = []
    owners: list[int] = []
    for i, episode in enumerate(checked):
        length = _frames_to_read(episode)
        stuck = max(2, int(min(STUCK_SECONDS, WHOLE_SECONDS) * episode.rate))
        for start in range(0, max(length, 1), TASK_FRAMES):
            stop = min(start + TASK_FRAMES, length)
            tasks.append(Task(episode.info, episode.arrays, start, stop, episode.length, stuck))
            owners.append(i)
    # A process decodes in as many threads as there are cores, so on two cores a second one gains nothing.
    few = sum(task.stop - task.start for task in tasks) <= _FEW_FRAMES
    results = (
        run_tasks(
            Scanner,
            (root,),
            tasks,
            workers or (1 if few else max(1, _cores() // 2)),
            console,
            title="reading",
            unit=("frames", lambda scanned: len(scanned.same)),
        )
        if tasks
        else []
    )
    gathered: list[tuple[Checked, list[Scanned]]] = [(episode, []) for episode in checked]
    for owner, result in zip(owners, results, strict=True):
        gathered[owner][1].append(result)
    return gathered


def _frames_to_read(episode: Checked) -> int:
    """Those beyond the shortest array belong to nothing."""
    readable = "frames" in episode.arrays and all(episode.info.arrays["frames"].shape)
    return episode.length if readable else 0


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
    for (array, row), (kind, _) in faults.items():
        groups.setdefault((array, kind), []).append(row)
    findings = []
    for (array, kind), rows in groups.items():
        _, reason = faults[array, min(rows)]
        message = {
            "missing": f"chunks of '{array}' are missing",
            "damaged": f"chunks of '{array}' cannot be decoded ({reason})",
        }.get(kind, reason)
        findings.append(Finding(kind, name, message, spans_of(rows)))
    return findings


def _plan(
    name: str, findings: list[Finding], faults: dict[tuple[str, int], Fault] | None, checked: list[Checked]
) -> Plan:
    """What to keep of an episode: all before its first fault."""
    reasons = [f.message for f in findings if f.episode == name and f.severity == "error"]
    episode = next((c for c in checked if c.info.name == name), None)
    if episode is None or faults is None or not episode.sound:
        return Plan(name, None, 0, reasons)
    return Plan(name, episode.info, min([episode.length, *(row for _, row in faults)]), reasons)


def _report(path: str | Path, names: list[str], seen: list[Seen], findings: list[Finding]) -> dict[str, Any]:
    return {
        "dataset": str(path),
        "episodes": len(names),
        "frames": sum(episode.frames for episode in seen),
        **counts(findings),
        "findings": [finding.as_dict() for finding in findings],
    }


def _print(report: dict[str, Any], findings: list[Finding], seconds: float, console: Console) -> None:
    if findings:
        print_findings(findings, console)
        console.print()
    result = ", ".join(
        f"{report[severity]} {severity}{'s' * (report[severity] != 1 and severity != 'info')}"
        for severity in ("error", "warning", "info")
    )
    console.print(
        f"{report['dataset']}: {report['episodes']:,} episodes, {report['frames']:,} frames read in {seconds:.1f} s "
        f"({report['frames'] / max(seconds, 1e-9):,.0f} frames/s): {result if findings else 'no findings'}",
        soft_wrap=True,
        markup=False,
    )
