"""Policy: from a checkpoint folder to buttons."""

from pathlib import Path

import jax
import numpy as np

from BC_training.common import checkpoint
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
        saved = checkpoint.read(path)
        model = checkpoint.read_model(saved)
        self.inputs: InputSpec = saved.inputs
        self._threshold = saved.threshold
        self._params, self._batch_stats = model.params, model.batch_stats
        self._predict = make_predict(model.graphdef)

    @classmethod
    def load(cls, folder: str | Path) -> "Policy":
        """Loads a run's best checkpoint, or the one in ``folder`` itself.

        Raises:
            UserError: no checkpoint, damaged, or written by a newer version.
        """
        return cls(folder)

    def reset(self) -> None:
        """Starts an episode. (PureCNN keeps nothing from frame to frame.)"""

    def probabilities(self, frame: np.ndarray) -> np.ndarray:
        """float32 [A] in [0, 1]: how likely the recorded player holds each button now.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
        """
        if frame.dtype != np.uint8 or frame.shape != (3, *self.inputs.recorded_size):
            raise UserError(
                f"the policy takes frames uint8 (3, {self.inputs.recorded_size[0]}, {self.inputs.recorded_size[1]}), "
                f"got {frame.dtype} {frame.shape}"
            )
        resized = resize_frames(frame[None], self.inputs.frame_size)
        return np.asarray(jax.nn.sigmoid(self._predict(self._params, self._batch_stats, resized)[0]))

    def act(self, frame: np.ndarray, state: np.ndarray | None = None) -> np.ndarray:
        """bool [A]: the buttons to hold, those at or above the checkpoint's threshold.

        Args:
            frame: uint8 [3, H, W] RGB, of the recording's size.
            state: float32 [S], for variants that use it.
        """
        del state
        return self.probabilities(frame) >= self._threshold
