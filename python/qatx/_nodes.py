"""What the nodes of a torch.fx graph are, for `prepare`."""

from __future__ import annotations

import itertools
import operator

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.node import Argument

from qatx.nn._layer import Relu

# A kind is the type of the module, the function or the name of the method that a node calls.
_RELUS: dict[object, Relu] = {
    **dict.fromkeys((nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), True),
    **dict.fromkeys((nn.ReLU6, F.relu6), "relu6"),
}
_ADDS = {operator.add, torch.add, "add", "add_"}
_MATMULS = {operator.matmul, torch.bmm, torch.matmul, "bmm", "matmul"}
_SCALINGS = {operator.mul, operator.truediv, torch.mul, torch.div, "mul", "div"}
_MASKS = {*_ADDS, torch.masked_fill, torch.where, "masked_fill", "where"}
_SUBS = {operator.sub, torch.sub, "sub"}
_MULS = {operator.mul, torch.mul, "mul", "mul_"}
_DIVS = {operator.truediv, torch.div, torch.true_divide, "div", "true_divide"}
# Functions of one value, between two quantized values: tables.
_UNARY: set[object] = {
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
    *(nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid),
    *(nn.SiLU, nn.Softplus, nn.Softshrink, nn.Tanh, nn.Threshold),
    *(F.celu, F.elu, F.gelu, F.hardshrink, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu),
    *(F.logsigmoid, F.mish, F.relu, F.relu6, F.selu, F.sigmoid, F.silu, F.softplus, F.softshrink),
    *(F.tanh, F.threshold),
    *(getattr(torch, name) for name in ("celu", "rsub", "selu", "threshold")),
}
for _name in (
    *("abs", "clamp", "clamp_max", "clamp_min", "cos", "erf", "exp", "expm1", "log", "log1p"),
    *("neg", "reciprocal", "relu", "rsqrt", "sigmoid", "sin", "sqrt", "square", "tan", "tanh"),
):
    _UNARY |= {getattr(torch, _name), _name, f"{_name}_"}
_UNARY |= {operator.neg, operator.abs}
_CLAMPS = {nn.Hardtanh, F.hardtanh, torch.clamp, "clamp", "clamp_", *_RELUS}
# Of a tensor and a number these are functions of one value, too.
_ARITHMETIC_WITH_NUMBERS: set[object] = {operator.pow}
for _name in ("add", "div", "mul", "pow", "sub"):
    _ARITHMETIC_WITH_NUMBERS |= {getattr(torch, _name), _name, f"{_name}_"}
_ARITHMETIC_WITH_NUMBERS |= {operator.add, operator.mul, operator.sub, operator.truediv}
_BATCH_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
_LAYER_NORMS = {nn.LayerNorm, F.layer_norm, torch.layer_norm}
_SOFTMAXES = {nn.Softmax, F.softmax, torch.softmax, "softmax"}
_TAKE_RELU = {
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
}
_DROPOUTS = {nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d}
_MAX_POOLS = {
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(torch.amax, "amax"),
}
_MOVES: set[object] = {
    *(nn.ChannelShuffle, nn.Flatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ReflectionPad1d),
    *(nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.UpsamplingNearest2d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, F.channel_shuffle, F.pixel_shuffle, F.pixel_unshuffle),
    *("contiguous", "view"),
}
for _name in (
    *("chunk", "flatten", "narrow", "permute", "reshape", "select", "split", "squeeze", "swapaxes"),
    *("t", "transpose", "unbind", "unflatten", "unsqueeze"),
):
    _MOVES |= {getattr(torch, _name), _name}
_SPLITS = {torch.chunk, torch.split, torch.unbind, "chunk", "split", "unbind"}
_CATS = {torch.cat, torch.concat, torch.concatenate}
_AVERAGE_POOLS = {
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AvgPool1d),
    *(nn.AvgPool2d, nn.AvgPool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d),
    *(F.adaptive_avg_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
}
_MEANS = {torch.mean, "mean"}
_SIZES = {"dim", "item", "ndimension", "numel", "size"}
_ARITHMETIC = {
    operator.add,
    operator.floordiv,
    operator.getitem,
    operator.mod,
    operator.mul,
    operator.neg,
    operator.sub,
    operator.truediv,
}


