"""Small random networks of every operator that the converter knows."""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 6
MOST_ELEMENTS = 3000  # of one sample, in any value


class RandomNetwork(nn.Module):
    """A chain of random operators, some of which read earlier values too.

    Attributes:
        operators: The names of those that were drawn.
        x: What the network takes: numbers, or int64 indices of an embedding.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self._steps: list[tuple[Callable[..., Tensor], tuple[int, ...]]] = []
        self.operators: list[str] = []
        torch.manual_seed(seed)
        build = _Builder(self, random.Random(seed))
        build.everything()
        self.x = build.values[0]
        for norm in self.modules():
            if isinstance(norm, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, 0, 0.3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for function, inputs in self._steps:
            values.append(function(self, *(values[i] for i in inputs)))
        return values[-1]


class _Builder:
    """Adds operators to a network, whose values it computes on the way to know their sizes."""

    def __init__(self, net: RandomNetwork, draw: random.Random) -> None:
        self.net = net
        self.draw = draw
        self.values: list[Tensor] = []

    def layer(self, module: nn.Module) -> Callable[[Any], nn.Module]:
        """Adds a module; the result gives it back, of the network or of a copy."""
        for norm in module.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.5, 2)
        self.net.layers.append(module.eval())
        place = len(self.net.layers) - 1
        return lambda net: net.layers[place]

    @torch.no_grad()
    def add(self, function: Callable[..., Tensor], *inputs: int) -> int:
        """Adds function(network, *values) and returns the number of its value."""
        self.values.append(function(self.net, *(self.values[i] for i in inputs)))
        self.net._steps.append((function, inputs))
        return len(self.values) - 1

    def call(self, module: nn.Module, x: int) -> int:
        """Adds a layer that reads one value."""
        get = self.layer(module)
        return self.add(lambda net, x: get(net)(x), x)

    def shape(self, x: int) -> torch.Size:
        return self.values[x].shape

    def maybe(self, share: float = 0.5) -> bool:
        return self.draw.random() < share

    def everything(self) -> None:
        x = self.start()
        for _ in range(self.draw.randint(2, 6)):
            x = self.step(x)
        self.finish(x)

    def start(self) -> int:
        d = self.draw
        kind = d.choice(["image", "image", "line", "volume", "rows", "flat", "words", "bags"])
        if kind in ("words", "bags"):
            self.values.append(torch.randint(20, (BATCH, d.randint(1, 7))))
            width = d.choice([4, 8, 12])
            self.net.operators.append(kind)
            if kind == "words":
                return self.call(nn.Embedding(20, width), 0)
            return self.call(nn.EmbeddingBag(20, width, mode=d.choice(["sum", "mean"])), 0)
        sizes = {
            "image": (d.choice([1, 3, 4, 8]), d.randint(5, 11), d.randint(5, 11)),
            "line": (d.choice([1, 3, 4, 8]), d.randint(6, 20)),
            "volume": (d.choice([1, 2, 4]), *(d.randint(3, 6) for _ in range(3))),
            "rows": (d.randint(2, 9), d.choice([4, 6, 12])),
            "flat": (d.choice([4, 7, 12]),),
        }[kind]
        self.values.append(torch.randn(BATCH, *sizes))
        return 0

    def step(self, x: int) -> int:
        """Adds one operator that takes this value and makes none that is too large."""
        while True:
            name = self.draw.choice(list(OPERATORS))
            before = len(self.values), len(self.net.layers)
            y = OPERATORS[name](self, x)
            if y is not None and self.fits(y):
                self.net.operators.append(name)
                return y
            del self.values[before[0] :]
            del self.net._steps[before[0] - 1 :]
            del self.net.layers[before[1] :]

    def fits(self, x: int) -> bool:
        value = self.values[x]
        small = 0 < value.numel() <= BATCH * MOST_ELEMENTS and value.shape[0] == BATCH
        return small and bool(value.isfinite().all()) and float(value.abs().max()) < 1e4

    def finish(self, x: int) -> None:
        """A layer, whose result is the network's."""
        kinds = {4: nn.Conv2d, 5: nn.Conv3d}
        shape = self.shape(x)
        if len(shape) in kinds and self.maybe():
            self.call(kinds[len(shape)](shape[1], 3, 1), x)
        else:
            self.call(nn.Linear(shape[-1], 3), x)


