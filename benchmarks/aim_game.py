"""A small game with a mouse, as an environment and in a window of its own, and an expert for each.

    uv run -m BC_training rollout --player expert --game gym/benchmarks.aim_game:Aim-v0
    uv run benchmarks/aim_game.py --episodes 3 --seed 0 --scores scores.json          the window
    uv run benchmarks/aim_game.py --expert                                            a player of that window (X11)

A crosshair follows the mouse; a click on the disc is a hit, and the next disc appears elsewhere. The score is the
number of hits less a fifth of each miss. Both forms share ``Aim``; the window runs it at 20 steps a second and tells
the expert by UDP what it has to know, which it plays out through the X server.
"""

import argparse
import json
import math
import os
import socket
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

HEIGHT, WIDTH = 90, 160  # of the field, in units
RADIUS = 7.0  # of the disc
COUNTS = 2.0  # of the mouse to a unit
RATE = 20  # steps a second
STEPS = 30 * RATE  # of an episode
FASTEST = 30  # counts in a step, by the expert
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
        self.steps, self.was_down, self.score = 0, False, 0.0
        self._place_disc()
        return self.render(), {}

    def step(self, action):
        self.cross = np.clip(self.cross + np.asarray(action["mouse"]) / COUNTS, 0, (WIDTH - 1, HEIGHT - 1))
        down, reward = bool(np.any(action["fire"])), 0.0
        if down and not self.was_down:
            is_hit = math.dist(self.cross, self.disc) <= RADIUS
            reward = 1.0 if is_hit else -0.2
            if is_hit:
                self._place_disc()
        self.was_down, self.steps, self.score = down, self.steps + 1, self.score + reward
        return self.render(), reward, False, self.steps >= STEPS, {}

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
    """Moves towards the disc at a limited speed, and fires where it has arrived."""

    def __init__(self):
        self._down = False

    def act(self, cross: np.ndarray, disc: np.ndarray) -> tuple[bool, np.ndarray]:
        way = (disc - cross) * COUNTS
        far = np.hypot(*way)
        self._down = far / COUNTS < RADIUS / 2 and not self._down
        return self._down, np.rint(way * min(1.0, FASTEST / max(far, 1e-9)))


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
        clock, ends = time.monotonic(), False
        while not ends:
            clock += 1 / RATE
            time.sleep(max(clock - time.monotonic(), 0))
            moved, down = np.zeros(2), game.was_down
            for event in pygame.event.get():
                if event.type == pygame.QUIT:
                    return
                if event.type == pygame.MOUSEMOTION:
                    moved += event.rel
                elif event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
                    down = event.type == pygame.MOUSEBUTTONDOWN
            picture, _, _, ends, _ = game.step({"fire": [down], "mouse": moved})
            surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
            screen.blit(pygame.transform.scale(surface, screen.get_size()), (0, 0))
            pygame.display.flip()
            told = json.dumps({"cross": game.cross.tolist(), "disc": game.disc.tolist()})
            out.sendto(told.encode(), ("127.0.0.1", PORT))
        done.append(game.score)
        if scores is not None:
            scores.write_text(json.dumps(done), encoding="utf-8")


def play() -> None:
    """Plays what the window tells, through the X server, until it is told nothing for 5 s."""
    from Xlib import X, display
    from Xlib.ext import xtest

    desktop, expert, was_down = display.Display(), Expert(), False
    told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    told.bind(("127.0.0.1", PORT))
    told.settimeout(5)
    while True:
        try:
            state = json.loads(told.recv(1024))
        except TimeoutError:
            return
        down, way = expert.act(np.array(state["cross"]), np.array(state["disc"]))
        xtest.fake_input(desktop, X.MotionNotify, 1, x=int(way[0]), y=int(way[1]))
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
    given = parser.parse_args()
    sys.exit(play() if given.expert else show(given.episodes, given.seed, given.scores))
