"""Where the channels of a value may be divided, and what reads them multiplied instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from qatx._nodes import input_of, is_average_pool, module_of, only_user_of, relu_of
from qatx._trace import trace

Layer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear
Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_BATCH_NORM_OF: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
}
# f(x / s) = f(x) / s for s > 0, whatever s is for each channel: of the last dimension ...
_ANYWHERE = {
    *(nn.Dropout, nn.LeakyReLU, F.dropout, F.leaky_relu, "contiguous"),
}
# ... or of the one behind the batch.
_OF_IMAGES = {
    *(nn.MaxPool1d, nn.MaxPool2d, F.max_pool1d, F.max_pool2d, nn.Dropout1d, nn.Dropout2d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.UpsamplingNearest2d),
}
_FLATTENS = {torch.flatten, "flatten"}


@dataclass
class Link:
    """A value that layers read, and what makes it.

    Attributes:
        layer: Path of the layer that makes it; None where a normalization does.
        norm: Path of the normalization that makes it, perhaps behind `layer`.
        readers: Paths of the layers that read it.
        relu6: Paths of the ReLU6 modules in between, which limit it; "" for one without a module.
    """

    layer: str | None
    norm: str | None
    readers: list[str] = field(default_factory=list)
    relu6: list[str] = field(default_factory=list)

    @property
    def maker(self) -> str:
        """The path of what makes the value."""
        path = self.layer if self.layer is not None else self.norm
        assert path is not None
        return path

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.maker} -> {', '.join(self.readers)}"


class Channels:
    """The links of a model.

    Args:
        model: What torch.fx can trace; it is not changed.

    Attributes:
        links: In the order in which the model runs.
        reasons: Of layers that read a value of no link: why.

    Raises:
        RuntimeError: torch.fx cannot trace the model.
    """

    def __init__(self, model: nn.Module) -> None:
        graph = trace(model).graph
        self._calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        self._owners = Counter(
            id(parameter)
            for module in model.modules()
            for parameter in module.parameters(recurse=False)
        )
        self._shared = {
            id(parameter)
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if self._owners[id(parameter)] > 1
        }
        self._model = model
        self.links: list[Link] = []
        self.reasons: dict[str, str] = {}
        for node in graph.nodes:
            if type(module_of(node)) in _LAYERS + _NORMS:
                self._follow(node)
        linked = {reader for link in self.links for reader in link.readers}
        for node in graph.nodes:
            path = str(node.target)
            if type(module_of(node)) in _LAYERS and path not in linked:
                self.reasons.setdefault(path, f"its input is made by {_named(_origin(node))}")

    def _follow(self, node: fx.Node) -> None:
        """Adds the link from a layer or normalization, or the reason why there is none."""
        user = only_user_of(node)
        if user is not None and _is_folded(node, user):
            return  # the normalization behind it comes later
        source = input_of(node)
        has_layer = _is_folded(source, node) and only_user_of(source) is node
        if type(module_of(node)) in _LAYERS:
            link = Link(str(node.target), None)
        else:
            link = Link(str(source.target) if has_layer else None, str(node.target))
        try:
            for path in filter(None, (link.layer, link.norm)):
                self._check(path)
            module = module_of(node)
            assert module is not None
            if link.norm is not None and getattr(module, "weight", None) is None:
                raise _NoLinkError(f"{link.norm} has no weight to fold into")
            if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
                raise _NoLinkError(f"{link.norm} normalizes more than one dimension")
            if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
                raise _NoLinkError(f"{link.layer} is transposed and has groups")
            is_last = isinstance(module, (nn.Linear, nn.LayerNorm))
            self._collect(node, link, channels=outputs_of(module), is_last=is_last)
        except _NoLinkError as error:
            for reader in _readers(node):
                self.reasons.setdefault(reader, str(error))
            return
        if link.readers:
            self.links.append(link)

    def _check(self, path: str) -> None:
        module = self._model.get_submodule(path)
        if self._calls[path] > 1:
            raise _NoLinkError(f"{path} is called more than once")
        if module._forward_hooks or module._forward_pre_hooks:
            raise _NoLinkError(f"{path} has hooks")
        if any(id(parameter) in self._shared for parameter in module.parameters()):
            raise _NoLinkError(f"{path} shares a parameter with another module")

    def _collect(
        self, node: fx.Node, link: Link, *, channels: int, is_last: bool, flat: bool = False
    ) -> None:
        """Walks to all that uses a value."""
        for user in node.users:
            module = module_of(user)
            if type(module) in _LAYERS:
                assert isinstance(module, _LAYERS)
                if isinstance(module, nn.Linear) != (is_last or flat):
                    raise _NoLinkError(f"{user.target} reads {_named(node)} along other channels")
                if _inputs(module) != channels and not (flat and _inputs(module) % channels == 0):
                    raise _NoLinkError(f"{user.target} reads {_named(node)} along other channels")
                self._check(str(user.target))
                link.readers.append(str(user.target))
                continue
            relu = relu_of(user)
            if relu == "relu6":
                link.relu6.append(str(user.target) if user.op == "call_module" else "")
            flattens = not is_last and not flat and _flattens(user)
            if not (relu or flattens or _keeps_channels(user, of_images=not (is_last or flat))):
                raise _NoLinkError(f"{_named(node)} is read by {_named(user)}")
            self._collect(user, link, channels=channels, is_last=is_last, flat=flat or flattens)


class _NoLinkError(Exception):
    """Why a value's channels cannot be scaled."""