def _conv(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x)) - 2
    if dims not in (1, 2, 3):
        return None
    d = b.draw
    channels = b.shape(x)[1]
    sizes = b.shape(x)[2:]
    kernel = [d.choice([1, 2, 3]) for _ in sizes]
    dilation = [d.choice([1, 1, 2]) for _ in sizes]
    padding: Any = [d.choice([0, 1, 2]) for _ in sizes]
    stride = [d.choice([1, 1, 2]) for _ in sizes]
    if b.maybe(0.3):
        padding, stride = d.choice(["same", "valid"]), [1] * dims
    if any(di * (k - 1) + 1 > n for n, k, di in zip(sizes, kernel, dilation, strict=True)):
        return None
    groups = d.choice([g for g in (1, 1, 2, 4, channels) if channels % g == 0])
    out = d.choice([n for n in (1, 4, 6, 8, 12, 16, 52, channels) if n % groups == 0] or [channels])
    conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dims - 1]
    bn = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][dims - 1]
    layer = conv(channels, out, kernel, stride, padding, dilation, groups, bias=b.maybe())
    return b.call(nn.Sequential(layer, *_behind(b, bn(out))), x)


def _behind(b: _Builder, bn: nn.Module) -> list[nn.Module]:
    parts = [bn] if b.maybe() else []
    return [*parts, b.draw.choice([nn.ReLU(), nn.ReLU6(), nn.Identity()])]


def _conv_transpose(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x)) - 2
    if dims not in (1, 2, 3):
        return None
    d = b.draw
    channels = b.shape(x)[1]
    groups = d.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    out = groups * d.choice([1, 3, 4])
    stride = [d.choice([1, 2, 3]) for _ in range(dims)]
    dilation = [d.choice([1, 1, 2]) for _ in range(dims)]
    kernel = [d.choice([1, 2, 3, 4]) for _ in range(dims)]
    padding = [d.randint(0, di * (k - 1)) for di, k in zip(dilation, kernel, strict=True)]
    more = [d.randint(0, max(s, di) - 1) for s, di in zip(stride, dilation, strict=True)]
    conv = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d][dims - 1]
    bn = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][dims - 1]
    layer = conv(channels, out, kernel, stride, padding, more, groups, b.maybe(), dilation)
    try:
        return b.call(nn.Sequential(layer, *_behind(b, bn(out))), x)
    except RuntimeError:  # nothing is left of the image
        return None


def _linear(b: _Builder, x: int) -> int | None:
    out = b.draw.choice([1, 4, 7, 12, 20])
    layers: list[nn.Module] = [nn.Linear(b.shape(x)[-1], out, bias=b.maybe())]
    return b.call(nn.Sequential(*layers, b.draw.choice([nn.ReLU(), nn.Identity()])), x)


def _residual(b: _Builder, x: int) -> int | None:
    shape = b.shape(x)
    if b.maybe() or len(shape) == 2:
        layer: nn.Module = nn.Linear(shape[-1], shape[-1])
    else:
        conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][len(shape) - 3]
        layer = conv(shape[1], shape[1], 3, padding=1)
    get = b.layer(layer)
    relu = b.maybe()
    first = b.maybe()

    def function(net: nn.Module, x: Tensor) -> Tensor:
        y = get(net)(x)
        y = y + x if first else x + y
        return F.relu(y) if relu else y

    return b.add(function, x)


