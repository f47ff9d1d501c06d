"""What a process that plays keeps open from one episode to the next."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from BC_training.common.decode import Decoding
from BC_training.common.errors import GameDied, UserError
from BC_training.games import make_game
from BC_training.play.players import make_player

_MOST_RESTARTS = 3  # of one episode


class Session:
    """A game and a player that stay open from one episode to the next.

    Args:
        game: its spec.
        player: its name.
        decoding: of a checkpoint, in place of its own.
        options: of ``make_game``.
    """

    def __init__(self, game: str, player: str, decoding: Decoding | None = None, **options: Any):
        self._name, self._player_name, self._decoding, self._options = game, player, decoding, options
        self._open()

    def _open(self) -> None:
        self.env = make_game(self._name, **self._options)
        try:
            self.game: Any = self.env.unwrapped
            self.player = make_player(self._player_name, self._name, self.env, self._decoding)
        except BaseException:
            self.env.close()
            raise

    def run(self, task: Any) -> Any:
        """Plays one episode and returns what the caller gathers; picklable both ways."""
        raise NotImplementedError

    def surviving(self, play: Callable[[], Any]) -> tuple[Any, int]:
        """``play()`` of one episode, again from its start in a new game where the game dies.

        Returns:
            What it returned, and how often the game was restarted.

        Raises:
            UserError: the game died time and again.
        """
        for restarts in range(_MOST_RESTARTS + 1):
            try:
                return play(), restarts
            except GameDied as error:
                self.env.close()
                if restarts == _MOST_RESTARTS:
                    raise UserError(
                        f"{self._name} died {restarts + 1} times in one episode ({error}): see to the machine's "
                        "memory, then run the same command again"
                    ) from error
                self._open()
        raise AssertionError

    def close(self) -> None:
        self.env.close()


def say_restarts(count: int, console: Console) -> None:
    if count:
        times = "once" if count == 1 else f"{count} times"
        console.print(
            f"the game died {times}: it was restarted, and its episode played from the start",
            style="yellow",
            soft_wrap=True,
        )