def magnitude_of_outputs(layer: Layer, norm: Norm | None) -> Tensor:
    """The largest weight that makes each channel, batch normalization folded in."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    largest = weight.abs().flatten(1).amax(1)
    if norm is None:
        return largest
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
    assert norm.running_var is not None
    return largest * norm.weight.detach().abs() * torch.rsqrt(norm.running_var + norm.eps)


def magnitude_of_inputs(layer: Layer, channels: int) -> Tensor:
    """The largest weight that reads each channel."""
    return _by_input(layer, layer.weight.detach(), channels).abs().amax((1, 3)).flatten()


@torch.no_grad()
def divide_outputs(module: Layer | Norm, scales: Tensor) -> None:
    """Divides the channels that a module makes."""
    weight = module.weight
    if isinstance(module, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    weight /= scales.to(weight).reshape(-1, *[1] * (weight.dim() - 1))
    if module.bias is not None:
        module.bias /= scales.to(module.bias)


@torch.no_grad()
def multiply_inputs(layer: Layer, scales: Tensor) -> None:
    """Multiplies the weights that read each channel."""
    view = _by_input(layer, layer.weight, len(scales))
    view *= scales.to(view).reshape(view.shape[0], 1, -1, 1)


def _by_input(layer: Layer, weight: Tensor, channels: int) -> Tensor:
    """A view `[groups, outputs, channels of a group, elements of a channel]`."""
    if isinstance(layer, nn.ConvTranspose2d):
        return weight.view(layer.groups, channels // layer.groups, -1, 1).transpose(1, 2)
    groups = getattr(layer, "groups", 1)
    return weight.view(groups, weight.shape[0] // groups, channels // groups, -1)


def outputs_of(module: nn.Module) -> int:
    """How many channels a layer or normalization makes."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    channels = module.num_features if isinstance(module, _NORMS) else module.out_channels
    assert isinstance(channels, int)
    return channels


def _inputs(module: Layer) -> int:
    return module.in_features if isinstance(module, nn.Linear) else module.in_channels


def _is_folded(layer: fx.Node, norm: fx.Node) -> bool:
    """Whether a node is the batch normalization of the layer at another."""
    made, following = module_of(layer), module_of(norm)
    if made is None or following is None or type(following) is not _BATCH_NORM_OF.get(type(made)):
        return False
    assert isinstance(following, (nn.BatchNorm1d, nn.BatchNorm2d))
    return following.affine and following.running_var is not None


def _keeps_channels(node: fx.Node, *, of_images: bool) -> bool:
    kind = type(module_of(node)) if node.op == "call_module" else node.target
    if kind in _ANYWHERE:
        return True
    return of_images and (kind in _OF_IMAGES or is_average_pool(node))


def _flattens(node: fx.Node) -> bool:
    """Whether a node makes [N, C * ...] of [N, C, ...]."""
    module = module_of(node)
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    return node.target in _FLATTENS and node.args[1:] == (1,) and not node.kwargs


def _readers(node: fx.Node) -> Iterator[str]:
    """The layers that read a value, seen through what keeps channels."""
    for user in node.users:
        if type(module_of(user)) in _LAYERS:
            yield str(user.target)
        elif _is_transparent(user):
            yield from _readers(user)


def _origin(node: fx.Node) -> fx.Node:
    """What makes the input of a node, seen through what keeps channels."""
    source = input_of(node)
    while _is_transparent(source):
        source = input_of(source)
    return source


def _is_transparent(node: fx.Node) -> bool:
    return bool(relu_of(node)) or _flattens(node) or _keeps_channels(node, of_images=True)


def _named(node: fx.Node) -> str:
    if node.op == "placeholder":
        return f"the model's input {node.target}"
    if node.op == "output":
        return "the caller of the model"
    if node.op == "call_module":
        return str(node.target)
    return str(getattr(node.target, "__name__", node.target))
