"""A small game with a mouse, as an environment and in a window of its own, and an expert for each.

    uv run -m BC_training rollout CHECKPOINT --game gym/benchmarks.aim_game:Aim-v0    the environment
    uv run benchmarks/aim_game.py --environment --episodes 20                         the expert's scores there
    uv run benchmarks/aim_game.py --episodes 3 --seed 0 --scores scores.json          the window
    uv run benchmarks/aim_game.py --expert                                            the expert, in that window (X11)

A crosshair follows the mouse; a click on the disc is a hit, and the next disc appears elsewhere. The score is the
number of hits in 30 s less a fifth of each miss. Both forms share ``Aim``: as an environment it takes 20 actions a
second, in its window it draws 60 frames a second, whatever plays it. The expert plays the window through the X server,
and learns by UDP where the disc is.
"""

import argparse
import json
import math
import os
import socket
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

HEIGHT, WIDTH = 90, 160  # of the field, in units
RADIUS = 7.0  # of the disc
COUNTS = 2.0  # of the mouse to a unit
RATE = 20  # actions a second of the environment
DRAWN = 60  # frames a second in the window
SECONDS = 30  # of an episode
PORT = 47_601  # where the expert listens


class Aim(gymnasium.Env):
    """Observation: uint8 [90, 160, 3]. Action: "fire" and "mouse", counts to the right and down, float32 [2]."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": RATE}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        mouse = spaces.Box(-60, 60, (2,), np.float32)
        self.action_space = spaces.Dict({"fire": spaces.MultiBinary(1), "mouse": mouse})

    def reset(self, *, seed: int | None = None, options=None):
        super().reset(seed=seed)
        self.cross = np.array([WIDTH / 2, HEIGHT / 2])
        self.seconds, self.was_down, self.score = 0.0, False, 0.0
        self._place_disc()
        return self.render(), {}

    def step(self, action):
        reward = self.play(np.asarray(action["mouse"]), bool(np.any(action["fire"])), 1 / RATE)
        return self.render(), reward, False, self.is_over, {}

    def play(self, counts: np.ndarray, down: bool, seconds: float) -> float:
        """Moves the crosshair, then fires where ``down`` is new; returns what it adds to the score."""
        self.cross = np.clip(self.cross + counts / COUNTS, 0, (WIDTH - 1, HEIGHT - 1))
        reward = 0.0
        if down and not self.was_down:
            is_hit = math.dist(self.cross, self.disc) <= RADIUS
            reward = 1.0 if is_hit else -0.2
            if is_hit:
                self._place_disc()
        self.was_down, self.seconds, self.score = down, self.seconds + seconds, self.score + reward
        return reward

    @property
    def is_over(self) -> bool:
        return self.seconds > SECONDS - 1e-6

    def _place_disc(self) -> None:
        while True:
            self.disc = self.np_random.uniform((RADIUS, RADIUS), (WIDTH - RADIUS, HEIGHT - RADIUS))
            if math.dist(self.cross, self.disc) > 30:
                return

    def render(self) -> np.ndarray:
        picture = np.full((HEIGHT, WIDTH, 3), (40, 60, 40), np.uint8)
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        picture[np.hypot(x - self.disc[0], y - self.disc[1]) <= RADIUS] = (220, 60, 40)
        off_x, off_y = abs(x - round(self.cross[0])), abs(y - round(self.cross[1]))
        picture[((off_x <= 1) & (off_y <= 5)) | ((off_y <= 1) & (off_x <= 5))] = (250, 250, 250)
        return picture


gymnasium.register("Aim-v0", entry_point=Aim)


class Expert:
    """Plays as a person does: sees a new disc after 150 ms, errs, overshoots now and then, rests, clicks for 100 ms."""

    REACTION, REST, CLICK = 0.15, 0.05, 0.1  # seconds
    SPEED = 600.0  # counts a second
    SLOWING = 0.08  # seconds of the way that are left, from which on it slows down
    ERROR = 1.0  # units by which it misses the middle of the disc, in each direction, a standard deviation
    OVERSHOOTS = 0.15  # the share of the discs at which it first goes too far

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        self._seen: list[tuple[float, np.ndarray]] = []  # discs, and when
        self._disc = np.full(2, -1.0)  # the one that it aims at
        self._points: list[np.ndarray] = []  # it moves to one after the other, and clicks at the last one
        self._arrived = self._clicked = -math.inf
        self._owed = np.zeros(2)

    def act(self, now: float, passed: float, cross: np.ndarray, disc: np.ndarray) -> tuple[bool, np.ndarray]:
        """Whether it holds the button, and whole counts, for the time ``passed`` since the last call, in seconds."""
        self._seen.append((now, disc))
        while len(self._seen) > 1 and self._seen[1][0] <= now - self.REACTION + 1e-6:
            del self._seen[0]
        has_seen_click = now >= self._clicked + self.CLICK + self.REACTION - 1e-6
        if not np.array_equal(self._disc, self._seen[0][1]) or (not self._points and has_seen_click):
            self._aim(cross, self._seen[0][1])
        way = (self._points[0] - cross) * COUNTS if self._points else np.zeros(2)
        far = float(np.hypot(*way))
        if far > COUNTS:
            self._arrived = math.inf
        elif self._arrived == math.inf:
            self._arrived = now
        if self._points and now >= self._arrived + self.REST - 1e-6:
            del self._points[0]
            self._clicked = self._clicked if self._points else now
        self._owed += way * min(1 - math.exp(-passed / self.SLOWING), self.SPEED * passed / max(far, 1e-9))
        counts = np.rint(self._owed)
        self._owed -= counts
        return now < self._clicked + self.CLICK - 1e-6, counts

    def _aim(self, cross: np.ndarray, disc: np.ndarray) -> None:
        aimed = disc + self._random.normal(0, self.ERROR, 2)
        past = aimed + self._random.uniform(0.1, 0.4) * (aimed - cross)
        overshoots = self._random.random() < self.OVERSHOOTS
        self._points = [
            np.clip(point, 0, (WIDTH - 1, HEIGHT - 1)) for point in ([past, aimed] if overshoots else [aimed])
        ]
        self._disc = disc


def play_environment(episodes: int, seed: int) -> None:
    """Prints the expert's scores in the environment."""
    scores = []
    for number in range(episodes):
        game, expert = Aim(), Expert(seed + number)
        game.reset(seed=seed + number)
        while not game.is_over:
            down, counts = expert.act(game.seconds, 1 / RATE, game.cross, game.disc)
            game.play(counts, down, 1 / RATE)
        scores.append(game.score)
    print(f"mean {np.mean(scores):.1f}, from {min(scores):.1f} to {max(scores):.1f}")


