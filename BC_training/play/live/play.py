"""A policy plays a program in a window of this desktop, beside a person who may take over."""

import contextlib
import json
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console

from BC_training.common.action import Action, at_rest
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, require_writable, write_whole
from BC_training.common.keybinds.button_names import Button, button_of, shown
from BC_training.common.storage.metadata import HUMAN_FRAMES
from BC_training.common.storage.writer import next_number, recording
from BC_training.games.window.clock import Ticks
from BC_training.games.window.desktop import InputEvent, NotShown, Region, WindowQuery
from BC_training.games.window.game import letterboxed
from BC_training.games.window.hands import Hands
from BC_training.games.window.platform import end_is_user_error, open_desktop
from BC_training.play.human.session import ranges
from BC_training.play.live.episode import LiveEpisode, finish
from BC_training.play.live.labels import AUTO, Binding
from BC_training.play.live.options import PlayOptions, denied_columns
from BC_training.play.live.played import STAGES, Played
from BC_training.play.live.recorder import hotkey_buttons
from BC_training.play.live.state import GameState, names_for
from BC_training.play.live.watch import Watch
from BC_training.play.policy import Policy
from BC_training.play.say import say
from BC_training.runtime.workers import closing_on_sigterm

_CONTROL_SECONDS = 1.0  # a person who took over without a key keeps control so long after their last press or motion
_SHAKE = 10  # counts in a frame that a mouse may move without taking over


def play_window(checkpoint: str, options: PlayOptions, console: Console) -> Played:
    """Lets a policy play until it is ended by the hotkey, the window is closed, or the seconds are over.

    It begins with the first hotkey, and plays only while the window has the focus. Whatever ends it, all keys and
    buttons are released.

    Raises:
        UserError: no such window, a checkpoint that does not load, needs a state that nobody sends, or has
            buttons that nothing presses.
    """
    policy, arguments = Policy.load(checkpoint), options.game.arguments
    if options.decode:
        policy = Policy.load(checkpoint, policy.decoding.override(options.decode))
    binding, state_names = policy_binding(policy, options), names_for(policy.inputs, options.state)
    hotkeys = hotkey_buttons(options.hotkeys, binding)
    takeover = None if options.takeover is None else _takeover_key(options.takeover, binding, hotkeys)
    if options.json_file is not None:
        require_writable(options.json_file)
    with contextlib.ExitStack() as stack:
        stack.enter_context(closing_on_sigterm())
        state = GameState(options.state, state_names, lambda line: say(console, line))
        stack.enter_context(contextlib.closing(state))
        desktop = stack.enter_context(contextlib.closing(open_desktop()))
        stack.enter_context(end_is_user_error())
        window = desktop.find(WindowQuery.parse(options.game.name))
        region = Region.parse(arguments["region"]) if arguments["region"] else None
        desktop.grab(window.id, region)
        if options.record is not None:
            stack.enter_context(recording(options.record, binding.names._replace(attributes=state_names)))
            stack.enter_context(disk_full_is_user_error(options.record))
        desktop.grab_hotkeys([shown(key) for key in hotkeys])
        from BC_training.play.live.pads import Pads  # here: a second to import

        pads = stack.enter_context(contextlib.closing(Pads(hotplug=False)))
        watch = Watch(desktop, window.id, region, arguments["fps"], pads, state)
        start, _, end = map(shown, hotkeys)
        say(console, f"{window}: {start} lets the policy play and pauses it, {end} ends this")
        game = _Play(checkpoint, policy, options, binding, hotkeys, takeover, watch, lambda line: say(console, line))
        try:
            game.run()
        finally:
            game.close()
    game.played.print(console)
    if options.json_file is not None:
        write_whole(options.json_file, json.dumps(game.played.to_dict(), indent=2) + "\n")
    return game.played


def policy_binding(policy: Policy, options: PlayOptions) -> Binding:
    """What presses the policy's buttons and moves its axes; a UserError where nothing does."""
    inputs = policy.inputs
    if options.keybinds == AUTO:
        return Binding.of_names(inputs.action_names, inputs.axis_names, "the policy")
    binding = Binding.from_file(options.keybinds)
    for kind, wanted, bound in (
        ("button", inputs.action_names, binding.buttons),
        ("axis", inputs.axis_names, binding.axes),
    ):
        if missing := [name for name in wanted if name not in bound]:
            raise UserError(f"{options.keybinds} binds nothing to the policy's {kind} '{missing[0]}': add it")
    return binding


