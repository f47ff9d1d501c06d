"""Policy: from a checkpoint folder to actions."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from BC_training.common.action import Action, at_rest
from BC_training.common.axes import squeezed_actions
from BC_training.common.decode import Decoding
from BC_training.common.decoder import Decoder
from BC_training.common.errors import UserError, first_line
from BC_training.common.preprocess import InputSpec, resize_frames
from BC_training.common.state import ChangeCounter
from BC_training.runtime.compilation_cache import use_compilation_cache
from BC_training.training import checkpoint
from BC_training.training.train_state import make_predict, make_stream


class Policy:
    """Plays like the recording it was trained on.

        policy = Policy.load("BC_training/checkpoints/quickstart")
        policy.reset()
        buttons, axes = policy.act(frame)          # or policy.act(frame, state)

    Attributes:
        inputs: what it sees and presses.
        decoding: how its probabilities become buttons.
        last_probabilities: float32 [A], from the last frame that it saw.
        last_axis_logits: float32 [X, bins], likewise.
    """

    def __init__(self, path: str | Path, decoding: Decoding | None = None):
        use_compilation_cache()
        saved = checkpoint.read(path)
        model = checkpoint.read_model(saved)
        self.inputs: InputSpec = saved.inputs
        self.decoding = saved.decoding if decoding is None else decoding
        names = self.inputs.action_names
        if tuple(self.decoding.thresholds) != names:
            raise UserError(
                f"the decoding is of {', '.join(self.decoding.thresholds)}; the policy presses {', '.join(names)}: "
                "give each its threshold, in this order"
            )
        self._decoder = Decoder(self.decoding, self.inputs.axis_bins)
        self._params, self._batch_stats = model.params, model.batch_stats
        window = self.inputs.window
        self._predict = make_predict(model)
        self._encode, self._remember = make_stream(model)
        # The parts of each past frame that the model sees: "frames" (resized), "state" and "since_change", or only
        # "features" where the model encodes each frame by itself.
        self._recent: deque[dict[str, np.ndarray]] = deque(maxlen=window.span)
        self._done: deque[np.ndarray] = deque(maxlen=window.action_history)
        self.reset()

    @classmethod
    def load(cls, folder: str | Path, decoding: Decoding | None = None) -> "Policy":
        """Loads a run's best checkpoint, or the one in ``folder`` itself.

        Args:
            decoding: replaces the checkpoint's; for the same buttons.

        Raises:
            UserError: no checkpoint, a damaged one or one of a newer version; or a decoding of other buttons.
        """
        return cls(folder, decoding)

    def reset(self, seed: int = 0) -> None:
        """Starts an episode and forgets the last; ``seed``, 0 or more, matters where buttons are sampled."""
        self._decoder.reset(seed)
        self.last_probabilities = np.zeros(len(self.inputs.action_names), np.float32)
        self._recent.clear()
        self._changes = ChangeCounter()
        rest = at_rest(len(self.inputs.action_names), len(self.inputs.axis_names))
        self._done.extend([self._squeezed(rest)] * self.inputs.window.action_history)
        self.last_axis_logits = np.zeros((len(self.inputs.axis_names), 0), np.float32)

    def probabilities(self, frame: Any, state: Any = None) -> np.ndarray:
        """float32 [A] in [0, 1]: how likely the recorded player holds each button.

        ``last_axis_logits`` has what the model says of the axes.

        Give each frame once and in order, because the history is kept. A model that takes previous actions knows
        those that ``act`` returned.

        Args:
            frame: uint8 [3, H, W] RGB of the recording's size, a Pillow image, or what NumPy makes such an array of.
            state: float32 [S], the values of ``inputs.state_names``, or a dict of them; ignored if the model sees none.

        Raises:
            UserError: the frame or state is not like that.
        """
        frame = self._checked_frame(frame)
        window, model = self.inputs.window, (self._params, self._batch_stats)
        # Copies: the caller may capture the next frame into the same memory.
        seen = {"state": self._checked_state(state)} if window.state else {}
        seen["frames"] = np.array(resize_frames(frame[None], self.inputs.frame_size)[0])
        if window.since_change:
            values = seen["state"][[self.inputs.state_names.index(name) for name in window.since_change]]
            seen["since_change"] = self._changes.count(values)
        before = {"previous_actions": np.stack(self._done)[None]} if window.action_history else {}
        if window.every_frame:
            now = {name: values[None, None] for name, values in seen.items()}
            now |= {name: values[None] for name, values in before.items()}
            seen = {"features": np.asarray(self._encode(*model, now))}
        self._recent.append(seen)
        newest, ages = len(self._recent) - 1, np.arange(window.history - 1, -1, -1) * window.frame_skip
        past = [self._recent[max(newest - age, 0)] for age in ages]
        history = {name: np.stack([then[name] for then in past])[None] for name in seen}
        if window.every_frame:
            logits = self._remember(*model, history["features"])
        else:
            logits = self._predict(*model, history | before)
        if not self.inputs.axis_names:
            self.last_probabilities = np.asarray(jax.nn.sigmoid(logits[0]))
            return self.last_probabilities
        buttons, self.last_axis_logits = self.inputs.split_logits(np.asarray(logits[0]))
        self.last_probabilities = np.asarray(jax.nn.sigmoid(buttons))
        return self.last_probabilities

    def act(self, frame: Any, state: Any = None) -> Action:
        """The buttons to hold and the amounts of the axes, by the rules of ``decoding``.

        See ``probabilities`` for the rest.
        """
        probabilities, axes = self.probabilities(frame, state), np.zeros(0, np.float32)
        if self.inputs.axis_names:
            axes = self._decoder.move(self.last_axis_logits)
        action = Action(self._decoder(probabilities), axes)
        self._done.append(self._squeezed(action))
        return action

    def override(self, action: Action) -> None:
        """Has a model that takes previous actions remember ``action``, not what ``act`` has just returned.

        On recordings it is the recorded player who acts.
        """
        if self._done:
            self._done[-1] = self._squeezed(action)

    def _squeezed(self, action: Action) -> np.ndarray:
        """A copy, as the model sees it: the caller may change what it gets."""
        return np.array(squeezed_actions(*action, self.inputs.axis_bins))

    @property
    def thresholds(self) -> np.ndarray:
        """float32 [A]: the lowest probability at which each button is pressed."""
        return np.array([self.decoding.thresholds[name] for name in self.inputs.action_names], np.float32)

    def _checked_frame(self, given: Any) -> np.ndarray:
        height, width = self.inputs.recorded_size
        takes = f"the policy takes frames uint8 (3, {height}, {width}) of RGB"
        if isinstance(given, Image.Image):
            given = np.moveaxis(np.asarray(given.convert("RGB")), -1, 0)
        frame = _as_array(given, takes)
        if frame.dtype.kind in "iu" and frame.size and frame.min() >= 0 and frame.max() <= 255:
            frame = frame.astype(np.uint8, copy=False)
        if frame.dtype != np.uint8 or frame.shape != (3, height, width):
            hint = ""
            if frame.shape == (height, width, 3):
                hint = "; give frame.transpose(2, 0, 1), the colours first"
            elif frame.dtype.kind == "f":
                hint = "; give integers from 0 to 255"
            raise UserError(f"{takes}, got {frame.dtype} {frame.shape}{hint}")
        return frame

    def _checked_state(self, state: Any) -> np.ndarray:
        """A copy as float32 [S], which must be finite where the model looks."""
        names = self.inputs.state_names
        takes = f"the policy takes a state float32 ({len(names)},) of {', '.join(names)}"
        if state is None:
            raise UserError(f"{takes}, got none: call act(frame, state)")
        if isinstance(state, Mapping):
            if odd := sorted(map(str, state.keys() ^ set(names))):
                fault = "is missing" if odd[0] in names else "is none of them"
                raise UserError(f"{takes}, got a table in which '{odd[0]}' {fault}")
            state = [state[name] for name in names]
        state = _as_array(state, takes)
        if np.shape(state) != (len(names),) or not np.can_cast(np.asarray(state).dtype, np.float32, "same_kind"):
            raise UserError(f"{takes}, got {np.asarray(state).dtype} {np.shape(state)}")
        values = np.array(state, np.float32)
        for name in names if self.inputs.state is None else self.inputs.state.config.names:
            if not np.isfinite(value := values[names.index(name)]):
                raise UserError(f"the policy takes finite state values, got '{name}' {value}")
        return values


def _as_array(given: Any, takes: str) -> np.ndarray:
    """A list, or an array of another library, as NumPy's."""
    try:
        return np.asarray(given)
    except Exception as error:  # other libraries raise anything: PyTorch a TypeError for a tensor on a GPU
        raise UserError(f"{takes}, got {type(given).__name__}, which is no array ({first_line(error)})") from error
