"""A game's state, which a program of the user's reads from the game and sends: lines of ``{"name": value}`` over UDP.

A value holds until the next one of its name comes. Values are numbers, true or false.
"""

import ipaddress
import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from BC_training.common.errors import UserError, first_line
from BC_training.common.preprocess import InputSpec
from BC_training.common.storage.column_names import names_fault
from BC_training.play.live.events import Event, Events

LATE_SECONDS = 1.0  # a value that is older counts as late
_LONGEST = 1 << 16  # bytes of a datagram
_LARGEST = float(np.finfo(np.float32).max)
_MOST = 10_000  # datagrams read at once, so that a program that floods does not stop the frames


class GameState:
    """The newest values of a game's state.

    Args:
        address: "HOST:PORT" on this machine, where they are sent to; None for a game that has none.
        names: of the S values.
        tell: gets what the user must know, each only once.

    Raises:
        UserError: no such address, or one that other machines can reach, or that another program listens at.

    Attributes:
        bad: how many lines were left out, as they were no table of numbers.
    """

    def __init__(self, address: str | None, names: Sequence[str], tell: Callable[[str], None]):
        self.names, self._tell, self.bad = tuple(names), tell, 0
        self._newest: dict[str, Event] = {}
        self._told: set[str] = set()
        self._socket = None if address is None else _listen(address)

    def receive(self) -> list[Event]:
        """Reads all that has come; rows of the newest value of each name in it."""
        found: dict[str, float] = {}
        for datagram in self._datagrams():
            for line in filter(None, map(bytes.strip, datagram.splitlines())):
                found |= self._values(line)
        now = time.perf_counter()
        rows = [Event(now, "state", name=name, x=value) for name, value in found.items()]
        self._newest |= {row.name: row for row in rows}
        return rows

    def forget(self) -> None:
        """Leaves out what was sent until now; what waited longest to be read is older than it seems."""
        self.receive()
        self._newest.clear()

    def _datagrams(self) -> list[bytes]:
        found: list[bytes] = []
        while self._socket is not None and len(found) < _MOST:
            try:
                found.append(self._socket.recv(_LONGEST))
            except BlockingIOError:
                break
        return found

    def _values(self, line: bytes) -> dict[str, float]:
        """The known values of a line; none where it is not as it should be."""
        try:
            raw = json.loads(line)
            if not isinstance(raw, dict):
                raise ValueError("it is no table")
            values = {name: _number(name, value) for name, value in raw.items()}
        except (ValueError, RecursionError) as error:
            self.bad += 1
            text = line[:60].decode(errors="replace")
            self._once("bad", f'a line of the state is no {{"name": number}} and is left out, {text!r}: {error}')
            return {}
        if unknown := [name for name in values if name not in self.names]:
            self._once("unknown", f"'{unknown[0]}' is sent, and is none of {', '.join(self.names)}: it is left out")
        for name, value in values.items():
            if value.is_integer() and value != float(np.float32(value)):
                self._once("rounded", f"'{name}' is {value:.0f}, which float32 cannot hold: such numbers are rounded")
        return {name: value for name, value in values.items() if name in self.names}

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._tell(text)

    @property
    def rows(self) -> list[Event]:
        """The newest value of each name that has one, with which an episode begins."""
        return list(self._newest.values())

    @property
    def missing(self) -> list[str]:
        """The names that have no value yet."""
        return [name for name in self.names if name not in self._newest]

    @property
    def late(self) -> list[str]:
        """The names whose value is older than it should be."""
        oldest = time.perf_counter() - LATE_SECONDS
        return [row.name for row in self._newest.values() if row.time < oldest]

    @property
    def values(self) -> np.ndarray:
        """float32 [S]; 0 where a value is missing."""
        return np.array([self._newest[name].x if name in self._newest else 0.0 for name in self.names], np.float32)

    def close(self) -> None:
        """Listens no more, and tells how many lines were left out."""
        if self.bad > 1:
            self._tell(f"{self.bad:,} lines of the state were left out")
        if self._socket is not None:
            self._socket.close()


def read_names(file: Path) -> tuple[str, ...]:
    """The names in a file, one a line; a UserError where it has none, or one twice."""
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({first_line(error)}): write the state's names, one a line") from error
    if not names:
        raise UserError(f"{file} is empty: write the state's names, one a line")
    if fault := names_fault({"keys": ["any"], "attributes": names}):
        raise UserError(f"{file}: {fault}: write the state's names, one a line")
    return tuple(names)


def names_for(inputs: InputSpec, address: str | None) -> tuple[str, ...]:
    """The names of the values that a policy of these inputs is sent at an address; a UserError where it needs one."""
    names = inputs.state_names
    if address is None and inputs.window.state:
        raise UserError(f"the policy needs the game's state ({', '.join(names)}): add --state HOST:PORT")
    if address is not None and not names:
        raise UserError("the policy knows no state of the game: leave out --state")
    return () if address is None else names


def state_of_frames(events: Events, names: Sequence[str], times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state of frames that were taken at ``times``, float64 [N]: what had come before.

    Returns:
        float32 [N, S], and whether any value of a frame was late, bool [N].

    Raises:
        UserError: other values were recorded than those of these S names.
    """
    table = events.of_kind("state").table
    whose = np.array(table["name"].to_pylist(), dtype=object)
    if (found := set(whose)) != set(names):
        told, wanted = (", ".join(sorted(some)) or "none" for some in (found, names))
        raise UserError(f"it has the state values {told}, and not {wanted}: record with --state-names that has them")
    state, late = np.zeros((len(times), len(names)), np.float32), np.zeros(len(times), bool)
    sent, values = table["time"].to_numpy(), table["x"].to_numpy()
    for column, name in enumerate(names):
        mine = np.flatnonzero(whose == name)
        newest = mine[np.maximum(np.searchsorted(sent[mine], times, "right") - 1, 0)]
        state[:, column] = values[newest]
        late |= times - sent[newest] > LATE_SECONDS
    return state, late


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float):
        raise ValueError(f"'{name}' is no number")
    if not abs(value) <= _LARGEST:
        raise ValueError(f"'{name}' is not finite as float32")
    return float(value)


def _listen(address: str) -> socket.socket:
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+)):(\d{1,5})", address)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise UserError(f"state {address} is no HOST:PORT: write 127.0.0.1:47800")
    host = found[1] or found[2]
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        ip = None
    if ip is None or not ip.is_loopback:
        raise UserError(f"state {address}: anybody in the network could send there: write 127.0.0.1:{found[3]}")
    opened = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        opened.bind((str(ip), int(found[3])))
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        reason = error.strerror or first_line(error)
        raise UserError(f"cannot listen for the state at {address} ({reason}): choose another port") from error
    return opened