def _partner(b: _Builder, x: int) -> int:
    """Another value that broadcasts to x."""
    shape = b.shape(x)
    earlier = [i for i in range(1, len(b.values)) if b.shape(i) == shape]
    if earlier and b.maybe():
        return b.draw.choice(earlier)
    if len(shape) > 2 and b.maybe():
        dims = b.draw.sample(range(1, len(shape)), b.draw.randint(1, len(shape) - 1))
        return b.add(lambda _, x: x.mean(dims, keepdim=True), x)
    return b.call(nn.Linear(shape[-1], shape[-1]), x)


_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "torch.add": torch.add,
    "add and relu": lambda x, y: F.relu(x + y),
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "mul and relu": lambda x, y: F.relu(torch.mul(x, y)),
    "mul and sigmoid": lambda x, y: x * torch.sigmoid(y),
    "div": lambda x, y: x / (y.abs() + 1),
}


def _two(b: _Builder, x: int) -> int | None:
    function = _TWO[b.draw.choice(list(_TWO))]
    return b.add(lambda _, x, y: function(x, y), x, _partner(b, x))


def _squeeze_and_excite(b: _Builder, x: int) -> int | None:
    if len(b.shape(x)) != 4:
        return None
    channels = b.shape(x)[1]
    reduce, expand = b.layer(nn.Conv2d(channels, 3, 1)), b.layer(nn.Conv2d(3, channels, 1))
    gate = b.draw.choice([F.hardsigmoid, torch.sigmoid, torch.tanh])
    inner = b.draw.choice([F.relu, F.silu, F.hardswish])

    def function(net: nn.Module, x: Tensor) -> Tensor:
        return x * gate(expand(net)(inner(reduce(net)(F.adaptive_avg_pool2d(x, 1)))))

    return b.add(function, x)


_FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    *(torch.sigmoid, torch.tanh, torch.relu, torch.abs, torch.neg, torch.square, torch.sin),
    *(torch.cos, torch.erf, F.hardsigmoid, F.hardswish, F.silu, F.gelu, F.selu, F.mish),
    *(F.softplus, F.logsigmoid, F.softshrink, F.hardshrink, F.elu, F.celu, F.leaky_relu, F.relu6),
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: F.elu(x, 0.7),
    lambda x: F.celu(x, 1.3),
    lambda x: F.leaky_relu(x, 0.2),
    lambda x: F.hardtanh(x, -0.5, 0.75),
    lambda x: F.threshold(x, 0.1, 0.2),
    lambda x: x.clamp(-0.3, 0.8),
    lambda x: x.clamp(min=-0.25),
    lambda x: torch.exp(torch.tanh(x)),
    lambda x: torch.log(x.abs() + 1),
    lambda x: torch.log1p(torch.relu(x)),
    lambda x: torch.expm1(x.clamp(max=1.0)),
    lambda x: torch.sqrt(torch.relu(x)),
    lambda x: torch.rsqrt(torch.square(x) + 1),
    lambda x: torch.reciprocal(x.abs() + 2),
    lambda x: torch.tan(torch.tanh(x)),
    lambda x: x.clamp(-2, 2) ** 3,
    lambda x: (x + 3) * 0.5,
    lambda x: (2 - x) / 3,
    lambda x: x * F.relu6(x + 3) / 6,
]
_MODULES: list[Callable[[], nn.Module]] = [
    *(nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardswish, nn.SiLU, nn.GELU, nn.ELU, nn.SELU),
    *(nn.CELU, nn.LeakyReLU, nn.Mish, nn.Softplus, nn.Hardtanh, nn.PReLU, nn.Softshrink),
    *(nn.ReLU, nn.ReLU6, nn.LogSigmoid, nn.Hardshrink, lambda: nn.Threshold(0.1, 0.2)),
]


def _function(b: _Builder, x: int) -> int | None:
    if b.maybe():
        return b.call(b.draw.choice(_MODULES)(), x)
    function = b.draw.choice(_FUNCTIONS)
    return b.add(lambda _, x: function(x), x)


