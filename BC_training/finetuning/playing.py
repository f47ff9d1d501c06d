"""Plays the games with the policy until the next update, and makes minibatches of what was played."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from BC_training.common.action import Action
from BC_training.finetuning.distribution import Choice
from BC_training.finetuning.experience import Experience, RewardScale, advantages
from BC_training.finetuning.game import Episode
from BC_training.finetuning.games import ParallelGames, Transition
from BC_training.finetuning.ppo import Played, make_act, make_look
from BC_training.finetuning.setup import Setup
from BC_training.training.train_state import TrainState

_RECENT = 100  # episodes whose mean score is shown


class Playing:
    """The games and what they showed; ``step`` fills it, ``minibatches`` gives it to the update.

    Attributes:
        finished: the episodes that ended since ``begin``.
        died: how many games died since then and were started again.
        waits: whether the game is a window that the policy waits for, as ``LiveGame`` has it.
        explained_variance: the share of the returns' variance that the value head foresaw, at most 1; below 0 it is
            worse than one value everywhere.
        seconds: since then "games" and "inference" took, of the main process's time.
        buttons, axis_bins, log_probabilities, values, rewards, ended: of each step of each game, [horizon, N, ...], and
            of values one more: the choice and its log probability, what the value head said before it, the reward that
            is learned from, and whether an episode ended.
    """

    def __init__(self, setup: Setup, games: ParallelGames, state: TrainState):
        options, network = setup.options, setup.network
        self._setup, self._games, self._network = setup, games, network
        self._bins = network.model.inputs.axis_bins
        self.experience = Experience(network.model.inputs, options.games, options.horizon)
        self._act = make_act(network, setup.config.system.seed)
        self._encode = jax.jit(network.encode)
        self._look = make_look(network)
        moments = np.asarray(state.opt_state["rewards"])
        self._scale = RewardScale(options.games, options.gamma, options.reward_clip, moments, options.reward_scale)
        shape = options.horizon, options.games
        inputs = network.model.inputs
        self.buttons = np.zeros((*shape, len(inputs.action_names)), bool)
        self.axis_bins = np.zeros((*shape, len(inputs.axis_names)), np.int32)
        self.log_probabilities, self.values = np.zeros(shape, np.float32), np.zeros((shape[0] + 1, shape[1]))
        self.rewards, self.ended = np.zeros(shape), np.zeros(shape, bool)
        self._recent: list[float] = []
        self._every_game = np.arange(options.games)
        first = games.start()
        self.experience.show(first.frames, first.states, np.ones(options.games, bool))

    def begin(self, state: TrainState) -> None:
        """Begins to play for the next update, by the policy of ``state``."""
        self.finished: list[Episode] = []
        self.died, self.waits, self.explained_variance = 0, False, 0.0
        self.seconds = {"games": 0.0, "inference": 0.0}
        self._policy = state.params, state.batch_stats, state.opt_state["value_head"]
        if self._games.are_live:  # they went on while it learned
            self._show_anew(self._games.look())
        elif self._network.is_streaming:  # the past as the new policy sees it
            history = self._network.model.inputs.window.action_history
            for row in range(history, self.experience.row + 1):
                self._encode_row(row)

    def step(self, number: int) -> None:
        """Plays a step of each game, if its window has the focus; ``number`` steps of all were played before."""
        row, at = self.experience.row, self.experience.row - self.experience.lead
        began = perf_counter()
        choice, log_probability, value = self._act(*self._policy, self._seen(row), np.int32(number))
        self.buttons[at], self.axis_bins[at] = np.asarray(choice.buttons), np.asarray(choice.bins)
        self.log_probabilities[at], self.values[at] = np.asarray(log_probability), np.asarray(value)
        actions = self._actions(at)
        between = perf_counter()
        shown = self._games.step(actions)
        after = perf_counter()
        self.seconds["games"] += after - between
        self.seconds["inference"] += between - began
        began_to_wait, self.waits = shown.waits and not self.waits, shown.waits
        if shown.waits:
            if began_to_wait and at and not self.ended[at - 1]:  # what happens meanwhile is not of the step before
                self.rewards[at - 1] += self._setup.options.gamma * self.values[at]
                self.ended[at - 1] = True
            self._show_anew(shown)
            return
        self.experience.act(actions)
        self.ended[at] = shown.terminated | shown.truncated
        rewards = self._scale(shown.rewards, self.ended[at]).astype(np.float64)
        if shown.last:  # of an episode that only time ended, more was to come
            rewards += self._setup.options.gamma * self._values_of(shown.last)
        self.rewards[at] = rewards
        self.experience.show(shown.frames, shown.states, self.ended[at])
        if self._network.is_streaming:
            self._encode_row(self.experience.row)
        self.finished += shown.finished
        self.died += len(shown.died)
        self._recent = [*self._recent, *(episode.score for episode in shown.finished)][-_RECENT:]
        self.seconds["inference"] += perf_counter() - after

    def rest(self) -> None:
        """Releases all in windows, which go on while nobody plays."""
        if self._games.are_live:
            self._games.rest()

    def _show_anew(self, shown: Transition) -> None:
        """Has the policy see this next, and nothing of before: it cannot know what happened between."""
        self.experience.show(shown.frames, shown.states, np.ones(len(self._every_game), bool))
        if self._network.is_streaming:
            self._encode_row(self.experience.row)

    @property
    def steps(self) -> int:
        """Steps of each game since ``begin``."""
        return self.experience.row - self.experience.lead

    @property
    def mean_score(self) -> float | None:
        """Of the last 100 episodes; None before the first has ended."""
        return float(np.mean(self._recent)) if self._recent else None

    @property
    def moments(self) -> np.ndarray:
        """``RewardScale.moments``."""
        return self._scale.moments

    def minibatches(self, clone: Any, seed: int) -> Iterator[tuple[Any, Any, Played]]:
        """The data, the places and the choices of each update's minibatch, in an order that follows from ``seed``."""
        options, experience = self._setup.options, self.experience
        self.rest()
        row = experience.row
        _, _, value = self._act(*self._policy, self._seen(row), np.int32(0))
        self.values[-1] = np.asarray(value)
        gains = advantages(self.rewards, self.values, self.ended, options.gamma, options.gae_lambda)
        returns = gains + self.values[:-1]
        self.explained_variance = float(1 - gains.var() / max(returns.var(), 1e-12))
        data = {"frames": jnp.asarray(experience.frames)}
        rng, parts = np.random.default_rng(seed), self._parts()
        of_clone = np.concatenate([self._clone_logits(clone, data, part) for part in parts])
        of_clone = of_clone[np.argsort(np.concatenate(parts))]
        for _ in range(options.epochs):
            for part in self._parts(rng):
                t, game = part // options.games, part % options.games
                choice = Choice(jnp.asarray(self.buttons[t, game]), jnp.asarray(self.axis_bins[t, game]))
                played = Played(
                    choice=choice,
                    log_probability=jnp.asarray(self.log_probabilities[t, game]),
                    advantage=jnp.asarray(gains[t, game], jnp.float32),
                    returns=jnp.asarray(returns[t, game], jnp.float32),
                    of_clone=jnp.asarray(of_clone[part]),
                )
                yield data, self._where(t, game), played

    def end(self) -> None:
        """Forgets what was learned from, but for the past that the policy still sees."""
        self.experience.roll()

    def _parts(self, rng: np.random.Generator | None = None) -> list[np.ndarray]:
        """The steps of all games, t * games + game, in equal parts; those of a policy that streams have whole games."""
        options = self._setup.options
        if self._network.is_streaming:
            order = np.arange(options.games) if rng is None else rng.permutation(options.games)
            steps = np.arange(options.horizon)[:, None] * options.games
            return [(steps + part).ravel() for part in np.split(order, options.minibatches)]
        order = np.arange(options.batch) if rng is None else rng.permutation(options.batch)
        return np.split(order, options.minibatches)

    def _clone_logits(self, clone: Any, data: Any, part: np.ndarray) -> np.ndarray:
        t, game = np.divmod(part, self._setup.options.games)
        _, stats, value = self._policy
        return np.asarray(self._look(clone, stats, value, data, self._where(t, game))[0])

    def _where(self, t: np.ndarray, game: np.ndarray) -> dict[str, jax.Array]:
        """The places of steps, as ``ppo.look`` takes them."""
        experience, rows = self.experience, t + self.experience.lead
        windows = experience.windows(rows, game)
        if not self._network.is_streaming:
            found = {"rows": windows, "games": game} | experience.observation(rows, game)
            return {name: jnp.asarray(part) for name, part in found.items()}
        # Every frame of these games is encoded once: row by row, for each game in turn.
        first = self._network.model.inputs.window.action_history
        games, count = np.unique(game), len(experience.frames) - 1 - first
        encoded = np.stack([np.repeat(np.arange(first, first + count), len(games)), np.tile(games, count)])
        rest = experience.observation(*encoded, single=True)
        of_game = np.searchsorted(games, game)
        found = {"encode": encoded, "rows": (windows - first) * len(games) + of_game[:, None]} | rest
        return {name: jnp.asarray(part) for name, part in found.items()}

    def _encode_row(self, row: int) -> None:
        experience = self.experience
        seen = experience.observation(np.full(len(self._every_game), row), self._every_game, single=True)
        features = np.asarray(self._encode(*self._policy[:2], {"frames": experience.frames[row][:, None]} | seen))
        if experience.features is None:
            experience.features = np.zeros((len(experience.frames), *features.shape), np.float32)
        experience.features[row] = features

    def _seen(self, row: int) -> Any:
        """What the policy sees at ``row`` of all games."""
        experience, rows = self.experience, np.full(len(self._every_game), row)
        windows = experience.windows(rows, self._every_game)
        if self._network.is_streaming:
            assert experience.features is not None
            return experience.features[windows, self._every_game[:, None]]
        frames = experience.frames[windows, self._every_game[:, None]]
        return {"frames": frames} | experience.observation(rows, self._every_game)

    def _actions(self, at: int) -> list[Action]:
        amounts = np.zeros((len(self._every_game), 0), np.float32)
        if self._bins is not None:
            of_bins = self._bins.amounts
            amounts = of_bins[np.arange(len(of_bins)), self.axis_bins[at]].astype(np.float32)
        return [Action.of(buttons, axes) for buttons, axes in zip(self.buttons[at], amounts, strict=True)]

    def _values_of(self, last: dict[int, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """float64 [N]: the values of where episodes were when their time was over, 0 for the other games.

        The next row is used for it, and then shown anew.
        """
        experience, row = self.experience, self.experience.row
        frames, states = experience.frames[row], experience.states[row]
        for game, (frame, state) in last.items():
            frames[game] = frame
            if self._network.model.inputs.window.state:
                states[game] = state
        experience.show(frames, states, np.zeros(len(self._every_game), bool))
        if self._network.is_streaming:
            self._encode_row(row)
        values = np.asarray(self._act(*self._policy, self._seen(row), np.int32(0))[2], np.float64)
        return np.where(np.isin(self._every_game, [*last]), values, 0.0)
