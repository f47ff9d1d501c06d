"""Policy: from a checkpoint folder to buttons."""

from collections import deque
from pathlib import Path

import jax
import numpy as np

from BC_training.common import checkpoint
from BC_training.common.compilation_cache import use_compilation_cache
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, resize_frames
from BC_training.common.train_state import make_predict, make_stream


class Policy:
    """Plays like the recording it was trained on.

        policy = Policy.load("BC_training/checkpoints/quickstart")
        policy.reset()
        buttons = policy.act(frame)

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
        window = self.inputs.window
        self._predict = make_predict(model.graphdef)
        self._encode, self._remember = make_stream(model.graphdef)
        # Of this episode: resized frames, or with a model that encodes each by itself, their features.
        self._recent: deque[np.ndarray] = deque(maxlen=window.span)
        self._pressed: deque[np.ndarray] = deque(maxlen=window.action_history)
        self.reset()

    @classmethod
    def load(cls, folder: str | Path) -> "Policy":
        """Loads a run's best checkpoint, or the one in ``folder`` itself.

        Raises:
            UserError: no checkpoint, damaged, or written by a newer version.
        """
        return cls(folder)

    def reset(self) -> None:
        """Starts an episode: frames seen and buttons pressed before are forgotten."""
        window = self.inputs.window
        self._recent.clear()
        self._pressed.extend([np.zeros(len(self.inputs.action_names), bool)] * window.action_history)

    def probabilities(self, frame: np.ndarray) -> np.ndarray:
        """float32 [A] in [0, 1]: how likely the recorded player holds each button.

        Frames are to be given in order, each once; the model's history is kept from one to the next.
        A model that takes previous actions knows those that ``act`` returned.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
        """
        if frame.dtype != np.uint8 or frame.shape != (3, *self.inputs.recorded_size):
            raise UserError(
                f"the policy takes frames uint8 (3, {self.inputs.recorded_size[0]}, {self.inputs.recorded_size[1]}), "
                f"got {frame.dtype} {frame.shape}"
            )
        window, model = self.inputs.window, (self._params, self._batch_stats)
        # A copy: the caller may capture the next frame into the same memory.
        frame = np.array(resize_frames(frame[None], self.inputs.frame_size)[0])
        before = {"previous_actions": np.stack(self._pressed)[None]} if window.action_history else {}
        if window.every_frame:
            seen = {"frames": frame[None, None]} | {name: values[None] for name, values in before.items()}
            self._recent.append(np.asarray(self._encode(*model, seen)))
        else:
            self._recent.append(frame)
        newest = len(self._recent) - 1
        ages = np.arange(window.history - 1, -1, -1) * window.frame_skip
        history = np.stack([self._recent[max(newest - age, 0)] for age in ages])
        if window.every_frame:
            logits = self._remember(*model, history)
        else:
            logits = self._predict(*model, {"frames": history[None]} | before)[0]
        return np.asarray(jax.nn.sigmoid(logits))

    def act(self, frame: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        """bool [A]: the buttons to hold, those at or above the checkpoint's threshold.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
            state: float32 [S], for variants that use it.
        """
        del state
        pressed = self.probabilities(frame) >= self._threshold
        self._pressed.append(pressed)
        return pressed
