"""The configuration's section on fine-tuning in play."""

from dataclasses import dataclass
from typing import Literal

from BC_training.common.errors import UserError, require, require_at_least
from BC_training.common.files import expand_fields
from BC_training.common.settings.evaluation import SEEDS
from BC_training.common.settings.rules import FREE, ON_REQUEST, setting
from BC_training.common.settings.state import build_section


@dataclass(frozen=True)
class StageConfig:
    """A game that is played before others."""

    game: str  # its spec
    until: int  # agent steps

    def __post_init__(self) -> None:
        require(isinstance(self.game, str), "finetune.curriculum game", self.game, "a game's spec")
        number = type(self.until) is int and self.until >= 1
        require(number, "finetune.curriculum until", self.until, "a number of agent steps, 1 or more")


@dataclass(frozen=True)
class FinetuneConfig:
    """Proximal policy optimisation that begins at a clone; see ``finetuning/ppo.py``."""

    from_: str  # the clone, a checkpoint; configs and commands write "from"
    game: str | None = None  # its spec, such as doom/deadly_corridor?skill=5; null: what the clone was scored in
    curriculum: tuple[StageConfig, ...] = ()  # what is played before ``game``, each game up to its step
    # the user's own function, FILE.py:FUNCTION, of the state before and after a step and the game's reward
    reward: str | None = None
    # of a window: where its state is sent to, HOST:PORT; its values' names, where the clone's recordings have none; and
    # the user's own function, FILE.py:FUNCTION, that brings it to where an episode begins
    state: str | None = setting(None, FREE)
    state_names: tuple[str, ...] = ()
    restart: str | None = setting(None, ON_REQUEST)
    from_nothing: bool = False  # draws all parameters anew: what the clone is worth
    steps: int = setting(1_000_000, ON_REQUEST)  # of all games together
    games: int = 16  # played at once
    horizon: int = 128  # steps of each game between two updates
    first_seed: int = 2_000_000  # of the games' episodes; away from recordings and scores
    epochs: int = 3  # passes over what was played
    minibatches: int = 4  # a pass makes so many updates
    learning_rate: float = 2.5e-4
    schedule: Literal["linear", "constant"] = "linear"  # linear: to 0 at the end
    gradient_clip_norm: float = 0.5  # global norm
    gamma: float = 0.99  # discount of a step
    gae_lambda: float = 0.95
    clip: float = 0.2  # how far the probability of an action moves in an update, as a ratio
    value_weight: float = 0.5
    value_layers: tuple[int, ...] = (128,)  # dense layers of the value head, on the policy's features
    value_warmup: int = 5  # updates of all that was played in which only the value head learns
    entropy: float = 0.003  # weight of the bonus
    kl: float = 0.1  # weight of the KL divergence from the clone, nats a step
    kl_decay: float = 1.0  # the weight's factor at each update
    kl_target: float | None = None  # the divergence that the weight is made to hold; null: kl and kl_decay alone
    reward_scale: float | None = None  # what rewards are divided by; null: the standard deviation of discounted sums
    reward_clip: float = 10.0  # of scaled rewards

    def __post_init__(self) -> None:
        expand_fields(self, "finetune", "from_", "reward", "restart")
        require_at_least(1, self, "finetune", "steps", "games", "horizon", "epochs", "minibatches")
        require_at_least(0, self, "finetune", "value_warmup", "value_weight", "entropy", "kl")
        require(0 <= self.first_seed < SEEDS // 2, "finetune.first_seed", self.first_seed, "0 or more, below 2^31")
        require(self.learning_rate > 0, "finetune.learning_rate", self.learning_rate, "more than 0")
        require(self.gradient_clip_norm > 0, "finetune.gradient_clip_norm", self.gradient_clip_norm, "more than 0")
        scale = self.reward_scale
        require(scale is None or scale > 0, "finetune.reward_scale", scale, "more than 0, or null")
        require(self.reward_clip > 0, "finetune.reward_clip", self.reward_clip, "more than 0")
        require(0 < self.clip < 1, "finetune.clip", self.clip, "between 0 and 1")
        for name in ("gamma", "gae_lambda"):
            require(0 <= getattr(self, name) <= 1, f"finetune.{name}", getattr(self, name), "0 to 1")
        require(0 < self.kl_decay <= 1, "finetune.kl_decay", self.kl_decay, "more than 0, at most 1")
        target = self.kl_target
        require(target is None or target > 0, "finetune.kl_target", target, "more than 0, or null")
        require(min(self.value_layers, default=1) >= 1, "finetune.value_layers", self.value_layers, "1 or more each")
        rule = f"a number that divides games * horizon = {self.batch}"
        require(self.batch % self.minibatches == 0, "finetune.minibatches", self.minibatches, rule)
        stages = tuple(build_section(StageConfig, stage, "finetune.curriculum") for stage in self.curriculum)
        object.__setattr__(self, "curriculum", stages)
        until = [stage.until for stage in self.curriculum]
        require(until == sorted(set(until)), "finetune.curriculum", until, "each later than the one before")
        self._check_windows()
        if self.from_nothing and (self.kl or self.kl_target):
            raise UserError("config: finetune.from_nothing=true has no clone to stay near: set finetune.kl=0, too")

    def _check_windows(self) -> None:
        games = [game for game in (self.game, *(stage.game for stage in self.curriculum)) if game is not None]
        windows = [game for game in games if game.startswith("window/")]
        if windows:
            if self.state is None or self.reward is None:
                needs = "finetune.state=HOST:PORT and finetune.reward=FILE.py:FUNCTION"
                raise UserError(f"config: {windows[0]} is a window and needs {needs}: see docs/YOUR_GAME.md")
            require(self.games == 1, "finetune.games", self.games, "1, as there is one window")
            if len(windows) < len(games):
                raise UserError("config: finetune.curriculum: windows are learned in after windows alone")
        elif self.game is not None:
            for name in ("state", "state_names", "restart"):
                if getattr(self, name):
                    raise UserError(f"config: finetune.{name} is for windows, and {self.game} is none: leave it out")

    def game_at(self, step: int) -> str:
        """What is played after so many agent steps."""
        return next((stage.game for stage in self.curriculum if step < stage.until), self.known_game)

    @property
    def known_game(self) -> str:
        """The game, once it is known: ``finetuning.setup.load_config`` asks the clone."""
        assert self.game is not None, "finetune.game is not known yet"
        return self.game

    @property
    def batch(self) -> int:
        """Steps of all games between two updates."""
        return self.games * self.horizon

    @property
    def iterations(self) -> int:
        """How often all games are played on and learned from."""
        return -(-self.steps // self.batch)
