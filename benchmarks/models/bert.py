"""An encoder of BERT-base's shape, with the parameter names of Hugging Face's BertModel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 30_522


class Embeddings(nn.Module):
    def __init__(self, hidden: int, positions: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, hidden)
        self.position_embeddings = nn.Embedding(positions, hidden)
        self.token_type_embeddings = nn.Embedding(2, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.size(1)]  # which torch.fx can trace
        x: Tensor = self.LayerNorm(
            self.word_embeddings(ids) + self.token_type_embeddings.weight[0] + positions
        )
        return x


class SelfAttention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Output(nn.Module):
    """A linear layer, a shortcut, and layer normalization."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        y: Tensor = self.LayerNorm(self.dense(x) + shortcut)
        return y


class Layer(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(hidden, heads), "output": Output(hidden, hidden)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, 4 * hidden)})
        self.output = Output(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x), x)
        y: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return y


class BertEncoder(nn.Module):
    """Token ids `[N, T]` to `[N, T, hidden]`."""

    def __init__(
        self, layers: int = 12, hidden: int = 768, heads: int = 12, positions: int = 512
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(hidden, positions)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(hidden, heads) for _ in range(layers))}
        )

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embeddings(ids)
        for layer in self.encoder["layer"]:
            x = layer(x)
        return x
