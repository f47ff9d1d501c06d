"""What a process that plays keeps open from one episode to the next."""

from typing import Any

from BC_training.games import make_game
from BC_training.games.players import make_player


class Session:
    """A game and a player that stay open from one episode to the next."""

    def __init__(self, game: str, player: str, frame_size: tuple[int, int], skill: int, render_mode: str | None = None):
        self.env = make_game(game, frame_size=frame_size, skill=skill, render_mode=render_mode)
        self.game: Any = self.env.unwrapped
        try:
            self.player = make_player(player, game, self.env)
        except BaseException:
            self.env.close()
            raise

    def run(self, task: Any) -> Any:
        """Plays one episode and returns what the caller gathers; picklable both ways."""
        raise NotImplementedError

    def close(self) -> None:
        self.env.close()
