"""A convolutional network for sentences (Kim 2014): convolutions of three widths over words."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 20_000


class TextCNN(nn.Module):
    """Token ids `[N, T]` to scores `[N, 5]`."""

    def __init__(self, dimension: int = 300, filters: int = 100, classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, dimension)
        self.convs = nn.ModuleList(nn.Conv1d(dimension, filters, size) for size in (3, 4, 5))
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(3 * filters, classes)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).transpose(1, 2)
        features = [F.relu(conv(x)) for conv in self.convs]
        pooled = [F.max_pool1d(y, y.size(2)).squeeze(2) for y in features]
        scores: Tensor = self.fc(self.dropout(torch.cat(pooled, 1)))
        return scores
