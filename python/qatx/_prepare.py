"""`prepare`: puts fake quantization into a model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from qatx import nn as qnn
from qatx._nodes import (
    activations_of,
    add_module,
    axis_of_unary,
    cat_inputs,
    input_of,
    is_add,
    is_attention,
    is_average_pool,
    is_bilinear,
    is_clamp,
    is_div,
    is_layer_norm,
    is_matmul,
    is_mean,
    is_mul,
    is_score,
    is_softmax,
    is_sub,
    is_unary,
    keeps_values,
    module_of,
    only_user_of,
    owner_of,
    relu_of,
    remove,
    replace_by_module,
    takes_relu,
)
from qatx._trace import trace
from qatx.nn._layer import ProductLayer, QuantizedLayer, Relu, WeightedLayer
from qatx.nn._make import activation_fake_quantize
from qatx.nn.conv_bn import CONV_BN
from qatx.nn.fake_quantize import FakeQuantize
from qatx.qconfig import QConfig


def prepare(
    model: nn.Module,
    qconfig: QConfig | None = None,
    *,
    overrides: Mapping[str, QConfig] | None = None,
) -> fx.GraphModule:
    """Copies a float model into one that trains with quantized weights and activations.

    `Conv1d`, `Conv2d`, `Conv3d`, `ConvTranspose1d`, `ConvTranspose2d`, `ConvTranspose3d` and
    `Linear` modules, with the batch normalization and the ReLU or ReLU6 behind them, `Embedding`
    and `EmbeddingBag`, additions of two tensors and `scaled_dot_product_attention` become modules
    of `qatx.nn`, under the path of the layer. Attention and encoders of `torch.nn`'s transformers
    are spelled out in such layers. All else stays as it is, in float: among others convolutions
    that do not pad with zeros, layers with hooks, `F.conv2d` and `F.linear`.

    A value is quantized where it is made, once, if a convolution, a linear layer, an addition, a
    product of matrices or an average pooling uses it, directly or behind operators that keep values
    (max pooling, reshaping, slicing, padding with zeros, nearest upsampling, dropout, ...). Values
    that are concatenated share one scale. So is a value from which a product of two values, a
    function of each element (sigmoid, GELU, multiplication with a number or with one for each
    channel, batch normalization that has no layer before it, ...) or bilinear upsampling makes such
    a value, or softmax or layer normalization, unless that takes it unrounded from the operator
    that makes it. So are the model's inputs. An exception: one operand of an addition that is the
    output of a convolution or linear layer and is used nowhere else stays in float, because the
    addition is then done inside that layer. The second factor of a product of matrices, and the key
    and value of attention, are quantized symmetrically: they take the place of weights. The model's
    outputs are not quantized.

    With `activation_quantizer="dynamic"` linear layers quantize what they read themselves, row by
    row, and all that has no weight stays float (additions and attention, too), unless a convolution
    reads what it makes.

    The forward is traced in evaluation mode: what the model does in training only (auxiliary
    outputs) is left out. Dropout and batch normalization follow the mode of the prepared model.

    Args:
        model: A float32 model that torch.fx can trace. It is not changed, and nothing is shared
            with the result.
        qconfig: How to quantize; None for `QConfig()`: 8 bits, a scale for each output channel of a
            weight, learned scales.
        overrides: Other ways for single layers, by the path of a convolution or linear layer or of
            a module around it (the longest that fits counts). A layer's `QConfig` says how its
            weight and the values that it reads are quantized; a value that several read is
            quantized for the one with the most bits.

    Returns:
        A model in the mode of `model`. Call `qatx.calibrate` on it next.

    Raises:
        TypeError: `model` is not a module, or `qconfig` or one in `overrides` not a `QConfig`.
        ValueError: `model` is prepared already, has nothing to quantize, or quantizable weights
            that are not float32; or a path in `overrides` has no layer.
        RuntimeError: torch.fx cannot trace `model`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> prepared = qatx.prepare(model)
        >>> type(getattr(prepared, "0"))
        <class 'qatx.nn.conv.Conv2d'>
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"qatx.prepare: model must be a torch.nn.Module, got {type(model).__name__}"
        )
    qconfig = QConfig() if qconfig is None else qconfig
    if not isinstance(qconfig, QConfig):
        raise TypeError(f"qatx.prepare: qconfig must be a qatx.QConfig, got {qconfig!r}")
    qconfigs = _QConfigs(qconfig, dict(overrides or {}))
    for name, module in model.named_modules():
        if isinstance(module, (QuantizedLayer, FakeQuantize)):
            raise ValueError(
                f"qatx.prepare: the model is prepared already: {name or 'it'} is a "
                f"{type(module).__name__}"
            )
    prepared = trace(model)
    _put_layers_in(prepared.graph, qconfigs)
    _quantize_values(prepared.graph, qconfigs)
    qconfigs.check_all_used()
    if not any(isinstance(module, QuantizedLayer) for module in prepared.modules()):
        raise ValueError(
            f"qatx.prepare: {type(model).__name__} has nothing to quantize: no convolution, "
            "torch.nn.Linear or addition"
        )
    prepared.delete_all_unused_submodules()
    for module in prepared.modules():
        if type(module) is nn.Module:  # in the place of containers; torch.fx has made them
            module.training = prepared.training
    prepared.graph.lint()
    prepared.recompile()
    return prepared


