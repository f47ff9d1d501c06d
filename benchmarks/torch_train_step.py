"""The peer of ``train_step.py``: the same net and step in PyTorch, eager, channels last.

Run by ``train_step.py`` with an interpreter that has PyTorch; takes its options as JSON.
"""

import json
import sys
from time import perf_counter

import torch
from torch import nn


def build(options: dict) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for features, stride in zip(options["conv_features"], options["conv_strides"], strict=True):
        layers += [nn.Conv2d(channels, features, 3, stride, padding=1), nn.BatchNorm2d(features), nn.ReLU()]
        channels = features
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for features in options["dense_features"]:
        layers += [nn.Linear(channels, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Dropout(options["dropout"])]
        channels = features
    return nn.Sequential(*layers, nn.Linear(channels, 7)).to(memory_format=torch.channels_last)


def main() -> None:
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    model = build(options).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    height, width = options["frame_size"]
    frames = torch.randint(0, 256, (options["batch_size"], 3, height, width), dtype=torch.uint8)
    actions = (torch.rand(options["batch_size"], 7) < 0.3).float()
    loss_of = nn.BCEWithLogitsLoss()
    mixed = options["dtype"] == "bfloat16"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        inputs = (frames.float() / 255).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            logits = model(inputs)
        loss_of(logits.float(), actions).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for _ in range(3):
        step()
    start = perf_counter()
    for _ in range(options["steps"]):
        step()
    seconds = perf_counter() - start
    print(json.dumps({"frames_per_second": options["steps"] * options["batch_size"] / seconds}))


if __name__ == "__main__":
    main()
