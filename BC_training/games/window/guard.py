"""Lets go of what this program holds down where it is killed: nothing of it runs then, and its keys would stay down."""

import subprocess
import sys
from collections.abc import Iterable, Mapping

# What the guard runs; it imports nothing before it must act, so that it starts at once and is small.
_WATCH = """
import sys
held = ""
for held in sys.stdin:
    pass
held = held.split()
if held:
"""


class Guard:
    """A process of its own that is told through a pipe what is held, and acts where the pipe ends with something held.

    The system closes the pipe whatever ends this process, also a kill with -9. The guard starts with the first press.

    Args:
        let_go: Python that releases ``held``, a list of what ``hold`` was given last.
        environment: of the guard; None for that of this process.
    """

    def __init__(self, let_go: str, environment: Mapping[str, str] | None = None):
        self._code = _WATCH + "".join(f"    {line}\n" for line in let_go.strip().splitlines())
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def hold(self, what: Iterable[str]) -> None:
        """This is held from now on, or about to be pressed; each is a word."""
        line = " ".join(what).encode() + b"\n"
        try:
            self._tell(line)
        except OSError:  # somebody has ended the guard
            self.close()
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", self._code],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=self._environment,
                # Neither Ctrl-C in the terminal nor closing it ends the guard as well.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows
            )
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    def close(self) -> None:
        """Ends the guard, which lets go of what is still held."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