def _by_channel(b: _Builder, x: int) -> int | None:
    """A function that differs between the indices of one dimension."""
    shape = b.shape(x)
    channels = shape[1]
    kinds = ["prelu", "mul", "add", "div"]
    if len(shape) in (2, 3, 4, 5):
        kinds.append("bn")
    kind = b.draw.choice(kinds)
    if kind == "prelu":
        prelu = nn.PReLU(channels)
        nn.init.uniform_(prelu.weight, -0.5, 1.5)
        return b.call(prelu, x)
    if kind == "bn":
        norms = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d]
        return b.call(norms[len(shape) - 2](channels), x)
    axis = b.draw.randrange(1, len(shape))
    sizes = [n if d == axis else 1 for d, n in enumerate(shape)][axis:]
    vector = nn.ParameterList([torch.rand(sizes) + 0.5])
    get = b.layer(vector)
    function = {"mul": torch.mul, "add": torch.add, "div": torch.div}[kind]
    return b.add(lambda net, x: function(x, get(net)[0]), x)


def _cat(b: _Builder, x: int) -> int | None:
    shape = b.shape(x)
    dim = b.draw.randrange(1, len(shape))

    def fits(other: torch.Size) -> bool:
        others = [n for d, n in enumerate(other) if d != dim]
        return len(other) == len(shape) and others == [n for d, n in enumerate(shape) if d != dim]

    parts = [x] + [
        b.draw.choice([i for i in range(1, len(b.values)) if fits(b.shape(i))] or [x])
        for _ in range(b.draw.randint(1, 2))
    ]
    b.draw.shuffle(parts)
    return b.add(lambda _, *parts: torch.cat(parts, dim), *parts)


def _parts(b: _Builder, x: int) -> int | None:
    """Parts of a value, put together anew or combined."""
    shape = b.shape(x)
    dim = b.draw.randrange(1, len(shape))
    n = shape[dim]
    if n < 2:
        return None
    half, at = n // 2, b.draw.randrange(n)
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: (lambda parts: torch.cat([parts[1], parts[0]], dim))(x.chunk(2, dim)),
        lambda x: torch.cat([x.split(half, dim)[1], x], dim),
        lambda x: (lambda parts: torch.cat([parts[1], parts[0]], dim))(x.split([1, n - 1], dim)),
        lambda x: x.narrow(dim, at, n - at),
        lambda x: x.narrow(dim, 0, half) * x.narrow(dim, half, half),
        lambda x: torch.sigmoid(x.narrow(dim, 0, half)) * x.narrow(dim, n - half, half),
    ]
    index = [slice(None)] * dim
    functions += [
        lambda x: x[(*index, slice(None, None, 2))],
        lambda x: x[(*index, slice(at, None))],
        lambda x: x[(*index, slice(-half, None))],
    ]
    if len(shape) > 2:
        functions += [
            lambda x: x.select(dim, at),
            lambda x: x[(*index, -1)],
            lambda x: (
                lambda parts: torch.cat([parts[1].unsqueeze(dim), parts[0].unsqueeze(dim)], dim)
            )(x.unbind(dim)),
        ]
    function = b.draw.choice(functions)
    return b.add(lambda _, x: function(x), x)


def _window(b: _Builder, x: int) -> tuple[list[int], list[int], list[int]]:
    kernel = [b.draw.choice([k for k in (1, 2, 3) if k <= n]) for n in b.shape(x)[2:]]
    padding = [b.draw.randint(0, k // 2) for k in kernel]
    return kernel, [b.draw.choice([1, 2, 3]) for _ in kernel], padding


def _max_pool(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x)) - 2
    if dims not in (1, 2, 3):
        return None
    kernel, stride, padding = _window(b, x)
    dilation = [b.draw.choice([1, 1, 2]) for _ in kernel]
    if any(
        di * (k - 1) + 1 > n + 2 * p
        for di, k, n, p in zip(dilation, kernel, b.shape(x)[2:], padding, strict=True)
    ):
        return None
    pool = [nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d][dims - 1]
    arguments: list[Any] = [kernel, stride, padding, dilation]
    if dims == 1:
        arguments = [a[0] for a in arguments]
    return b.call(pool(*arguments, ceil_mode=b.maybe()), x)


def _avg_pool(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x)) - 2
    if dims not in (1, 2, 3):
        return None
    kernel, stride, padding = _window(b, x)
    pool = [nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d][dims - 1]
    options: dict[str, Any] = {"ceil_mode": b.maybe(), "count_include_pad": b.maybe()}
    if dims > 1 and b.maybe(0.2):
        options["divisor_override"] = b.draw.choice([1, 3, 7])
    if b.maybe(0.2):
        options["padding"] = 0
    options.setdefault("padding", padding)
    if dims == 1:
        kernel, stride = kernel[0], stride[0]  # type: ignore[assignment]
        options["padding"] = options["padding"] and options["padding"][0]
    return b.call(pool(kernel, stride, **options), x)


