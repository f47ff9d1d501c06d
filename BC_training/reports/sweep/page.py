"""The results of a sweep, and their page."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from BC_training.common.json_object import JsonObject
from BC_training.common.metrics import return_text
from BC_training.reports.charts import Dots, Line, dot_chart
from BC_training.reports.page import clean, fill, number

STATES = ("complete", "pruned", "failed", "running")


class Drawn(Protocol):
    """What a setting is drawn from."""

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where some values are, from 0 to 1, and what they are."""
        ...

    def place(self, text: str) -> float:
        """Where the value ``text`` is, from 0 to 1."""
        ...


@dataclass(frozen=True)
class TrialRow(JsonObject):
    """One trial of a sweep.

    Attributes:
        state: one of ``STATES``; of a stopped trial "running", as it goes on when the command is started again.
        value: its score: that of its best checkpoint, or of the last epoch of one that was pruned.
        epochs: the last one that was scored.
        minutes: from its begin to its end, also while it was stopped.
        values: what was drawn, as it is written in overrides.
        reason: why it failed.
    """

    number: int
    state: str
    value: float | None
    epochs: int
    minutes: float | None
    values: dict[str, str]
    reason: str | None

    @property
    def texts(self) -> dict[str, str]:
        """The drawn values, to be read."""
        return {key: _short(text) for key, text in self.values.items()}


@dataclass(frozen=True)
class Results(JsonObject):
    """What ``sweep.json`` holds.

    Attributes:
        run: the name that begins those of the trials' runs.
        objective: the score by which trials are compared.
        maximized: whether higher is better.
        wanted: how many trials there shall be.
        space: what is drawn, as texts.
        importances: how much each setting matters, of 1; empty where too few trials are completed.
        best: the number of the best trial that is completed.
        checkpoint: the best trial's folder.
        command: trains the best trial again.
    """

    run: str
    objective: str
    maximized: bool
    wanted: int
    space: dict[str, str]
    trials: tuple[TrialRow, ...] = ()
    importances: dict[str, float] = field(default_factory=dict)
    best: int | None = None
    checkpoint: str | None = None
    command: str | None = None

    def value_text(self, value: float | None) -> str:
        if self.objective == "rollout":
            return return_text(value)
        return "–" if value is None else f"{value:.4f}"

    def cells(self, trial: TrialRow) -> tuple[int, list[str]]:
        """A trial's row in a table: its number, its state, what it reached, the drawn values, and why it failed."""
        state = "best" if trial.number == self.best else trial.state
        cells = [state, self.value_text(trial.value), str(trial.epochs or "–"), number(trial.minutes)]
        return trial.number, [
            *cells,
            *(trial.texts.get(key, "–") for key in self.space),
            clean(trial.reason or "", 300),
        ]

    @property
    def headings(self) -> list[str]:
        """The headings of ``cells``; that of a setting is the end of its key, where no other ends so."""
        names = [key.rpartition(".")[2] for key in self.space]
        short = [name if names.count(name) == 1 else key for name, key in zip(names, self.space, strict=True)]
        return ["trial", "state", self.objective, "epochs", "minutes", *short, ""]

    @property
    def counts(self) -> str:
        """How many trials are in each state."""
        states = Counter(trial.state for trial in self.trials)
        return ", ".join(f"{states[state]} {state}" for state in STATES if states[state])


def render(results: Results, space: Mapping[str, Drawn]) -> str:
    """The page. ``space`` says what each setting was drawn from."""
    done = [trial for trial in results.trials if trial.minutes is not None]
    best = next((trial for trial in results.trials if trial.number == results.best), None)
    spent = sum(trial.minutes or 0 for trial in done)
    drawn = " · ".join(f"{key} {text}" for key, text in results.space.items())
    return fill(
        "sweep/page.html",
        results=results,
        best=best,
        drawn=clean(drawn, 1000),
        tiles=[
            ("Objective", results.objective, "higher is better" if results.maximized else "lower is better"),
            ("Best", results.value_text(best and best.value), f"trial {best.number}" if best else "none yet"),
            ("Trials", f"{len(results.trials)} of {results.wanted}", results.counts),
            ("Trained for", f"{spent:.1f} min", "from begin to end of each trial, added up"),
        ],
        history=_history(results),
        settings=[_setting(results, key, of) for key, of in space.items()],
        rows=[results.cells(trial) for trial in results.trials],
    )


def _history(results: Results) -> Any:
    last = max(len(results.trials) - 1, 1)
    kinds = _kinds(results, lambda trial: trial.number / last)
    steps, better = [], max if results.maximized else min
    for trial in results.trials:
        if trial.state == "complete" and trial.value is not None:
            best = trial.value if not steps else better(steps[-1][1], trial.value)
            steps += [*((trial.number / last, value) for _, value in steps[-1:]), (trial.number / last, best)]
    steps += [(1.0, value) for _, value in steps[-1:]]
    shown = sorted({round(last * i / 5) for i in range(6)})
    columns = [(n / last, str(n)) for n in shown]
    return dot_chart(f"{results.objective} by trial", kinds, columns, Line("best so far", steps))


def _setting(results: Results, key: str, of: Drawn) -> Any:
    return dot_chart(key, _kinds(results, lambda trial: of.place(trial.values[key])), of.ticks)


def _kinds(results: Results, across: Any) -> list[Dots]:
    """The trials that have a score as dots, whose x ``across`` gives."""
    found: dict[str, list[tuple[float, float, str]]] = {"complete": [], "pruned": [], "best": []}
    for trial in results.trials:
        kind = "best" if trial.number == results.best else trial.state
        if trial.value is not None and kind in found:
            settings = ", ".join(f"{key} {text}" for key, text in trial.texts.items())
            words = f"trial {trial.number}: {results.value_text(trial.value)} ({settings})"
            found[kind].append((across(trial), trial.value, clean(words, 300)))
    return [Dots(kind, points) for kind, points in found.items()]


def _short(text: str) -> str:
    """A number with a fraction to four digits; any other text as it is."""
    try:
        return text if text.lstrip("-").isdecimal() else f"{float(text):.4g}"
    except ValueError:
        return text