def module_of(node: fx.Node) -> nn.Module | None:
    """The module that a node calls."""
    if node.op != "call_module":
        return None
    return owner_of(node).get_submodule(str(node.target))


def owner_of(node: fx.Node) -> fx.GraphModule:
    """The module whose graph a node is in."""
    owner = node.graph.owning_module
    assert isinstance(owner, fx.GraphModule)
    return owner


def input_of(node: fx.Node) -> fx.Node:
    """The first argument of a node that takes a tensor."""
    source = node.args[0] if node.args else node.kwargs["input"]
    assert isinstance(source, fx.Node)
    return source


def only_user_of(node: fx.Node) -> fx.Node | None:
    """The node that uses a node, unless there are others."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def relu_of(node: fx.Node) -> Relu:
    """True for a ReLU, "relu6" for a ReLU6, otherwise False."""
    return _RELUS.get(_kind(node), False)


def takes_relu(node: fx.Node) -> bool:
    """Whether a ReLU behind a node fuses with it."""
    return _kind(node) in _TAKE_RELU or is_add(node)


def keeps_values(node: fx.Node) -> bool:
    """Whether a node's output consists of its input's values, and so has its scale.

    Dropout counts: what is deployed has none.
    """
    kind = _kind(node)
    if kind in _MAX_POOLS | _MOVES | _DROPOUTS or _is_max(node):
        return True
    if kind is getattr:  # x.max(dim).values
        return node.args[1] == "values" and _is_max(node.args[0])
    if kind is operator.getitem:
        return _takes_parts(node)
    if kind in (nn.ConstantPad1d, nn.ConstantPad2d):
        return getattr(module_of(node), "value", None) == 0
    if kind is F.pad:
        value = _argument(node, 3, "value", None)
        return _argument(node, 2, "mode", "constant") != "constant" or value in (None, 0)
    return _upsampling_mode(node) in ("nearest", "nearest-exact")


def _is_max(node: object) -> bool:
    """Whether a node finds the greatest values along one dimension, and their places."""
    if not isinstance(node, fx.Node) or _kind(node) not in (torch.max, "max"):
        return False
    return isinstance(_argument(node, 1, "dim", None), int)


def _takes_parts(node: fx.Node) -> bool:
    """Whether a node is x[...] with constant numbers and slices, or one part of a split tensor."""
    source, index = node.args
    if isinstance(source, fx.Node) and _kind(source) in _SPLITS:
        return isinstance(index, int)
    if isinstance(source, fx.Node) and _is_max(source):
        return isinstance(index, int) and index == 0
    # What is indexed with one number or slice may as well be a list.
    return isinstance(index, tuple) and all(
        i is None or i is Ellipsis or isinstance(i, (int, slice)) for i in index
    )


def is_bilinear(node: fx.Node) -> bool:
    """Whether a node interpolates between values."""
    return _upsampling_mode(node) == "bilinear"


def _upsampling_mode(node: fx.Node) -> object:
    kind = _kind(node)
    if kind in (nn.Upsample, nn.UpsamplingBilinear2d):
        return getattr(module_of(node), "mode", None)
    return _argument(node, 3, "mode", "nearest") if kind is F.interpolate else None


def _argument(node: fx.Node, place: int, name: str, default: object) -> object:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def cat_inputs(node: fx.Node) -> list[fx.Node]:
    """The tensors that a node puts together; empty where it does not."""
    tensors = _argument(node, 0, "tensors", ()) if _kind(node) in _CATS else ()
    if not isinstance(tensors, (list, tuple)):
        return []  # a list that another node makes
    return [tensor for tensor in tensors if isinstance(tensor, fx.Node)]


def is_average_pool(node: fx.Node) -> bool:
    """Whether a node averages over height and width."""
    if _kind(node) not in _MEANS:
        return _kind(node) in _AVERAGE_POOLS
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return isinstance(dims, (tuple, list)) and set(dims) in ({2, 3}, {-2, -1})


def is_mean(node: fx.Node) -> bool:
    """Whether a node averages, over any dimensions."""
    return _kind(node) in _MEANS and "dtype" not in node.kwargs


def is_add(node: fx.Node) -> bool:
    """Whether a node adds two tensors that depend on the model's inputs.

    A mask that is added to the scores of attention does not count: both stay float.
    """
    return _combines_two(node, _ADDS) and not any(map(is_score, node.all_input_nodes))


def is_mul(node: fx.Node) -> bool:
    """Whether a node multiplies two tensors that depend on the model's inputs."""
    return _combines_two(node, _MULS)


