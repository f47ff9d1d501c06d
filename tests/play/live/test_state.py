import json
import socket
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import converted
from live_recording import TITLE, ScriptedDesktop, record
from rich.console import Console
from untrained import save_run
from Xlib import X

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, Window
from BC_training.common.schema import Config, DatasetConfig, RecordConfig
from BC_training.common.settings.evaluation import EvaluationConfig
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures
from BC_training.games import GameSpec
from BC_training.models.state_cnn.model import Config as StateCNNConfig
from BC_training.play.live import play, recorder
from BC_training.play.live import state as live_state
from BC_training.play.live.labels import AUTO
from BC_training.play.live.options import PlayOptions, live_options
from BC_training.play.live.play import play_window
from BC_training.play.live.state import GameState, read_names
from BC_training.play.policy import Policy

NAMES = ("health", "near")


class Reader:
    """A program of the user's that reads a game's state and sends it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as free:
            free.bind(("127.0.0.1", 0))
            self._to = free.getsockname()
        self.address = f"127.0.0.1:{self._to[1]}"

    def send(self, *lines: Any) -> None:
        """Sends a datagram of these lines; what is no text becomes JSON."""
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        self._socket.sendto(text.encode(), self._to)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    with closing(Reader()) as reader:
        yield reader


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def state(reader, told) -> Iterator[GameState]:
    with closing(GameState(reader.address, NAMES, told.append)) as state:
        yield state


def test_the_newest_value_of_each_name_holds_until_the_next(reader, state):
    assert state.missing == ["health", "near"]
    reader.send({"health": 90}, {"health": 80.5, "near": True})
    reader.send({"health": 70})
    assert sorted((row.name, row.x) for row in state.receive()) == [("health", 70.0), ("near", 1.0)]
    assert state.values.dtype == np.float32
    reader.send({"near": False})
    assert [(row.kind, row.name, row.x) for row in state.receive()] == [("state", "near", 0.0)]
    assert state.receive() == []
    assert state.values.tolist() == [70.0, 0.0]
    assert state.missing == []


def test_a_value_that_is_old_is_late(monkeypatch, reader, state):
    reader.send({"health": 1, "near": 1})
    state.receive()
    assert state.late == []
    monkeypatch.setattr(live_state, "LATE_SECONDS", 0.0)
    assert state.late == ["health", "near"]


@pytest.mark.parametrize(
    "line",
    [
        *("health=5", "[1, 2]", "5", '{"health": "5"}', '{"health": null}', '{"health": NaN}', '{"health": -Infinity}'),
        *('{"health": 1e39}', '{"health": 1' + 400 * "0" + "}", '{"health": ' + 6000 * "1" + "}", 9999 * "[", "\xff{"),
        '{"health": 5, "near": {}}',
    ],
)
def test_a_line_that_is_no_table_of_numbers_is_left_out_and_told_once(reader, state, told, line):
    reader.send({"health": 1}, line, line, {"near": 2})
    state.receive()
    assert state.values.tolist() == [1.0, 2.0]
    assert state.bad == 2
    state.close()
    said, counted = told
    assert counted == "2 lines of the state were left out"
    assert said.startswith('a line of the state is no {"name": number} and is left out')
    assert len(said) < 300


def test_an_unknown_name_and_a_number_that_must_be_rounded_are_told_once(reader, state, told):
    reader.send({"health": 2**24 + 1, "ammo": 3}, {"armour": 3, "near": 2**25 + 1})
    assert {row.name for row in state.receive()} == set(NAMES)
    assert state.values.tolist() == [2**24, 2**25]
    assert told == [
        "'ammo' is sent, and is none of health, near: it is left out",
        "'health' is 16777217, which float32 cannot hold: such numbers are rounded",
    ]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("0.0.0.0:47800", "anybody in the network could send there: write 127.0.0.1:47800"),
        ("192.168.1.2:47800", "anybody in the network could send there"),
        ("game.example:47800", "anybody in the network could send there"),
        ("[::]:47800", "anybody in the network could send there"),
        ("127.0.0.1", "is no HOST:PORT: write 127.0.0.1:47800"),
        ("127.0.0.1:0", "is no HOST:PORT"),
        ("127.0.0.1:65536", "is no HOST:PORT"),
        (":47800", "is no HOST:PORT"),
    ],
)
def test_an_address_that_is_not_this_machines_own_is_refused(address, message):
    with pytest.raises(UserError, match=message):
        GameState(address, NAMES, print)


def test_a_port_that_another_program_listens_at_is_refused(reader, state):
    with pytest.raises(UserError, match=r"cannot listen for the state at .* in use\): choose another port"):
        GameState(reader.address, NAMES, print)


def test_names_are_those_of_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffhealth\r\n\n  weapon ü\r\n".encode())
    assert read_names(file) == ("health", "weapon ü")
    for text, message in (
        (b"\n", "is empty"),
        (b"a\nb\na", "has 'a' twice"),
        (b"\xff", "cannot read"),
        (None, "cannot"),
    ):
        file.unlink() if text is None else file.write_bytes(text)
        with pytest.raises(UserError, match=f"{message}.*write the state's names, one a line"):
            read_names(file)
    config = RecordConfig(f"window/{TITLE}", "human")
    with pytest.raises(
        UserError, match="--state HOST:PORT and --state-names FILE, which names its values, go together"
    ):
        live_options(config, AUTO, None, None, False, "127.0.0.1:47800", None)


def test_a_frames_state_is_what_was_sent_before_it(tmp_path, monkeypatch, window, person, reader):
    """The first frame is the one in which all have a value; here, in each frame another is sent."""
    out = tmp_path / "x.zarr"
    monkeypatch.setattr(live_state, "LATE_SECONDS", 60.0)
    script: dict[int, Any] = {look: lambda look=look: reader.send({"health": look}) for look in range(3, 13)}
    script |= {
        2: lambda: person.tap("F9"),
        5: lambda: reader.send({"near": True, "health": 5}),
        8: lambda: (person.tap("w"), reader.send("nonsense")),
        13: lambda: person.tap("F12"),
    }
    said = record(monkeypatch, out, script, AUTO, state=reader.address, state_names=NAMES, lossless=True)
    data = ZarrGameplayDataset(out)
    assert data.state_names == NAMES
    assert data.state(0).tolist() == [[5, 1], [6, 1], [7, 1], [7, 1], [9, 1], [10, 1], [11, 1]]
    assert np.flatnonzero(data.actions(0)).tolist() == [2]
    assert data.episodes[0].attrs["late_state_frames"] == 0
    assert f"the episode begins once health, near came to {reader.address}" in said
    assert sum("a line of the state is no" in line for line in said) == 1
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"version": "2.0", "actions": {"go": {"key": "W"}}}))
    converted(out, tmp_path / "y.zarr", "events", keybinds=keys)
    again = ZarrGameplayDataset(tmp_path / "y.zarr")
    assert again.state_names == NAMES
    assert again.state(0).tolist() == data.state(0).tolist()
    with pytest.raises(UserError, match=r"holds other state values \(health, near\) than are to be added \(none\)"):
        record(monkeypatch, out, {0: lambda: None}, AUTO)


def test_the_state_of_a_recording_that_was_cut_off_is_finished_too(tmp_path, monkeypatch, window, person, reader):
    """Here it has grown late; a start with other names leaves it as it is."""

    def fail() -> None:
        raise KeyboardInterrupt

    out = tmp_path / "x.zarr"
    script = {
        1: lambda: reader.send({"health": 3, "near": 0}),
        2: lambda: person.tap("F9"),
        4: lambda: (person.tap("w"), reader.send({"health": 2.5})),
        7: fail,
    }
    given = {"state": reader.address, "state_names": NAMES}
    monkeypatch.setattr(live_state, "LATE_SECONDS", 0.03)
    with monkeypatch.context() as patch:
        patch.setattr(recorder.Session, "close", lambda session: session._episode.close())  # as a kill, but for threads
        with pytest.raises(KeyboardInterrupt):
            record(patch, out, script, AUTO, **given)
    script = {2: lambda: person.tap("F12")}
    said = record(monkeypatch, out, script, AUTO)
    assert any("it has the state values health, near, and not none: record with --state-names" in line for line in said)
    assert list(out.glob(".partial-live*"))
    record(monkeypatch, out, script, AUTO, **given)
    data = ZarrGameplayDataset(out)
    assert data.state(0).tolist() == [[3, 0], [3, 0], [2.5, 0], [2.5, 0]]
    assert data.episodes[0].attrs["late_state_frames"] >= 2


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> tuple[Path, int]:
    """One that presses W by "near" alone, whatever it sees, and the value of "near" for which it does."""
    near = StateConfig(standardized=("near",))
    features = StateFeatures(near, means=(0.5,), stds=(0.5,))
    inputs = InputSpec(("W",), NAMES, (24, 36), (24, 36), 50.0, Window(state=True), features)
    small = {"conv_features": (4,), "conv_strides": (2,), "vision_features": (4,), "dense_features": (8,)}
    dataset, model = DatasetConfig("unused", state=near), StateCNNConfig("state_cnn", state_features=(8,), **small)
    config = Config(dataset, model, evaluation=EvaluationConfig(best_metric="macro_f1"))
    run = save_run(tmp_path_factory.mktemp("policy") / "run", config, inputs)
    black, untrained = np.zeros((3, 24, 36), np.uint8), Policy.load(run)
    off, on = (untrained.probabilities(black, np.float32([9, near]))[0].item() for near in (0, 1))
    assert abs(off - on) > 1e-3
    save_run(run, config, inputs, decoding=Decoding({"W": (off + on) / 2}))
    return run, int(on > off)


def test_a_policy_acts_on_the_state_that_is_sent_and_not_before_all_is_there(
    monkeypatch, tmp_path, policy, window, person, reader
):
    (run, pressing), seen = policy, []

    def look(**values: float) -> None:
        seen.append(window.seen())
        reader.send(values)

    script = {
        2: lambda: person.tap("F9"),
        3: lambda: reader.send({"near": pressing}),
        8: lambda: look(health=1),
        16: lambda: look(near=1 - pressing),
        24: lambda: look(near=pressing),
        32: lambda: (look(), person.tap("F12")),
    }
    monkeypatch.setattr(play, "open_desktop", ScriptedDesktop)
    monkeypatch.setattr(live_state, "LATE_SECONDS", 0.0)
    ScriptedDesktop.script, said = script, StringIO()
    options = PlayOptions(GameSpec.parse(f"window/{TITLE}?fps=50"), all_inputs=True, state=reader.address)
    played = play_window(str(run), options, Console(file=said, width=1000))
    presses = [[kind == X.KeyPress for kind, _ in part] for part in (*seen, window.seen())]
    assert presses == [[], [True], [False], [True], [False]]
    assert "the policy plays once health, near came to" in said.getvalue()
    assert 20 < played.frames <= 24
    assert played.late_state == played.frames


def test_a_policy_that_needs_a_state_is_told_where_it_comes_from(policy, window):
    options = PlayOptions(GameSpec.parse(f"window/{TITLE}"))
    with pytest.raises(UserError, match=r"needs the game's state \(health, near\): add --state HOST:PORT"):
        play_window(str(policy[0]), options, Console(file=StringIO()))
