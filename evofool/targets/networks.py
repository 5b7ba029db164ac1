"""The digit networks' architectures; weights are loaded elsewhere."""

import torch
from torch import nn
from torch.nn import functional as F


class CaffeLeNet(nn.Module):
    """Caffe's LeNet, the network that Nguyen, Yosinski & Clune (2015) attacked; no ReLU after the convolutions.

    forward: float (B, 1, 28, 28), pixel / 256, to logits (B, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class LeNet(nn.Module):
    """LeNet with a ReLU after every layer but the last, and dropout before the last: the bundled digit network.

    forward: float (B, 1, 28, 28), pixel / 255, to logits (B, classes): the digits and, with 11 classes, fooling images.
    """

    def __init__(self, dropout: float = 0.5, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(self.dropout(F.relu(self.fc1(x.flatten(1)))))