class _QConfigs:
    """Which `QConfig` belongs to which layer."""

    def __init__(self, default: QConfig, overrides: dict[str, QConfig]) -> None:
        for path, qconfig in overrides.items():
            if not isinstance(qconfig, QConfig):
                raise TypeError(
                    f"qatx.prepare: overrides[{path!r}] must be a qatx.QConfig, got {qconfig!r}"
                )
        self.default = default
        self._overrides = overrides
        self._used: set[str] = set()

    def of(self, path: str) -> QConfig:
        """That of the layer at `path`."""
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            prefix = ".".join(parts[:end])
            if prefix in self._overrides:
                self._used.add(prefix)
                return self._overrides[prefix]
        return self.default

    @property
    def leaves_float(self) -> bool:
        """Whether what has no weight reads no integers of its own accord."""
        return self.default.activation_quantizer == "dynamic"

    def check_all_used(self) -> None:
        """Raises ValueError where a path of `overrides` fits no layer."""
        unused = sorted(set(self._overrides) - self._used)
        if unused:
            raise ValueError(
                f"qatx.prepare: overrides has no convolution or linear layer at {unused}"
            )


def _put_layers_in(graph: fx.Graph, qconfigs: _QConfigs) -> None:
    """Makes each conv-bn-relu, linear-relu and add-relu one node, with its output in float."""
    calls = _count_calls(graph)
    device = _device_of(graph)
    for node in graph.nodes:
        if is_add(node) and not qconfigs.leaves_float:
            relu = _absorb_relu(node)
            add = qnn.Add(qconfig=qconfigs.default, relu=relu, quantize_output=False, device=device)
            replace_by_module(node, add, *node.args)
        elif is_attention(node) and not qconfigs.leaves_float:
            attention = qnn.ScaledDotProductAttention(qconfig=qconfigs.default, device=device)
            replace_by_module(node, attention, *node.args, **node.kwargs)
        elif _is_quantizable(module_of(node)):
            # What is behind a layer that is called in two places may differ between them.
            fuse = calls[node.target] == 1
            bn = _absorb_batch_norm(node, calls) if fuse else None
            relu = fuse and takes_relu(node) and _absorb_relu(node)
            try:
                layer = _quantized(module_of(node), bn, qconfigs.of(str(node.target)), relu)
            except ValueError as error:
                raise ValueError(f"qatx.prepare: {node.target}: {error}") from error
            owner_of(node).set_submodule(str(node.target), layer)


_LAYERS = {
    nn.Conv1d: qnn.Conv1d,
    nn.Conv2d: qnn.Conv2d,
    nn.Conv3d: qnn.Conv3d,
    nn.ConvTranspose1d: qnn.ConvTranspose1d,
    nn.ConvTranspose2d: qnn.ConvTranspose2d,
    nn.ConvTranspose3d: qnn.ConvTranspose3d,
    nn.Embedding: qnn.Embedding,
    nn.EmbeddingBag: qnn.EmbeddingBag,
    nn.Linear: qnn.Linear,
}


def _is_quantizable(module: nn.Module | None) -> bool:
    if type(module) not in _LAYERS:
        return False
    assert module is not None
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return False
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and not _is_plain(module):
        return False
    return not (module._forward_pre_hooks or module._forward_hooks)  # they may do anything


def _is_plain(table: nn.Embedding | nn.EmbeddingBag) -> bool:
    return table.max_norm is None and not table.sparse and not table.scale_grad_by_freq


def _quantized(
    module: nn.Module | None, bn: nn.Module | None, qconfig: QConfig, relu: Relu
) -> nn.Module:
    """The layer of `qatx.nn` for a float one, with its output in float."""
    assert module is not None
    if bn is not None:
        conv_bn: Any = CONV_BN[type(module), type(bn)]
        folded: nn.Module = conv_bn._adopt(module, qconfig, relu, quantize_output=False)
        return folded._adopt_bn(bn)  # type: ignore[operator, no-any-return]
    layer: Any = _LAYERS[type(module)]
    adopted: nn.Module = layer._adopt(module, qconfig, relu, quantize_output=False)
    return adopted


