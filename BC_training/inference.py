"""Policy: from a checkpoint folder to buttons."""

from collections import deque
from pathlib import Path

import jax
import numpy as np

from BC_training.common import checkpoint
from BC_training.common.compilation_cache import use_compilation_cache
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, resize_frames
from BC_training.common.train_state import make_predict


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
        self._predict = make_predict(model.graphdef)
        self._recent: deque[np.ndarray] = deque(maxlen=self.inputs.window.span)  # resized frames of this episode

    @classmethod
    def load(cls, folder: str | Path) -> "Policy":
        """Loads a run's best checkpoint, or the one in ``folder`` itself.

        Raises:
            UserError: no checkpoint, damaged, or written by a newer version.
        """
        return cls(folder)

    def reset(self) -> None:
        """Starts an episode: frames seen before are forgotten."""
        self._recent.clear()

    def probabilities(self, frame: np.ndarray) -> np.ndarray:
        """float32 [A] in [0, 1]: how likely the recorded player holds each button.

        Frames are to be given in order, each once; the model's history is kept from one to the next.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
        """
        if frame.dtype != np.uint8 or frame.shape != (3, *self.inputs.recorded_size):
            raise UserError(
                f"the policy takes frames uint8 (3, {self.inputs.recorded_size[0]}, {self.inputs.recorded_size[1]}), "
                f"got {frame.dtype} {frame.shape}"
            )
        # A copy: the caller may capture the next frame into the same memory.
        self._recent.append(np.array(resize_frames(frame[None], self.inputs.frame_size)[0]))
        window, newest = self.inputs.window, len(self._recent) - 1
        ages = np.arange(window.history - 1, -1, -1) * window.frame_skip
        frames = np.stack([self._recent[max(newest - age, 0)] for age in ages])
        return np.asarray(jax.nn.sigmoid(self._predict(self._params, self._batch_stats, {"frames": frames[None]})[0]))

    def act(self, frame: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        """bool [A]: the buttons to hold, those at or above the checkpoint's threshold.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
            state: float32 [S], for variants that use it.
        """
        del state
        return self.probabilities(frame) >= self._threshold
