"""Lets go of what this program holds down where it is killed: nothing of it runs then, and its keys would stay down."""

import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from BC_training.common.keybinds.button_names import Button

_ROOT = Path(__file__).parents[3]
# What the guard runs. It imports nothing before it must act, so that it starts at once and is small.
_WATCH = """
import sys
held = ""
for held in sys.stdin:
    pass
if held.strip() not in ("", "[]"):
    sys.path.append(sys.argv[1])
    from BC_training.games.window.platform import let_go
    let_go(held)
"""


class Guard:
    """A process of its own that is told through a pipe what is held, and acts where the pipe ends with something held.

    The system closes the pipe whatever ends this process, also a kill with -9. The guard starts with the first press.

    Args:
        environment: of the guard; None for that of this process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None):
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def hold(self, buttons: Collection[Button]) -> None:
        """These are held from now on, or about to be pressed."""
        try:
            self._tell(buttons)
        except OSError:  # somebody has ended the guard
            self.close()
            self._tell(buttons)

    def _tell(self, buttons: Collection[Button]) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _WATCH, str(_ROOT)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=self._environment,
                # Neither Ctrl-C in the terminal nor closing it ends the guard as well.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(sorted(buttons)).encode() + b"\n")

    def close(self) -> None:
        """Ends the guard, which lets go of what is still held."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