def _adaptive_pool(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x)) - 2
    if dims not in (1, 2, 3):
        return None
    size = [b.draw.randint(1, n) for n in b.shape(x)[2:]]
    pool = [nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d][dims - 1]
    return b.call(pool(size[0] if dims == 1 else size), x)


def _mean(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x))
    over = sorted(b.draw.sample(range(1, dims), b.draw.randint(1, dims - 1)))
    over = [d - dims if b.maybe(0.3) else d for d in over]
    keep = b.maybe() or dims - len(over) < 2
    if b.maybe(0.3) and len(over) == 1:
        return b.add(lambda _, x: x.mean(over[0], keepdim=keep), x)
    return b.add(lambda _, x: x.mean(over, keepdim=keep), x)


def _greatest(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x))
    over = b.draw.sample(range(1, dims), b.draw.randint(1, dims - 1))
    keep = b.maybe() or dims - len(over) < 2
    if len(over) > 1:
        return b.add(lambda _, x: x.amax(over, keepdim=keep), x)
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: torch.amax(x, over[0], keepdim=keep),
        lambda x: x.max(over[0], keepdim=keep)[0],
        lambda x: torch.max(x, dim=over[0], keepdim=keep).values,
    ]
    function = b.draw.choice(functions)
    return b.add(lambda _, x: function(x), x)


def _pad(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x)) - 2
    if dims not in (1, 2):
        return None
    mode = b.draw.choice(["constant", "constant", "reflect", "replicate"])
    least = -1 if mode == "constant" and min(b.shape(x)[2:]) > 3 else 0
    most = min(2, *(n - 1 for n in b.shape(x)[2:])) if mode == "reflect" else 2
    pad = [b.draw.randint(least, most) for _ in range(2 * dims)]
    return b.add(lambda _, x: F.pad(x, pad, mode), x)


