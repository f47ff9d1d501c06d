"""A PyTorch DataLoader over a packed file of frames; started by ``data.py`` with options as JSON."""

import json
import sys
from time import perf_counter

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Packed(Dataset):
    """Frames uint8 [3, H, W] of a memory-mapped file, which is what such a dataset usually is."""

    def __init__(self, path: str, frames: int, size: tuple[int, int]):
        self._frames = np.memmap(path, np.uint8, "r", shape=(frames, 3, *size))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self._frames[index]))


def main() -> None:
    options = json.loads(sys.argv[1])
    dataset = Packed(options["path"], options["frames"], options["size"])
    loader = DataLoader(dataset, options["batch_size"], shuffle=True, num_workers=2, drop_last=True)
    batches = iter(loader)
    for _ in range(4):  # the workers start
        next(batches)
    start, seen = perf_counter(), 0
    for batch in batches:
        seen += len(batch)
    print(json.dumps({"frames_per_second": seen / (perf_counter() - start)}))


if __name__ == "__main__":
    main()
