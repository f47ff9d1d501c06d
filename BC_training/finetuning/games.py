"""Throwaway."""

from typing import NamedTuple

import numpy as np

from BC_training.common.preprocess import resize_frames
from BC_training.games import make_game


class Episode(NamedTuple):
    game: int
    seed: int
    score: float
    frames: int


class Transition(NamedTuple):
    frames: np.ndarray
    states: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last: dict
    finished: list


class ParallelGames:
    def __init__(self, specs, *, recorded_size, model_size, processes, first_seed, reward=None):
        self.envs = [make_game(s, frame_size=recorded_size) for s in specs]
        self.size = model_size
        self.seed = first_seed
        self.first = first_seed
        self.score = [0.0] * len(specs)
        self.n = [0] * len(specs)
        self.seeds = [0] * len(specs)

    @property
    def begun(self):
        return self.seed - self.first

    def __enter__(self):
        return self

    def __exit__(self, *a):
        [e.close() for e in self.envs]

    def switch(self, specs):
        pass

    def _reset(self, i):
        o, _ = self.envs[i].reset(seed=self.seed)
        self.seeds[i] = self.seed
        self.seed += 1
        self.score[i] = 0.0
        self.n[i] = 0
        return resize_frames(o["frame"][None], self.size)[0], o["state"]

    def start(self):
        f, s = zip(*[self._reset(i) for i in range(len(self.envs))])
        n = len(self.envs)
        z = np.zeros(n, bool)
        return Transition(np.stack(f), np.stack(s), np.zeros(n, np.float32), z, z, {}, [])

    def step(self, actions):
        F = []
        S = []
        R = []
        T = []
        U = []
        last = {}
        fin = []
        for i, (e, a) in enumerate(zip(self.envs, actions)):
            o, r, t, u, _ = e.step(a)
            self.score[i] += float(r)
            self.n[i] += 1
            f, s = resize_frames(o["frame"][None], self.size)[0], o["state"]
            if t or u:
                fin.append(Episode(i, self.seeds[i], self.score[i], self.n[i]))
                if u and not t:
                    last[i] = (f, s)
                f, s = self._reset(i)
            F.append(f)
            S.append(s)
            R.append(r)
            T.append(t)
            U.append(u and not t)
        return Transition(np.stack(F), np.stack(S), np.array(R, np.float32), np.array(T), np.array(U), last, fin)
