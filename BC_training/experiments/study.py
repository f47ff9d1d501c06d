"""A sweep's trials on disk, which any number of processes and machines share.

Optuna keeps them: in a journal, JSON lines that are appended under a lock, or in SQLite, whose columns hold texts and
numbers. Neither has pickled objects. A trial that runs has a lock, which the system frees when its process dies: that
is how another process knows that it may go on with it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from BC_training.common.errors import UserError, first_line, unknown
from BC_training.common.files import locked
from BC_training.experiments.search_space import Choice, Space
from BC_training.reports.sweep.page import TrialRow
from BC_training.runtime.interruption import Interrupted
from BC_training.training.resume import differences
from BC_training.training.run_folder import make_folder

FILES = {"journal": "study.jsonl", "sqlite": "study.db"}
_MOST_DEATHS = 5  # of processes in the same epoch of a trial; then it counts as failed
_FIRST = 5  # trials that are completed before any is pruned
_FIRST_EPOCH = 2  # after which a trial may be pruned: the first tells little of the last
_TOP = 0.25  # the share of the trials that settings are important for
_FEWEST = 4  # completed trials that say which settings are important
_NAME = "sweep"
optuna.logging.set_verbosity(optuna.logging.CRITICAL)


@dataclass(frozen=True)
class Attempt:
    """A trial that this process alone has.

    Attributes:
        values: what was drawn, as it is written in overrides.
        deaths: of processes that had it before, since its last epoch.
        is_new: whether none had it before.
    """

    trial: optuna.Trial
    values: dict[str, str]
    deaths: int
    is_new: bool
    reported: set[int]  # epochs

    @property
    def number(self) -> int:
        return self.trial.number

    def report(self, epoch: int, value: float) -> bool:
        """Notes a score after an epoch; returns whether it is worth to go on."""
        if epoch in self.reported:  # before its process died
            return True
        self.reported.add(epoch)
        self.trial.report(value, epoch)
        if self.deaths:
            self.trial.set_user_attr("begun", 1)
        return not self.trial.should_prune()


class Study:
    """The trials of a sweep."""

    def __init__(
        self,
        folder: Path,
        storage: str,
        agreed: dict[str, Any],
        space: Space,
        *,
        maximized: bool,
        seed: int,
        prune: bool,
    ) -> None:
        """Opens the study in ``folder``, or begins it.

        Args:
            agreed: what all processes must agree on, in JSON types: "objective", "space", the texts of what is drawn,
                "config", settings, each by dotted keys, and "dataset", its fingerprint.

        Raises:
            UserError: it was begun with other values of ``agreed`` or another storage, or is damaged.
        """
        other = next((kind for kind, name in FILES.items() if kind != storage and (folder / name).exists()), None)
        if other is not None:
            raise UserError(f"{folder} has its trials in {FILES[other]}: write --storage {other}")
        self.file, self._folder, self._space, self._seed = folder / FILES[storage], folder, space, seed
        make_folder(folder)
        never = optuna.pruners.NopPruner()
        with self.locked(), self._readable():
            self._study = optuna.create_study(
                storage=_journal(self.file) if storage == "journal" else _sqlite(self.file),
                study_name=_NAME,
                direction="maximize" if maximized else "minimize",
                pruner=optuna.pruners.MedianPruner(_FIRST, _FIRST_EPOCH) if prune else never,
                load_if_exists=True,
            )
            if not self._study.user_attrs:
                self._study.set_user_attr("agreed", agreed)
            _require_same(self._study.user_attrs["agreed"], agreed, folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps the other processes from choosing a trial, and from writing the results."""
        with locked(self._folder / ".lock"):
            yield

    @contextlib.contextmanager
    def next_trial(self, most: int) -> Iterator[Attempt | None]:
        """Takes over a trial whose process has died or was stopped, or begins one; None where there are ``most``."""
        with contextlib.ExitStack() as stack:
            with self.locked():
                attempt = self._take_over(stack) or self._begin(stack, most)
            try:
                yield attempt
            except (Interrupted, KeyboardInterrupt, UserError):  # the process ends in order
                if attempt is not None:
                    with contextlib.suppress(UpdateFinishedTrialError):
                        attempt.trial.set_user_attr("begun", attempt.deaths)
                raise

    def complete(self, attempt: Attempt, value: float) -> None:
        self._study.tell(attempt.trial, value)

    def prune(self, attempt: Attempt) -> None:
        self._study.tell(attempt.trial, state=TrialState.PRUNED)

    def fail(self, attempt: Attempt, reason: str) -> None:
        attempt.trial.set_user_attr("reason", reason)
        self._study.tell(attempt.trial, state=TrialState.FAIL)

    def rows(self) -> list[TrialRow]:
        """What is known of each trial."""
        return [self._row(trial) for trial in self._study.get_trials(deepcopy=False)]

    def importances(self) -> dict[str, float]:
        """How much each setting matters for being among the best quarter of the trials; they sum to 1.

        Empty where too few trials are completed.
        """
        if len(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < _FEWEST:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_TOP)
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def _take_over(self, stack: contextlib.ExitStack) -> Attempt | None:
        for frozen in self._study.get_trials(states=(TrialState.RUNNING,)):
            try:
                stack.enter_context(self._lock(frozen.number))
            except UserError:  # its process lives
                continue
            trial = optuna.Trial(self._study, frozen._trial_id)
            if self._study.get_trials(deepcopy=False)[frozen.number].state != TrialState.RUNNING:
                continue  # it ended just now
            deaths = frozen.user_attrs.get("begun", 0)
            attempt = Attempt(trial, self._draw(trial), deaths, "begun" not in frozen.user_attrs, set())
            attempt.reported.update(frozen.intermediate_values)
            if deaths >= _MOST_DEATHS:
                self.fail(attempt, f"its process died {deaths} times in the same epoch")
                continue
            trial.set_user_attr("begun", deaths + 1)
            return attempt
        return None

    def _begin(self, stack: contextlib.ExitStack, most: int) -> Attempt | None:
        number = len(self._study.get_trials(deepcopy=False))
        if number >= most:
            return None
        stack.enter_context(self._lock(number))
        # Each trial has a seed of its own, so that processes do not draw the same, and the draws can be repeated.
        (seed,) = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self._study.sampler = TPESampler(seed=int(seed))
        trial = self._study.ask()
        attempt = Attempt(trial, self._draw(trial), 0, True, set())
        trial.set_user_attr("begun", 1)
        return attempt

    def _draw(self, trial: optuna.Trial) -> dict[str, str]:
        """Draws what ``trial`` has not drawn yet; returns all of it as texts."""
        for key, of in self._space.items():
            if isinstance(of, Choice):
                trial.suggest_categorical(key, of.texts)
            elif of.is_whole:
                trial.suggest_int(key, int(of.low), int(of.high), log=of.log)
            else:
                trial.suggest_float(key, of.low, of.high, log=of.log)
        return _texts(trial.params)

    def _lock(self, number: int) -> contextlib.AbstractContextManager[None]:
        return locked(self._folder / f".trial-{number}.lock", "it runs")

    def _row(self, trial: FrozenTrial) -> TrialRow:
        begun, ended = trial.datetime_start, trial.datetime_complete
        return TrialRow(
            number=trial.number,
            state=trial.state.name.lower().replace("fail", "failed"),
            value=trial.value,
            epochs=max(trial.intermediate_values, default=0),
            minutes=None if begun is None or ended is None else (ended - begun).total_seconds() / 60,
            values=_texts(trial.params),
            reason=trial.user_attrs.get("reason"),
        )

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, SQLAlchemyError, sqlite3.Error) as error:
            raise UserError(
                f"{self.file} cannot be read ({first_line(error)}): restore it, or choose another logging.run_name"
            ) from error


