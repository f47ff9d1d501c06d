"""Policy: from a checkpoint folder to buttons."""

from collections import deque
from pathlib import Path

import jax
import numpy as np

from BC_training.common import checkpoint
from BC_training.common.compilation_cache import use_compilation_cache
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, resize_frames
from BC_training.common.state import ChangeCounter
from BC_training.common.train_state import make_predict


class Policy:
    """Plays like the recording it was trained on.

        policy = Policy.load("BC_training/checkpoints/quickstart")
        policy.reset()
        buttons = policy.act(frame)          # or policy.act(frame, state)

    Attributes:
        inputs: what it sees and presses.
    """

    def __init__(self, path: str | Path):
        use_compilation_cache()
        saved = checkpoint.read(path)
        model = checkpoint.read_model(saved)
        self.inputs: InputSpec = saved.inputs
        self._threshold = saved.threshold
        self._params, self._batch_stats = model.params, model.batch_stats
        self._predict = make_predict(model)
        # Of this episode, what the model sees of each frame: "frames" resized, "state", "since_change".
        self._recent: deque[dict[str, np.ndarray]] = deque(maxlen=self.inputs.window.span)
        self._changes = ChangeCounter()

    @classmethod
    def load(cls, folder: str | Path) -> "Policy":
        """Loads a run's best checkpoint, or the one in ``folder`` itself.

        Raises:
            UserError: no checkpoint, damaged, or written by a newer version.
        """
        return cls(folder)

    def reset(self) -> None:
        """Starts an episode: what was seen before is forgotten."""
        self._recent.clear()
        self._changes = ChangeCounter()

    def probabilities(self, frame: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        """float32 [A] in [0, 1]: how likely the recorded player holds each button.

        Frames are to be given in order, each once; the model's history is kept from one to the next.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
            state: float32 [S], the values of ``inputs.state_names``; ignored if the model sees none.

        Raises:
            UserError: not such a frame or state.
        """
        if frame.dtype != np.uint8 or frame.shape != (3, *self.inputs.recorded_size):
            raise UserError(
                f"the policy takes frames uint8 (3, {self.inputs.recorded_size[0]}, {self.inputs.recorded_size[1]}), "
                f"got {frame.dtype} {frame.shape}"
            )
        window = self.inputs.window
        # Copies: the caller may capture the next frame into the same memory.
        seen = {"state": self._checked(state)} if window.state else {}
        seen["frames"] = np.array(resize_frames(frame[None], self.inputs.frame_size)[0])
        if window.since_change:
            values = seen["state"][[self.inputs.state_names.index(name) for name in window.since_change]]
            seen["since_change"] = self._changes.count(values)
        self._recent.append(seen)
        newest, ages = len(self._recent) - 1, np.arange(window.history - 1, -1, -1) * window.frame_skip
        past = [self._recent[max(newest - age, 0)] for age in ages]
        observation = {name: np.stack([then[name] for then in past])[None] for name in seen}
        return np.asarray(jax.nn.sigmoid(self._predict(self._params, self._batch_stats, observation)[0]))

    def act(self, frame: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        """bool [A]: the buttons to hold, those at or above the checkpoint's threshold.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
            state: float32 [S], for a model that sees it; see ``probabilities``.
        """
        return self.probabilities(frame, state) >= self._threshold

    def _checked(self, state: np.ndarray | None) -> np.ndarray:
        """A copy of a state, float32 [S].

        Raises:
            UserError: it is missing, of another shape, or not finite where the model looks.
        """
        names = self.inputs.state_names
        takes = f"the policy takes a state float32 ({len(names)},) of {', '.join(names)}"
        if state is None:
            raise UserError(f"{takes}, got none: call act(frame, state)")
        if np.shape(state) != (len(names),) or not np.can_cast(np.asarray(state).dtype, np.float32, "same_kind"):
            raise UserError(f"{takes}, got {np.asarray(state).dtype} {np.shape(state)}")
        values = np.array(state, np.float32)
        used = names if self.inputs.state is None else self.inputs.state.config.names
        for name in used:
            if not np.isfinite(value := values[names.index(name)]):
                raise UserError(f"the policy takes finite state values, got '{name}' {value}")
        return values
