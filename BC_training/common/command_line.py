"""How a command ends: its errors become one line and an exit code."""

import sys
import traceback
from collections.abc import Callable

from BC_training.common.devices import leave
from BC_training.common.errors import UserError


def run_command(command: Callable[[], None]) -> None:
    """Runs a command; what the user can mend exits with code 2, an interruption with 130, all else with 1."""
    try:
        command()
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception:
        traceback.print_exc()
        leave(1)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    leave(code)