def is_sub(node: fx.Node) -> bool:
    """Whether a node subtracts two tensors that depend on the model's inputs."""
    return _combines_two(node, _SUBS)


def is_div(node: fx.Node) -> bool:
    """Whether a node divides a tensor by another, and both depend on the model's inputs."""
    return _combines_two(node, _DIVS)


def is_matmul(node: fx.Node) -> bool:
    """Whether a node multiplies two matrices that depend on the model's inputs."""
    return _combines_two(node, _MATMULS)


def is_layer_norm(node: fx.Node) -> bool:
    """Whether a node normalizes along dimensions, by what it finds there."""
    return _kind(node) in _LAYER_NORMS


def is_softmax(node: fx.Node) -> bool:
    """Whether a node is a softmax."""
    return _kind(node) in _SOFTMAXES


def is_score(node: fx.Node) -> bool:
    """Whether a node makes a product of two matrices, or scales or masks one."""
    if is_matmul(node):
        return True
    inputs = node.all_input_nodes
    if _kind(node) in _MASKS:
        return any(map(is_score, inputs))
    return _kind(node) in _SCALINGS and is_unary(node) and is_score(inputs[0])


def is_attention(node: fx.Node) -> bool:
    """Whether a node calls `scaled_dot_product_attention` as its replacement can be called."""
    return _kind(node) is F.scaled_dot_product_attention and "enable_gqa" not in node.kwargs


def _combines_two(node: fx.Node, kinds: set[object]) -> bool:
    if _kind(node) not in kinds or len(node.args) != 2 or node.kwargs:
        return False
    if _is_seen_by_others(node):
        return False
    return all(isinstance(a, fx.Node) and _is_activation(a) for a in node.args)


def is_unary(node: fx.Node) -> bool:
    """Whether a node is a function of each element of one tensor that depends on the inputs.

    It may differ between the indices of one dimension, as batch normalization does.
    """
    kind = _kind(node)
    if isinstance(kind, str) and _is_seen_by_others(node):
        return False
    if kind in _BATCH_NORMS:
        return getattr(module_of(node), "running_mean", None) is not None
    arguments = [*node.args, *node.kwargs.values()]
    tensors = [a for a in arguments if isinstance(a, fx.Node)]
    activations = [a for a in tensors if _is_activation(a)]  # x * x has two
    if len(activations) != 1 or "out" in node.kwargs:
        return False
    if not all(a is activations[0] or _is_vector(a) for a in tensors):
        return False
    if kind in _UNARY:
        return tensors == activations and arguments[0] is activations[0]
    return kind in _ARITHMETIC_WITH_NUMBERS and node.kwargs.keys() <= {"exponent", "other", "value"}


def axis_of_unary(node: fx.Node) -> int | str | None:
    """The dimension between whose indices a function of one value differs.

    Counted from the last, or "channels"; None where it is the same function everywhere.
    """
    if _kind(node) in _BATCH_NORMS:
        return "channels"
    if _kind(node) is nn.PReLU:
        return "channels" if getattr(module_of(node), "num_parameters", 1) > 1 else None
    constants = [a for a in node.all_input_nodes if not _is_activation(a)]
    axes = {axis for a in constants for axis in _axes(_constant_sizes(a) or torch.Size())}
    return next(iter(axes), None)