def _absorb_batch_norm(node: fx.Node, calls: Counter[object]) -> nn.Module | None:
    """Removes batch normalization behind a node that can be folded, and returns its module."""
    user = only_user_of(node)
    bn = None if user is None else module_of(user)
    if user is None or (type(module_of(node)), type(bn)) not in CONV_BN:
        return None
    if calls[user.target] > 1 or getattr(bn, "running_mean", None) is None:
        return None
    remove(user)
    owner_of(node).delete_submodule(str(user.target))
    return bn


def _absorb_relu(node: fx.Node) -> Relu:
    """Removes the ReLU behind a node and says which it is."""
    user = only_user_of(node)
    relu = False if user is None else relu_of(user)
    if user is not None and relu:
        remove(user)
    return relu


def _quantize_values(graph: fx.Graph, qconfigs: _QConfigs) -> None:
    """Quantizes what integer operators read, where it is made."""
    shared = _find_shared(graph, qconfigs)
    made: dict[int, tuple[FakeQuantize, str]] = {}  # with their paths
    calls = _count_calls(graph)
    device = _device_of(graph)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node in list(graph.nodes):
        if node not in shared:
            continue
        scale = shared[node]
        layer = module_of(node)
        inside = isinstance(layer, QuantizedLayer) and calls[node.target] == 1
        if id(scale) not in made:
            positive = all(_is_positive(value) for value in scale.values)
            qconfig = scale.qconfig or qconfigs.default
            new = activation_fake_quantize(
                qconfig, device, positive=positive, symmetric=scale.symmetric
            )
            path = f"{node.target}.output_fake_quantize"
            if not inside:
                path = add_module(node, new, "_fake_quantize")
            made[id(scale)] = (new.train(owner_of(node).training), path)
        fake_quantize, path = made[id(scale)]
        if inside:
            assert isinstance(layer, QuantizedLayer)
            layer.output_fake_quantize = fake_quantize
            continue
        with graph.inserting_after(inputs[-1] if node in inputs else node):
            quantized = graph.call_module(path, (node,))
        node.replace_all_uses_with(quantized, lambda user, new=quantized: user is not new)


def _is_positive(node: fx.Node) -> bool:
    layer = module_of(node)
    return isinstance(layer, QuantizedLayer) and bool(layer.relu)


class _Scale:
    """What quantizes one value, or all those that are put together into one."""

    def __init__(self) -> None:
        self.values: list[fx.Node] = []
        self.qconfig: QConfig | None = None  # of the finest layer that reads them
        self.symmetric = False  # a product reads them in the place of its weight


def _find_shared(graph: fx.Graph, qconfigs: _QConfigs) -> dict[fx.Node, _Scale]:
    """The values that integer operators read."""
    scales: dict[fx.Node, _Scale] = {}
    within: set[fx.Node] = set()  # results that the operator behind them takes unrounded
    # From the end: whether a multiplication or an activation function is done in integers depends
    # on what reads its result.
    for node in reversed(graph.nodes):
        is_weighted = isinstance(module_of(node), WeightedLayer)
        qconfig = qconfigs.of(str(node.target)) if is_weighted else None
        if _is_dynamic(module_of(node)) and not qconfigs.leaves_float:
            # What makes the rows may do so in the program, which goes on with them unrounded.
            origins = _origins(input_of(node))
            within.update(origins if len(origins) == 1 else [])
            continue
        is_read = node in scales or node in within
        if not (is_weighted or is_read) and qconfigs.leaves_float:
            continue
        for source in _integer_inputs(node, is_read=is_read):
            if _takes_unrounded(source, node):
                within.add(source)
                continue
            scale = _Scale()
            scale.qconfig = qconfig
            scale.symmetric = source in _weight_operands(node)
            for origin in _origins(source):
                before = scales.get(origin)
                if before is None:
                    scale.values.append(origin)
                elif before is not scale:
                    scale.values += before.values
                    scale.qconfig = _finer(scale.qconfig, before.qconfig)
                    scale.symmetric |= before.symmetric
                for value in scale.values:
                    scales[value] = scale
    return scales


def _origins(node: fx.Node) -> list[fx.Node]:
    """Where the elements of a node's output are made: at one place, or where they were joined."""
    while keeps_values(node):
        node = input_of(node)
    joined = cat_inputs(node)
    return [origin for part in joined for origin in _origins(part)] if joined else [node]