def _move(b: _Builder, x: int) -> int | None:
    shape = b.shape(x)
    n = len(shape)
    order = [0, *b.draw.sample(range(1, n), n - 1)]
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.permute(order),
        lambda x: x.transpose(1, n - 1),
        lambda x: x.flatten(1),
        lambda x: F.relu(x.permute(order)),
    ]
    if n < 5:
        place = b.draw.randint(1, n)
        functions += [lambda x: x.unsqueeze(place), lambda x: x.unsqueeze(-1)]
    if n < 5 and shape[1] % 2 == 0:
        functions += [
            lambda x: x.unflatten(1, (2, shape[1] // 2)),
            lambda x: x.view(x.size(0), 2, shape[1] // 2, *shape[2:]),
        ]
    if n > 2:
        functions += [lambda x: x.flatten(n - 2), lambda x: x.flatten(1, 2)]
        functions += [lambda x: x.reshape(x.size(0), -1)]
    for d in range(1, n):
        if shape[d] == 1 and n > 2:
            functions.append(lambda x, d=d: x.squeeze(d))
    function = b.draw.choice(functions)
    return b.add(lambda _, x: function(x), x)


def _upsample(b: _Builder, x: int) -> int | None:
    dims = len(b.shape(x)) - 2
    if dims not in (1, 2):
        return None
    mode = b.draw.choice(["nearest", "nearest-exact", "bilinear"][: 1 + dims])
    options: dict[str, Any] = {"mode": mode}
    if b.maybe():
        options["size"] = [b.draw.randint(1, 12) for _ in range(dims)]
    else:
        options["scale_factor"] = [b.draw.choice([2.0, 3.0, 1.7, 0.6]) for _ in range(dims)]
    if mode == "bilinear":
        options["align_corners"] = b.maybe()
    factors = options.get("scale_factor", [1.0] * dims)
    if any(int(n * f) < 1 for n, f in zip(b.shape(x)[2:], factors, strict=True)):
        return None
    if dims == 1:
        options = {k: v[0] if isinstance(v, list) else v for k, v in options.items()}
    return b.add(lambda _, x: F.interpolate(x, **options), x)


def _shuffle(b: _Builder, x: int) -> int | None:
    shape = b.shape(x)
    if len(shape) != 4:
        return None
    functions: list[Callable[[Tensor], Tensor]] = []
    if shape[1] % 4 == 0:
        functions.append(lambda x: F.pixel_shuffle(x, 2))
    if shape[2] % 2 == 0 and shape[3] % 2 == 0:
        functions.append(lambda x: F.pixel_unshuffle(x, 2))
    if shape[1] % 2 == 0:
        functions.append(lambda x: F.channel_shuffle(x, 2))
    if not functions:
        return None
    function = b.draw.choice(functions)
    return b.add(lambda _, x: function(x), x)


def _layer_norm(b: _Builder, x: int) -> int | None:
    return b.call(nn.LayerNorm(b.shape(x)[-1], eps=b.draw.choice([1e-5, 1e-3])), x)


def _softmax(b: _Builder, x: int) -> int | None:
    return None if len(b.shape(x)) == 5 else b.add(lambda _, x: torch.softmax(x, -1), x)


def _attention(b: _Builder, x: int) -> int | None:
    shape = b.shape(x)
    if len(shape) != 3 or shape[1] > 24:
        return None
    heads = b.draw.choice([1, 2, 3])
    width = heads * b.draw.choice([2, 4])
    qkv = b.layer(nn.Linear(shape[2], 3 * width))
    project = b.layer(nn.Linear(width, shape[2]))
    attend = b.draw.choice([F.scaled_dot_product_attention, _attend_by_hand])
    residual = b.maybe()

    def function(net: nn.Module, x: Tensor) -> Tensor:
        parts = qkv(net)(x).unflatten(2, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        y = project(net)(attend(q, k, v).transpose(1, 2).flatten(2))
        return y + x if residual else y

    return b.add(function, x)


def _attend_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(3.0)
    return torch.matmul(scores.softmax(-1), v)


def _product(b: _Builder, x: int) -> int | None:
    """Of rows with what a layer makes of them."""
    shape = b.shape(x)
    if len(shape) not in (3, 4):
        return None
    get = b.layer(nn.Linear(shape[-1], shape[-1]))
    soft = b.maybe()

    def function(net: nn.Module, x: Tensor) -> Tensor:
        y = torch.matmul(x, get(net)(x).transpose(-2, -1))
        return torch.softmax(y * 0.5, -1) if soft else F.relu(y)

    return b.add(function, x)


def _dropout(b: _Builder, x: int) -> int | None:
    return b.call(nn.Dropout(0.3), x)


OPERATORS: dict[str, Callable[[_Builder, int], int | None]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "residual": _residual,
    "two": _two,
    "squeeze and excite": _squeeze_and_excite,
    "function": _function,
    "by channel": _by_channel,
    "cat": _cat,
    "parts": _parts,
    "max pool": _max_pool,
    "avg pool": _avg_pool,
    "adaptive pool": _adaptive_pool,
    "mean": _mean,
    "greatest": _greatest,
    "pad": _pad,
    "move": _move,
    "upsample": _upsample,
    "shuffle": _shuffle,
    "layer norm": _layer_norm,
    "softmax": _softmax,
    "attention": _attention,
    "product": _product,
    "dropout": _dropout,
}
