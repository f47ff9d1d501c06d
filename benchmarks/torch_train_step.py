"""The peer of ``train_step.py``: the same nets and step in PyTorch, channels last.

Run by ``train_step.py`` with an interpreter that has PyTorch. Its argument is a JSON object of
options; each line on its standard input is a number of steps to make, each line on its standard
output the seconds that they took.
"""

import json
import sys
from time import perf_counter

import torch
from torch import nn


class ConvNorm(nn.Sequential):
    def __init__(self, channels: int, features: int, size: int, stride: int, *, bias: bool = False):
        conv = nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=bias)
        super().__init__(conv, nn.BatchNorm2d(features))


class BasicBlock(nn.Module):
    def __init__(self, channels: int, features: int, stride: int):
        super().__init__()
        self.first = ConvNorm(channels, features, 3, stride)
        self.second = ConvNorm(features, features, 3, 1)
        is_same = stride == 1 and channels == features
        self.shortcut = nn.Identity() if is_same else ConvNorm(channels, features, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def pure_cnn(model: dict, frame_size: list[int]) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for features, stride in zip(model["conv_features"], model["conv_strides"], strict=True):
        layers += [ConvNorm(channels, features, 3, stride, bias=True), nn.ReLU()]
        channels = features
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for features in model["dense_features"]:
        layers += [nn.Linear(channels, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Dropout(model["dropout"])]
        channels = features
    return nn.Sequential(*layers, nn.Linear(channels, 7))


def resnet_policy(model: dict, frame_size: list[int]) -> nn.Module:
    channels = model["width"]
    layers: list[nn.Module] = [ConvNorm(3, channels, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    for stage, blocks in enumerate(model["stage_blocks"]):
        features = model["width"] * 2**stage
        for i in range(blocks):
            layers.append(BasicBlock(channels, features, 2 if stage and not i else 1))
            channels = features
    halvings = len(model["stage_blocks"]) + 1
    positions = -(-frame_size[0] // 2**halvings) * -(-frame_size[1] // 2**halvings)
    features, dense = model["position_features"], model["dense_features"]
    layers += [ConvNorm(channels, features, 1, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(model["dropout"])]
    layers += [nn.Linear(positions * features, dense), nn.ReLU(), nn.Dropout(model["dropout"]), nn.Linear(dense, 7)]
    return nn.Sequential(*layers)


NETS = {"pure_cnn": pure_cnn, "resnet_policy": resnet_policy}


def main() -> None:
    options = json.loads(sys.argv[1])
    device = options["device"]
    if device == "cpu":
        torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    model = NETS[options["model"]["name"]](options["model"], options["frame_size"])
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    height, width = options["frame_size"]
    frames = torch.randint(0, 256, (options["batch_size"], 3, height, width), dtype=torch.uint8, device=device)
    actions = (torch.rand(options["batch_size"], 7, device=device) < 0.3).float()
    loss_of = nn.BCEWithLogitsLoss()
    mixed = options["dtype"] == "bfloat16"

    def loss() -> torch.Tensor:
        inputs = (frames.float() / 255).to(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            logits = model(inputs)
        return loss_of(logits.float(), actions)

    if options["compile"]:
        loss = torch.compile(loss)

    def run(steps: int) -> float:
        start = perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()
        return perf_counter() - start

    run(3)
    for line in sys.stdin:
        print(run(int(line)), flush=True)


if __name__ == "__main__":
    main()