def _takes_unrounded(source: fx.Node, node: fx.Node) -> bool:
    """Whether an integer program goes on with a value as it is made, before it is rounded."""
    if only_user_of(source) is None:
        return False
    layer = isinstance(module_of(source), QuantizedLayer) or is_average_pool(source)
    if is_unary(node):
        if is_clamp(node) and (layer or is_mul(source) or _is_clamped_result(source)):
            return True
        if not is_unary(source) or _is_clamped_result(source):
            return False
        return len(_axes_of_functions(node)) <= 1
    normalized = is_layer_norm(source) or is_softmax(source)
    made = layer or normalized or is_score(source) or _is_pointwise(source)
    return (is_layer_norm(node) or is_softmax(node)) and made


def _axes_of_functions(node: fx.Node) -> set[int | str]:
    """Between the indices of which dimensions a function of a function ... of a value differs."""
    axes = set()
    while is_unary(node):
        axes.add(axis_of_unary(node))
        (node,) = activations_of(node)
    return {axis for axis in axes if axis is not None}


def _is_clamped_result(node: fx.Node) -> bool:
    """Whether a node is a clamp that the layer or multiplication before it does."""
    if not is_clamp(node) or (is_unary(input_of(node)) and not is_clamp(input_of(node))):
        return False
    return _takes_unrounded(input_of(node), node)


def _finer(a: QConfig | None, b: QConfig | None) -> QConfig | None:
    """The one with more activation bits; None, of a reader without a weight, says nothing."""
    if a is None or b is None:
        return a or b
    return b if b.activation.bits > a.activation.bits else a


def _integer_inputs(node: fx.Node, *, is_read: bool) -> list[fx.Node]:
    """The values that a node reads as integers; `is_read`: its own result is read so."""
    layer = module_of(node)
    if isinstance(layer, qnn.Add):
        fused = _fused_operand(node)
        return [operand for operand in node.all_input_nodes if operand is not fused]
    if _is_dynamic(layer):
        return []
    if isinstance(layer, ProductLayer) or is_average_pool(node):
        return [input_of(node)]
    if isinstance(layer, qnn.ScaledDotProductAttention):
        return _attended(node)
    if is_matmul(node):
        return node.all_input_nodes
    # Where nothing reads the result in integers, rounding before these would only lose precision.
    if not is_read:
        return []
    if is_layer_norm(node) or is_softmax(node):
        source = input_of(node)
        # A program takes the model's input in float where a layer normalization reads it.
        return [] if is_layer_norm(node) and source.op == "placeholder" else [source]
    return activations_of(node) if _is_pointwise(node) else []


def _attended(node: fx.Node) -> list[fx.Node]:
    """The query, key and value of attention."""
    names = ("query", "key", "value")
    given = [*node.args, *(node.kwargs[name] for name in names if name in node.kwargs)]
    return [value for value in given[:3] if isinstance(value, fx.Node)]


def _weight_operands(node: fx.Node) -> list[fx.Node]:
    """What a node reads in the place of a weight."""
    if isinstance(module_of(node), qnn.ScaledDotProductAttention):
        return _attended(node)[1:]
    if is_matmul(node):
        return [value for value in node.args[1:] if isinstance(value, fx.Node)]
    return []


def _is_pointwise(node: fx.Node) -> bool:
    """Whether a node makes new values of quantized ones, without a layer."""
    combines = is_sub(node) or is_mul(node) or is_div(node)
    return combines or is_unary(node) or is_bilinear(node) or is_mean(node)


def _fused_operand(add: fx.Node) -> fx.Node | None:
    """The operand inside whose layer the addition is done.

    Of two it is the later one, because the other operand must be there by then.
    """
    operands = add.all_input_nodes
    return max(filter(_can_add, operands), default=None) if len(operands) == 2 else None


def _can_add(node: fx.Node) -> bool:
    layer = module_of(node)
    if not isinstance(layer, (qnn.Conv1d, qnn.Conv2d, qnn.Conv3d, qnn.Linear)):
        return False
    if _is_dynamic(layer):
        return False
    return not layer.relu and only_user_of(node) is not None


def _is_dynamic(layer: nn.Module | None) -> bool:
    """Whether a layer quantizes what it reads itself."""
    return isinstance(layer, qnn.Linear) and layer.dynamic_quant_max is not None


def _count_calls(graph: fx.Graph) -> Counter[object]:
    return Counter(node.target for node in graph.nodes if node.op == "call_module")


def _device_of(graph: fx.Graph) -> torch.device:
    assert graph.owning_module is not None
    tensors = itertools.chain(graph.owning_module.parameters(), graph.owning_module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
