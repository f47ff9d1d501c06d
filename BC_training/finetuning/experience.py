"""What N games showed and the policy did, until the next update, with as much of the past as the policy sees."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from BC_training.common.action import Action, at_rest
from BC_training.common.axes import squeezed_actions
from BC_training.common.preprocess import InputSpec


class Experience:
    """Rows of N games: ``lead`` of the past, then ``horizon`` in which the policy acts, and one that only follows.

    Attributes:
        frames: uint8 [rows, N, 3, h, w].
        states: float32 [rows, N, S], of a policy that sees it.
        since_change: float32 [rows, N, C], frames since each of ``Window.since_change`` last changed.
        done: what was done in each row, as a model sees previous actions, [rows, N, A + X].
        features: float32 [rows, N, F] of a policy that streams, else None.
        begins: int64 [rows, N], the row in which the row's episode began, or 0 where that is earlier.
        row: the row that the policy sees next.
    """

    def __init__(self, inputs: InputSpec, games: int, horizon: int):
        window = inputs.window
        self.inputs, self.games, self.horizon = inputs, games, horizon
        # The oldest frame of a history may have previous actions of its own.
        self.lead = window.span - 1 + window.action_history
        rows = self.lead + horizon + 1
        self.frames = np.zeros((rows, games, *inputs.frame_shape), np.uint8)
        self.states = np.zeros((rows, games, len(inputs.state_names) if window.state else 0), np.float32)
        self.since_change = np.zeros((rows, games, len(window.since_change)), np.float32)
        rest = at_rest(len(inputs.action_names), len(inputs.axis_names))
        self._rest = np.array(squeezed_actions(*rest, inputs.axis_bins))
        self.done = np.tile(self._rest, (rows, games, 1))
        self.features: np.ndarray | None = None
        self.begins = np.zeros((rows, games), np.int64)
        self._columns = [inputs.state_names.index(name) for name in window.since_change]
        self.row = self.lead

    def show(self, frames: np.ndarray, states: np.ndarray, is_new: Bool[np.ndarray, " N"]) -> None:
        """Fills the row that the policy sees next; ``is_new`` where an episode begins."""
        row = self.row
        self.frames[row] = frames
        if self.inputs.window.state:
            self.states[row] = states
        self.begins[row] = np.where(is_new, row, self.begins[row - 1] if row else 0)
        if self._columns:
            before, now = self.states[row - 1][:, self._columns], self.states[row][:, self._columns]
            counted = np.where(now == before, self.since_change[row - 1] + 1, 0)
            self.since_change[row] = np.where(is_new[:, None], 0, counted)

    def act(self, actions: Sequence[Action]) -> None:
        """Notes what was done in the row, and goes to the next."""
        bins = self.inputs.axis_bins
        self.done[self.row] = [squeezed_actions(action.buttons, action.axes, bins) for action in actions]
        self.row += 1

    def windows(self, rows: Int64[np.ndarray, " B"], games: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, "B T"]:
        """The rows of the history at each row; an episode's first frame stands in for those before it."""
        window = self.inputs.window
        ages = np.arange(window.history - 1, -1, -1) * window.frame_skip
        return np.maximum(rows[:, None] - ages, self.begins[rows, games][:, None])

    def observation(
        self, rows: Int64[np.ndarray, " B"], games: Int64[np.ndarray, " B"], *, single: bool = False
    ) -> dict[str, np.ndarray]:
        """What the policy sees at ``rows`` of ``games``, as ``preprocess.OBSERVATION`` names it, but for the frames.

        ``single`` takes the one frame of each row, not its history.
        """
        window = self.inputs.window
        history = rows[:, None] if single else self.windows(rows, games)
        seen: dict[str, np.ndarray] = {}
        if window.state:
            seen["state"] = self.states[history, games[:, None]]
        if window.since_change:
            seen["since_change"] = self.since_change[history, games[:, None]]
        if window.action_history:
            before = rows[:, None] - np.arange(window.action_history, 0, -1)
            is_there = before >= self.begins[rows, games][:, None]
            done = np.where(is_there[..., None], self.done[np.maximum(before, 0), games[:, None]], self._rest)
            seen["previous_actions"] = done[:, None] if single else done
        return seen

    def roll(self) -> None:
        """Makes the last rows the past of the next update; the row that followed is seen again."""
        kept = self.lead + 1
        moved = len(self.frames) - kept
        for rows in (self.frames, self.states, self.since_change, self.done, self.features):
            if rows is not None:
                rows[:kept] = rows[moved:].copy()
        self.begins[:kept] = np.maximum(self.begins[moved:] - moved, 0)
        self.row = self.lead


def advantages(
    rewards: Float[np.ndarray, "H N"],
    values: Float[np.ndarray, "H+1 N"],
    ended: Bool[np.ndarray, "H N"],
    gamma: float,
    gae_lambda: float,
) -> Float64[np.ndarray, "H N"]:
    """Generalised advantage estimates (Schulman et al. 2016).

    Args:
        rewards: of each step; of one that a time limit ended also gamma times the value of where it ended.
        values: of what was seen before each step, and after the last.
        ended: whether an episode ended with the step, so that nothing of the next one counts.
    """
    found, following = np.zeros(rewards.shape), np.zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        goes_on = 1.0 - ended[t]
        surprise = rewards[t] + gamma * goes_on * values[t + 1] - values[t]
        found[t] = following = surprise + gamma * gae_lambda * goes_on * following
    return found


class RewardScale:
    """Divides rewards by ``fixed`` or by the standard deviation of their discounted sums, as they come to be known.

    The mean stays: only a reward of 0 is then 0. After "The 37 Implementation Details of PPO" (Huang et al. 2022). As
    what comes to be known changes what the value head has learned, a fixed scale is better where one is known.

    Attributes:
        moments: float64 [3], the count, the mean and the variance of the sums so far; a resumed run goes on with it.
    """

    START = (1e-4, 0.0, 1.0)

    def __init__(
        self,
        games: int,
        gamma: float,
        clip: float,
        moments: Sequence[float] | np.ndarray = START,
        fixed: float | None = None,
    ):
        self._sums, self._gamma, self._clip, self._fixed = np.zeros(games), gamma, clip, fixed
        self.moments = np.array(moments, np.float64)

    def __call__(self, rewards: Float[np.ndarray, " N"], ended: Bool[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        """The rewards of a step of each game, scaled and clipped."""
        self._sums = self._sums * self._gamma + rewards
        count, mean, variance = self.moments
        new, of_batch = len(rewards), self._sums.mean()
        total, apart = count + new, of_batch - mean
        squares = variance * count + self._sums.var() * new + apart**2 * count * new / total
        self.moments = np.array([total, mean + apart * new / total, squares / total])
        self._sums[ended] = 0
        scale = self._fixed or np.sqrt(self.moments[2] + 1e-8)
        return np.clip(rewards / scale, -self._clip, self._clip).astype(np.float32)
