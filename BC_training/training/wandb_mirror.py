"""The mirror of a run's rows in Weights & Biases."""

import contextlib
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from BC_training.common.config import to_dict
from BC_training.common.errors import first_line
from BC_training.common.schema import Config

_INIT_SECONDS = 20  # until W&B counts as unreachable


class WandbMirror:
    """Passes rows on in a thread of its own: starting W&B takes seconds, and its network may take any time.

    W&B starts with the first row, online with a key, otherwise offline. It never prompts, and no failure of it ends
    or delays the run. ``run_id`` continues a W&B run; None begins one, whose id is ``id``. ``say`` prints a line.
    """

    def __init__(self, log_dir: Path, config: Config, run_id: str | None, say: Callable[[str], None]):
        self.id = run_id or secrets.token_hex(4)
        self._resume = None if run_id is None else "allow"
        self._log_dir, self._config, self._say = log_dir, config, say
        self._rows: SimpleQueue[tuple[dict[str, Any], int] | None] = SimpleQueue()
        self._exit_code, self._abandoned = 0, False
        self._folder: Path | None = None  # the argument of `wandb sync`
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def log(self, values: dict[str, Any], step: int) -> None:
        if self._thread.is_alive():
            self._rows.put((values, step))

    def finish(self, failed: bool, seconds: float) -> None:
        """Gives W&B so many seconds to finish; prints how to upload what it has not."""
        self._exit_code = int(failed)
        self._rows.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._abandoned = True
            upload = f"; upload it with 'wandb sync {self._folder}'" if self._folder is not None else ""
            self._say(f"W&B has not finished in {seconds:g} s{upload}; the run is logged in {self._log_dir}")
            _end_service()

    def _work(self) -> None:
        try:
            row = self._rows.get()  # until then the run compiles, and needs the cores
            run = self._start() if row is not None else None
            if run is None:
                return
            while row is not None:
                run.log(row[0], step=row[1])
                row = self._rows.get()
            run.finish(exit_code=self._exit_code)
        except Exception as error:
            if not self._abandoned:
                self._say(f"W&B failed ({first_line(error)}); the run goes on and is logged in {self._log_dir}")
                _end_service()

    def _start(self) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would wait at exit for a server that hangs
        import wandb  # here, because it takes a second or two

        options = self._config.logging.wandb
        settings = wandb.Settings(init_timeout=_INIT_SECONDS, login_timeout=5, silent=True, console="off")
        try:
            has_key = wandb.login(prompt=False, verify=False)  # reads the environment and netrc alone
            mode, why = ("online", "") if has_key else ("offline", "no key")
        except Exception as error:  # a malformed key
            mode, why = "offline", first_line(error)
        if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
            mode, why = os.environ["WANDB_MODE"], f"WANDB_MODE={os.environ['WANDB_MODE']}"
        for attempt in (mode, "offline"):
            try:
                run = wandb.init(
                    project=options.project,
                    entity=options.entity,
                    name=self._config.logging.run_name,
                    id=self.id,
                    resume=self._resume,  # pyright: ignore[reportArgumentType]
                    tags=list(options.tags),
                    config=to_dict(self._config),
                    dir=self._log_dir,
                    mode=attempt,  # pyright: ignore[reportArgumentType]
                    settings=settings,
                )
            except Exception as error:
                why = first_line(error)
                _end_service()  # which would go on trying, and keep the run's id
                continue
            if attempt != "disabled":
                self._folder = Path(run.dir).parent
            if why:
                upload = f"upload the run with 'wandb sync {self._folder}'" if attempt == "offline" else ""
                self._say(f"W&B is {attempt} ({why})" + (f"; {upload}" if upload else ""))
            return run
        self._say(f"W&B does not start ({why}); the run is logged in {self._log_dir} alone")
        return None


def _end_service() -> None:
    """Ends W&B's own process, which this one would wait for at its end."""
    import wandb

    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "wandb" in process.name():
                process.terminate()
    with contextlib.suppress(Exception, SystemExit):  # it exits where its process has failed
        wandb.teardown()