def _axes(sizes: torch.Size) -> list[int]:
    """The dimensions that have more than one index, counted from the last."""
    return [d - len(sizes) for d, size in enumerate(sizes) if size != 1]


def _is_vector(node: fx.Node) -> bool:
    """Whether a node is a constant with more than one element along one dimension at most."""
    sizes = _constant_sizes(node)
    return sizes is not None and len(_axes(sizes)) <= 1


def _constant_sizes(node: fx.Node) -> torch.Size | None:
    """The sizes of a node that is made of one parameter or buffer alone; None for others."""
    tensor = _constant(node)
    return None if tensor is None else tensor.shape


def _constant(node: fx.Node) -> torch.Tensor | None:
    """What a node is made of that is made of one parameter or buffer alone, in its shape."""
    if node.op == "get_attr":
        tensor = operator.attrgetter(str(node.target))(owner_of(node))
        return tensor if isinstance(tensor, torch.Tensor) else None
    sources = node.all_input_nodes
    source = _constant(sources[0]) if len(sources) == 1 else None
    if source is None:
        return None
    if node.op == "call_method" and node.target in ("reshape", "unsqueeze", "view"):
        shaped: torch.Tensor = getattr(source, str(node.target))(*node.args[1:])
        return shaped
    if node.target is operator.getitem:
        part: torch.Tensor = source[node.args[1]]  # type: ignore[index]
        return part
    return source if node.op == "call_function" and node.target in _ARITHMETIC else None


def activations_of(node: fx.Node) -> list[fx.Node]:
    """What a node reads that depends on the model's inputs."""
    return [a for a in node.all_input_nodes if _is_activation(a)]


def is_clamp(node: fx.Node) -> bool:
    """Whether a node only limits values, which a layer can do to its result."""
    return _kind(node) in _CLAMPS and is_unary(node)


def _is_seen_by_others(node: fx.Node) -> bool:
    """Whether a node writes into its input, which others read."""
    written = isinstance(node.target, str) and node.target.endswith("_")
    return written and node.op == "call_method" and only_user_of(input_of(node)) is not node


def _is_activation(node: fx.Node) -> bool:
    """Whether a node makes a tensor that depends on the inputs: no constant, size or number."""
    if node.op == "call_method":
        return node.target not in _SIZES and not _is_vector(node)
    if node.target is getattr:
        return node.args[1] not in ("ndim", "shape")
    if node.op == "call_function" and node.target in _ARITHMETIC:
        return any(map(_is_activation, node.all_input_nodes))
    return node.op != "get_attr"


def _kind(node: fx.Node) -> object:
    if node.op == "call_module":
        return type(module_of(node))
    return node.target if node.op in ("call_function", "call_method") else None


def remove(node: fx.Node) -> None:
    """Removes a node; its users get its input."""
    node.replace_all_uses_with(input_of(node))
    node.graph.erase_node(node)


def replace_by_module(
    node: fx.Node, module: nn.Module, *args: Argument, **kwargs: Argument
) -> None:
    """Puts the call of a new module in the place of a node."""
    path = add_module(node, module)
    with node.graph.inserting_before(node):
        call = node.graph.call_module(path, args, kwargs)
    call.meta = node.meta
    node.replace_all_uses_with(call)
    node.graph.erase_node(node)


def add_module(node: fx.Node, module: nn.Module, suffix: str = "") -> str:
    """Adds a module that belongs to a node, in the mode of the model.

    Returns:
        Its path: beside the module that the node calls, or in the one whose forward the node is in.
    """
    owner = owner_of(node)
    if node.op == "call_module":
        path = f"{node.target}{suffix}"
    else:
        scope = list(node.meta.get("nn_module_stack", {}))[-1:]
        name = getattr(node.target, "__name__", node.target)
        path = ".".join([*scope, f"{name}{suffix}"])
    taken = {name for name, _ in owner.named_modules()}
    candidates = itertools.chain([path], (f"{path}_{n}" for n in itertools.count(1)))
    free = next(candidate for candidate in candidates if candidate not in taken)
    owner.add_submodule(free, module.train(owner.training))
    return free