def nothing_seen(policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """A black frame and a state of zeros."""
    inputs = policy.inputs
    return np.zeros((3, *inputs.recorded_size), np.uint8), np.zeros(len(inputs.state_names), np.float32)


def _takeover_key(name: str, binding: Binding, hotkeys: list[Button]) -> Button:
    key = button_of("key", name)
    if key is None or key in hotkeys or key in binding.keys.columns:
        raise UserError(f"--takeover {name}: name a key that neither the game nor a hotkey uses, such as RCTRL")
    return key


class _Play:
    """The loop: capture, decide, inject, at each moment of the clock."""

    def __init__(
        self,
        checkpoint: str,
        policy: Policy,
        options: PlayOptions,
        binding: Binding,
        hotkeys: list[Button],
        takeover: Button | None,
        watch: Watch,
        tell: Callable[[str], None],
    ):
        self._checkpoint, self._policy, self._options, self._binding = checkpoint, policy, options, binding
        self._hotkeys, self._takeover, self._watch, self._tell = hotkeys, takeover, watch, tell
        self._hands = Hands(watch.desktop, watch.window, binding.keys, binding.buttons, binding.axes)
        self._ticks, self.played = Ticks(watch.fps), Played(watch.fps)
        self._columns = [binding.buttons.index(name) for name in policy.inputs.action_names]
        self._axes = [binding.axes.index(name) for name in policy.inputs.axis_names]
        self._denied = denied_columns(binding.keys) if options.keybinds == AUTO else []
        self._episode: LiveEpisode | None = None
        self._corrected: list[bool] = []  # of each frame of the episode, whether the person alone acted in it
        self._is_on = self._is_over = self._was_away = False
        self._down: set[Button] = set()  # by the person, now
        self._pressed: set[Button] = set()  # likewise, at any time since the frame before
        self._human_until = 0.0

    def run(self) -> None:
        self._policy.act(*nothing_seen(self._policy))  # compiles
        self._ticks.restart()
        while not self._is_over:
            self._ticks.wait()
            moment = time.perf_counter() - self._ticks.late
            rows, pressed = self._watch.look(True, self._hotkeys)
            by_person = self._is_by_person()
            if self._episode is not None:
                self._episode.note(rows)
            for key in pressed:
                self._command(self._hotkeys.index(key))
            if self._is_on and not self._is_over and self._is_here() and not self._watch.state.missing:
                self._frame(moment, by_person)
            elif self._watch.desktop.geometry(self._watch.window).state == "closed":
                self._is_over = True
            if self._options.seconds is not None and self.played.seconds >= self._options.seconds:
                self._is_over = True

    def _is_here(self) -> bool:
        """Whether the window has the focus; without it all is released, and the policy begins anew when it is back."""
        if not self._watch.focused:
            self._hands.rest()
        elif self._was_away:
            self._policy.reset()
        self._was_away = not self._watch.focused
        return self._watch.focused

    def _command(self, which: int) -> None:
        if which == 2:
            self._is_over = True
        elif which == 1:
            episode, self._episode = self._episode, None
            if episode is not None:
                episode.discard()
                self._tell("the episode is discarded")
            self._pause()
        elif self._is_on:
            self._pause()
        else:
            self._start()

    def _start(self) -> None:
        self._is_on = True
        self._policy.reset()
        self._ticks.restart()
        if (out := self._options.record) is not None:
            attrs = {"player": self._checkpoint, "label": "human", "game": str(self._options.game)}
            # A policy's own play is no example, also where a kill leaves an episode unfinished.
            attrs |= {HUMAN_FRAMES: []}
            size = self._policy.inputs.recorded_size
            self._episode, self._corrected = LiveEpisode(out, size, self._watch.fps, attrs, False), []
            self._episode.note(self._watch.begin(time.perf_counter(), self._hotkeys))
        if missing := self._watch.state.missing:
            self._tell(f"the policy plays once {', '.join(missing)} came to {self._options.state}")

    def _pause(self) -> None:
        self._is_on = False
        self._hands.rest()
        episode, self._episode = self._episode, None
        if episode is None or (out := self._options.record) is None:
            return
        episode.close()
        attrs, names = {HUMAN_FRAMES: ranges(self._corrected)}, self._watch.state.names
        if (folder := finish(episode.folder, out, next_number(out), self._binding, names, attrs)) is not None:
            self._tell(f"{folder.name}: {episode.frames:,} frames, {sum(self._corrected):,} of them by the person")

    def _frame(self, moment: float, by_person: bool) -> None:
        watch, played, episode = self._watch, self.played, self._episode
        begun = time.perf_counter()
        try:
            picture = watch.desktop.grab(watch.window, watch.region)
        except NotShown as error:
            self._tell(f"the window is {error.state}: the policy rests")
            self._is_over = error.state == "closed"
            self._pause()
            return
        frame = letterboxed(picture, self._policy.inputs.recorded_size)
        seen = time.perf_counter()
        action = self._policy.act(frame, watch.state.values if watch.state.names else None)
        decided = time.perf_counter()
        if by_person:
            self._hands.rest()
            self._policy.override(self._done_by_person())
        else:
            self._hands.do(self._spread(action))
        done = time.perf_counter()
        if episode is not None:
            frames = episode.frames
            episode.frame(begun, begun - moment, self._ticks.missed, picture)
            # The frame in which the person takes over is the policy's, too: its keys were still down.
            took_over = by_person and not (played.by_person and played.by_person[-1])
            self._corrected += [by_person and not took_over] * (episode.frames - frames)
        played.frames, played.missed = played.frames + 1, played.missed + self._ticks.missed
        played.seconds += (1 + self._ticks.missed) / watch.fps
        played.late += done - moment > 1 / watch.fps
        played.late_state += bool(watch.state.late)
        played.by_person.append(by_person)
        for stage, seconds in zip(STAGES, (seen - begun, decided - seen, done - decided, done - moment), strict=True):
            played.times[stage].append(1000 * seconds)

    def _spread(self, action: Action) -> Action:
        """The action in the columns of the keybinds, without what is denied."""
        whole = at_rest(len(self._binding.buttons), len(self._binding.axes))
        whole.buttons[self._columns], whole.axes[self._axes] = action.buttons, action.axes
        whole.buttons[self._denied] = False
        return whole

    def _is_by_person(self) -> bool:
        """Whether the person plays in this frame."""
        if not self._watch.focused:
            self._down, self._pressed = set(), set()
            return False
        self._pressed = set(self._down)
        for event in filter(self._is_person, self._watch.happened):
            if event.button is not None and event.kind in ("press", "wheel"):
                self._pressed.add(event.button)
            if event.button is not None and event.kind in ("press", "release"):
                (self._down.add if event.kind == "press" else self._down.discard)(event.button)
        if self._takeover is not None:
            return self._takeover in self._pressed
        keys = self._binding.keys
        acted = any(keys.same_key.get(button, button) in keys.columns for button in self._pressed)
        if acted or sum(map(abs, self._motion())) > _SHAKE:
            self._human_until = time.perf_counter() + _CONTROL_SECONDS
        return time.perf_counter() < self._human_until

    def _motion(self) -> tuple[float, float]:
        """The counts by which the person moved the mouse, where the game has an axis for it."""
        motion = [e for e in self._watch.happened if e.kind == "motion" and self._is_person(e)]
        used = {axis.mouse for axis in self._binding.keys.axes}
        return (sum(e.x for e in motion) if 0 in used else 0.0), (sum(e.y for e in motion) if 1 in used else 0.0)

    def _is_person(self, event: InputEvent) -> bool:
        return event.source == "device" or (event.source == "program" and self._options.all_inputs)

    def _done_by_person(self) -> Action:
        """What the person does, for a policy that knows its previous actions."""
        keys, buttons = self._binding.keys, len(self._binding.buttons)
        columns = {keys.columns.get(keys.same_key.get(button, button)) for button in self._pressed}
        held = np.array([column in columns for column in self._columns], bool)
        counts, axes = self._motion(), []
        for x in self._axes:
            bind, less = keys.axes[x], buttons + 2 * x
            amount = bind.amount * ((less + 1 in columns) - (less in columns))
            axes.append(amount + (0.0 if bind.mouse is None else counts[bind.mouse] / bind.counts))
        return Action.of(held, np.array(axes, np.float32))

    def close(self) -> None:
        self._pause()
