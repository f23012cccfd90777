"""From a float model to a torch.fx graph in the form that `prepare` looks for."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch.nn.functional as F
from torch import fx, nn

from qatx._nodes import (
    input_of,
    keeps_values,
    module_of,
    only_user_of,
    relu_of,
    remove,
    replace_by_module,
    takes_relu,
)
from qatx._transformers import Mask, spell_out

_DROPOUTS: dict[object, Callable[..., nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A subclass of batch normalization looks at `training`, which tracing through it would fix.
        leaf = isinstance(m, (nn.modules.batchnorm._NormBase, Mask))
        return leaf or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule:
    """Copies a model into a graph.

    The forward is traced in evaluation mode, so that the graph does not depend on the mode that the
    model is in.

    Raises:
        RuntimeError: torch.fx cannot trace the model.
    """
    model = copy.deepcopy(model)
    spell_out(model)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.inplace = False  # the same values, which the converter can follow
    modes = {module: module.training for module in model.modules()}
    try:
        graph = _Tracer().trace(model.eval())
    except Exception as error:
        raise RuntimeError(
            f"qatx.prepare: torch.fx cannot trace {type(model).__name__}: {error}\n"
            "The forward must not branch on the values of tensors. Rewrite that part, keep it out "
            "of the model that is prepared, or build the model from the modules of qatx.nn."
        ) from error
    for module, mode in modes.items():
        module.training = mode
    traced = fx.GraphModule(model, graph, class_name=type(model).__name__)
    for step in (_make_dropout_a_module, _remove_identity, _remove_unused_mean, _move_relu_up):
        for node in list(traced.graph.nodes):
            step(node)
    return traced


def _make_dropout_a_module(node: fx.Node) -> None:
    """Lets `F.dropout(x, training=self.training)` follow the mode; tracing has fixed it."""
    dropout = _DROPOUTS.get(node.target)
    if dropout is not None and not node.kwargs["training"]:
        replace_by_module(node, dropout(p=node.kwargs["p"]), input_of(node))


def _remove_identity(node: fx.Node) -> None:
    if type(module_of(node)) is nn.Identity:
        remove(node)


def _remove_unused_mean(node: fx.Node) -> None:
    """Removes the average weights of attention where nobody wants them."""
    if node.target == "mean" and not node.users:
        node.graph.erase_node(node)


def _move_relu_up(relu: fx.Node) -> None:
    """Makes relu(max_pool(x)) max_pool(relu(x)), an equal that fuses with what makes x.

    So with reshaping and dropout; but dropout scales, which moves the upper limit of ReLU6.
    """
    if relu_of(relu) is not True:
        return
    moved_over = []
    source = input_of(relu)
    while keeps_values(source) and only_user_of(source):
        moved_over.append(source)
        source = input_of(source)
    if moved_over and only_user_of(source) and takes_relu(source):
        relu.replace_all_uses_with(moved_over[0])
        relu.replace_input_with(moved_over[0], source)
        moved_over[-1].replace_input_with(source, relu)
        source.append(relu)