def show(episodes: int, seed: int, scores: Path | None) -> None:
    """Plays in a window by the mouse; the scores go into a JSON file."""
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    import pygame

    pygame.init()
    scale = 4
    screen = pygame.display.set_mode((WIDTH * scale, HEIGHT * scale))
    pygame.display.set_caption("Aim")
    pygame.mouse.set_visible(False)
    pygame.event.set_grab(True)
    game, done, out = Aim(), [], socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(episodes):
        game.reset(seed=seed + number)
        clock = time.monotonic()
        while not game.is_over:
            clock += 1 / DRAWN
            time.sleep(max(clock - time.monotonic(), 0))
            moved, down = np.zeros(2), game.was_down
            for event in pygame.event.get():
                if event.type == pygame.QUIT:
                    return
                if event.type == pygame.MOUSEMOTION:
                    moved += event.rel
                elif event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
                    down = event.type == pygame.MOUSEBUTTONDOWN
            if game.seconds or down or moved.any():  # an episode begins with the first input
                game.play(moved, down, 1 / DRAWN)
            surface = pygame.surfarray.make_surface(game.render().swapaxes(0, 1))
            screen.blit(pygame.transform.scale(surface, screen.get_size()), (0, 0))
            pygame.display.flip()
            told = json.dumps({"now": game.seconds, "cross": game.cross.tolist(), "disc": game.disc.tolist()})
            out.sendto(told.encode(), ("127.0.0.1", PORT))
        done.append(game.score)
        if scores is not None:
            scores.write_text(json.dumps(done), encoding="utf-8")


def play_window() -> None:
    """Plays what the window tells, through the X server, until it is told nothing for 5 s."""
    from Xlib import X, display
    from Xlib.ext import xtest

    desktop, expert, episode, was_down = display.Display(), Expert(0), 0, False
    told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    told.bind(("127.0.0.1", PORT))
    told.settimeout(5)
    while True:
        try:
            state = json.loads(told.recv(1024))
        except TimeoutError:
            return
        if state["now"] < 1.5 / DRAWN:  # an episode begins
            episode += 1
            expert = Expert(episode)
        down, counts = expert.act(state["now"], 1 / DRAWN, np.array(state["cross"]), np.array(state["disc"]))
        if counts.any():
            xtest.fake_input(desktop, X.MotionNotify, 1, x=int(counts[0]), y=int(counts[1]))
        if down != was_down:
            xtest.fake_input(desktop, X.ButtonPress if down else X.ButtonRelease, 1)
        desktop.flush()
        was_down = down


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--expert", action="store_true")
    parser.add_argument("--environment", action="store_true")
    given = parser.parse_args()
    if given.expert:
        play_window()
    elif given.environment:
        play_environment(given.episodes, given.seed)
    else:
        show(given.episodes, given.seed, given.scores)