def require_storage(storage: str) -> None:
    """Raises a UserError where ``storage`` is not one."""
    if storage not in FILES:
        raise unknown("storage", storage, FILES, "see --storage")


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """Drawn values as they are written in overrides."""
    return {key: str(value) for key, value in values.items()}


def _require_same(saved: dict[str, Any], agreed: dict[str, Any], folder: Path) -> None:
    """Raises a UserError that names what is not as in ``saved``, with which the study in ``folder`` was begun."""
    old, new = ({**a["space"], **a["config"], **{k: a[k] for k in ("objective", "dataset")}} for a in (saved, agreed))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        raise UserError(
            f"the sweep in {folder} was begun otherwise ({differences(old, new, changed)}): set it back, or choose "
            "another logging.run_name"
        )


def _journal(file: Path) -> JournalStorage:
    lock: Any = FileLock(f"{file}.lock")  # Optuna's own are links, which Windows forbids, or stay after a crash
    with lock:
        whole = file.read_bytes() if file.exists() else b""
        if not whole.endswith(b"\n"):  # of a line that was being written when the power went
            with open(file, "ab") as opened:
                opened.truncate(whole.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))


def _sqlite(file: Path) -> RDBStorage:
    # The address is made up, as it could not hold every file's name.
    return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": lambda: sqlite3.connect(file, timeout=60)})
