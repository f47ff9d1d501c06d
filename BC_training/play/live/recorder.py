"""Records a person who plays a program in a window of this desktop."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.keybinds.button_names import Button, button_of, shown
from BC_training.common.storage.reader import read_root
from BC_training.common.storage.store import LocalStore
from BC_training.common.storage.writer import Names, is_unused, live_leftovers, next_number, recording, write_names
from BC_training.games.window.clock import Ticks
from BC_training.games.window.desktop import NotShown, Region, WindowQuery
from BC_training.games.window.platform import end_is_user_error, open_desktop
from BC_training.play.human.session import remove_episode
from BC_training.play.live.episode import LiveEpisode, events_of, finish
from BC_training.play.live.labels import AUTO, Binding
from BC_training.play.live.options import HOTKEYS, LiveOptions
from BC_training.play.live.state import GameState
from BC_training.play.live.watch import Watch
from BC_training.play.say import say
from BC_training.runtime.workers import closing_on_sigterm

_UNDECIDED = Names(("undecided",))  # those of a new dataset until it is known which keys were pressed
_LINES_A_SECOND = 4


def record_window(out: Path, options: LiveOptions, console: Console) -> None:
    """Adds a person's episodes to a dataset, which is created if missing, until they end it or close the window.

    What a recorder left that was killed becomes episodes, too, with the attribute "recovered".

    Raises:
        UserError: no such window, keybinds or hotkeys that cannot be used, a dataset that is recorded into already or
            has other columns, or a full disk; what was recorded before is kept, and at the latest the next recording
            into the dataset makes episodes of it.
    """
    binding = _binding(out, options.keybinds)
    hotkeys = hotkey_buttons(options.hotkeys, binding)
    names = (binding.names if binding else _UNDECIDED)._replace(attributes=options.state_names)
    state = GameState(options.state, options.state_names, lambda line: say(console, line))
    with (
        closing_on_sigterm(),
        contextlib.closing(state),
        contextlib.closing(open_desktop()) as desktop,
        end_is_user_error(),
    ):
        arguments = options.game.arguments
        query, region = WindowQuery.parse(options.game.name), arguments["region"]
        window = desktop.find(query)
        watched = Region.parse(region) if region else None
        desktop.grab(window.id, watched)
        with recording(out, names), disk_full_is_user_error(out):
            desktop.grab_hotkeys([shown(key) for key in hotkeys])
            from BC_training.play.live.pads import Pads  # here: a second to import

            with contextlib.closing(Pads()) as pads:
                start, discard, end = map(shown, hotkeys)
                say(console, f"{window}: {start} starts and stops an episode, {discard} discards it, {end} ends this")
                watch = Watch(desktop, window.id, watched, arguments["fps"], pads, state)
                session = Session(out, options, hotkeys, binding, watch, console)
                try:
                    session.finish_all()
                    session.run()
                finally:
                    session.close()


def _binding(out: Path, keybinds: Path) -> Binding | None:
    """None where the keys that will be pressed name the buttons."""
    if keybinds != AUTO:
        return Binding.from_file(keybinds)
    if is_unused(out) or not out.is_dir() or not LocalStore(out).episode_names():
        return None
    root = read_root(LocalStore(out))
    return Binding.of_names(tuple(root["keys"]), tuple(root.get("axes") or ()), str(out))


def hotkey_buttons(names: Sequence[str], binding: Binding | None) -> list[Button]:
    """The three hotkeys of these names; raises a UserError where they are none, or the game uses one."""
    hotkeys = [button_of("key", name) for name in names]
    if None in hotkeys or len(set(hotkeys)) != len(HOTKEYS):
        raise UserError(f"--hotkeys {','.join(names)}: name three keys, such as {','.join(HOTKEYS)}")
    found = [key for key in hotkeys if key is not None]
    for key in found:
        if binding is not None and key in binding.keys.columns:
            raise UserError(f"the hotkey {shown(key)} is bound in the game, too: choose others with --hotkeys")
    return found


class Session:
    """Episodes that a person starts, stops and discards.

    Args:
        binding: None where the keys that are pressed in the session name the buttons.
    """

    def __init__(
        self,
        out: Path,
        options: LiveOptions,
        hotkeys: Sequence[Button],
        binding: Binding | None,
        watch: Watch,
        console: Console,
    ):
        self._out, self._options, self._hotkeys, self._binding, self._watch = out, options, hotkeys, binding, watch
        self._console, self._ticks = console, Ticks(watch.fps)
        self._episode: LiveEpisode | None = None
        self._begun = self._shown = self._moment = time.perf_counter()
        self._mine: list[Path] = []  # in progress or waiting to be finished, begun in this session
        self._done: list[Path] = []  # likewise, and finished
        self._is_over = False
        self._line = Live(console=console, auto_refresh=False, transient=True)

    def run(self) -> None:
        """Until the person ends it, or the window is closed."""
        with self._line if self._console.is_terminal else contextlib.nullcontext():
            self._ticks.restart()
            while not self._is_over:
                self._ticks.wait()
                self._moment = time.perf_counter() - self._ticks.late
                self._tick()

    def _tick(self) -> None:
        rows, pressed = self._watch.look(self._options.all_inputs, self._hotkeys)
        if self._episode is not None:
            self._episode.note(rows)
        for key in pressed:
            what = self._hotkeys.index(key)
            if what == 0:
                self._end() if self._episode is not None else self._start()
            elif what == 1:
                self._discard()
            else:
                self._is_over = True
        episode = None if self._watch.state.missing else self._episode
        if not self._is_over and episode is not None:
            self._frame(episode)
        now = time.perf_counter()
        if now - self._shown >= 1 / _LINES_A_SECOND:
            self._shown = now
            self._show()
            if episode is None and self._watch.desktop.geometry(self._watch.window).state == "closed":
                self._stop("the window was closed")

    def _frame(self, episode: LiveEpisode) -> None:
        now, watch = time.perf_counter(), self._watch
        try:
            picture = watch.desktop.grab(watch.window, watch.region)
        except NotShown as error:
            if error.state == "closed":
                self._stop("the window was closed")
            else:
                say(self._console, f"the window is hidden, so the episode ends: {self._key(0)} starts the next")
                self._end()
            return
        episode.frame(now, now - self._moment, self._ticks.missed, picture)

    def _stop(self, why: str) -> None:
        say(self._console, f"{why}: the recording ends")
        self._is_over = True

    def _start(self) -> None:
        if self._count >= self._options.episodes:
            return
        attrs = {"player": "human", "label": "human", "game": str(self._options.game)}
        attrs |= {"recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self._episode = LiveEpisode(self._out, self._options.size, self._watch.fps, attrs, self._options.lossless)
        self._mine.append(self._episode.folder)
        self._ticks.restart()
        self._moment = time.perf_counter()
        self._watch.ignored, self._begun = 0, time.perf_counter()
        self._episode.note(self._watch.begin(self._begun, self._hotkeys))
        if missing := self._watch.state.missing:
            say(self._console, f"the episode begins once {', '.join(missing)} came to {self._options.state}")

    def _end(self) -> None:
        episode, self._episode = self._episode, None
        if episode is None:
            return
        seconds = time.perf_counter() - self._begun
        episode.close()
        rate = episode.frames / seconds if seconds else 0.0
        counts = f"{rate:.1f} frames/s, {episode.late} late, {episode.dropped} dropped"
        say(self._console, f"episode {self._count}: {episode.frames:,} frames, {counts}")
        if self._watch.ignored:
            ignored = f"{self._watch.ignored:,} presses and motions of programs were left out"
            say(self._console, f"{ignored}: --all-inputs records them, too")
        if self._binding is not None:
            self.finish_all()
        if self._count >= self._options.episodes:
            self._is_over = True
        self._ticks.restart()

    def _discard(self) -> None:
        """Drops the episode in progress, or between two episodes the one before."""
        if self._episode is not None:
            self._episode.discard()
            self._mine.remove(self._episode.folder)
            self._episode = None
        elif self._mine:
            shutil.rmtree(self._mine.pop())
        elif self._done:
            remove_episode(self._done.pop())
        else:
            return
        say(self._console, f"episode {self._count + 1} is discarded")
        self._ticks.restart()

    @property
    def _count(self) -> int:
        """How many episodes were begun and not discarded."""
        return len(self._done) + len(self._mine)

    def finish_all(self) -> None:
        """Makes episodes of all that was recorded, if it is known which buttons there are."""
        if self._binding is not None:
            for folder in live_leftovers(self._out):
                self._finish(folder, self._binding)

    def _finish(self, folder: Path, binding: Binding) -> None:
        is_mine = folder in self._mine
        unbound = binding.unbound(events_of(folder))
        try:
            attrs, names = {} if is_mine else {"recovered": True}, self._options.state_names
            episode = finish(folder, self._out, next_number(self._out), binding, names, attrs)
        except UserError as error:
            if is_mine:
                raise
            say(self._console, f"{folder.name}, which was cut off, cannot be finished: {error}; remove the folder")
            return
        if is_mine:
            self._mine.remove(folder)
        if episode is None:
            return
        if is_mine:
            self._done.append(episode)
        else:
            say(self._console, f"{episode.name} is what was left of a recording that was cut off")
        if unbound:
            keys = f"{', '.join(unbound)} pressed, for which this dataset has no button"
            say(self._console, f"{episode.name}: {keys}; 'convert --from events' makes other labels")

    def close(self) -> None:
        """Ends the episode in progress, and finishes all."""
        self._end()
        if self._binding is None and (folders := live_leftovers(self._out)):
            self._binding = Binding.auto([events_of(folder) for folder in folders])
            if not any(self._binding.names):
                say(self._console, "no key was pressed and the mouse was not moved: nothing can be labelled yet")
                return
            write_names(self._out, self._binding.names._replace(attributes=self._options.state_names))
            self.finish_all()
        said = f"recorded {len(self._done)} episodes into {self._out}" if self._done else "no episode was recorded"
        say(self._console, said)

    def _show(self) -> None:
        if self._console.is_terminal:
            self._line.update(Text(self._status(), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _status(self) -> str:
        episode, watch = self._episode, self._watch
        if episode is None:
            return f"waiting · {self._key(0)} starts episode {self._count + 1}"
        rate = episode.frames / max(time.perf_counter() - self._begun, 1e-9)
        counts = f"{episode.frames:,} frames · {rate:.1f} fps · {episode.late} late · {episode.dropped} dropped"
        if missing := watch.state.missing:
            return f"waiting for {', '.join(missing)} of the game's state"
        state = f"late: {', '.join(late)} · " if (late := watch.state.late) else ""
        held = " ".join(shown(button) for button in sorted(watch.down))
        held = held if watch.focused else "another window has the focus: nothing counts as pressed"
        return f"recording episode {self._count} · {counts} · {state}{held}"

    def _key(self, what: int) -> str:
        return shown(self._hotkeys[what])
