"""The graph of a network's forward pass, recorded from a run on images.

For networks that ``torch.fx`` cannot trace although their graph is fixed: with checks of the input, tables and loops
over shapes. Shapes: images [N, C, H, W].
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree  # torch flattens nested outputs with it; there is no public one

# What a tensor may be asked for without its values being read.
FACTS = frozenset({
    *("shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "__len__", "stride", "layout", "nbytes"),
    *("device", "dtype", "type", "get_device", "is_cuda", "is_meta", "is_mkldnn", "element_size", "itemsize"),
    *("is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_nested", "is_sparse", "is_quantized"),
    *("requires_grad", "is_leaf", "grad", "grad_fn", "is_neg", "is_conj", "is_inference", "names", "data_ptr"),
    *("storage_offset", "is_same_size", "is_tensor", "result_type", "can_cast", "__hash__", "_is_view"),
})  # fmt: skip


class GraphError(Exception):
    """The path through the network depends on values, so that one run does not show its graph."""


def record(module: nn.Module, images_NCHW: Tensor) -> fx.Graph:
    """Return the graph of the run of ``module`` on ``images_NCHW``, in evaluation mode.

    Modules of torch.nn are leaves, as in ``torch.fx``.

    Raises:
        GraphError: Python code reads a value of a tensor that depends on the images.
    """
    recorder = Recorder(copy.deepcopy(module).eval())
    with torch.no_grad(), torch.random.fork_rng(devices=[]), recorder:
        recorder.finish(recorder.module(recorder.start(images_NCHW)))
    return recorder.graph


class Recorder(TorchFunctionMode):
    """Notes every function of tensors outside of leaf modules, and every call of a leaf module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.graph = module, fx.Graph()
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Tensor] = []  # so that no id is given twice
        self.depth = 0  # of leaf modules that run
        self.parameters = {id(each): name for name, each in (*module.named_parameters(), *module.named_buffers())}
        for name, part in module.named_modules():
            if name and fx.Tracer().is_leaf_module(part, name):
                part.register_forward_pre_hook(self._enter, prepend=True)
                part.register_forward_hook(lambda _, args, kwargs, output, name=name: self._leave(
                    name, args, kwargs, output
                ), with_kwargs=True)  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and note it."""
        kwargs = kwargs or {}
        if self.depth:
            return func(*args, **kwargs)
        inputs = self._nodes((args, kwargs))  # before an operation in place gives a tensor a new node
        result = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            method = type(func).__name__ in ("method_descriptor", "wrapper_descriptor") and bool(args)
            op, target = ("call_method", func.__name__) if method else ("call_function", func)
            self._note(self.graph.create_node(op, target, *inputs), result)
        elif _name(func) not in FACTS and _reads(inputs):
            raise GraphError(f"{_name(func)} reads a value")
        return result

    def start(self, images_NCHW: Tensor) -> Tensor:
        """Note the images and return them."""
        images_NCHW = images_NCHW.clone()
        self._note(self.graph.placeholder("images"), images_NCHW)
        return images_NCHW

    def finish(self, result: Any) -> None:
        """Note the output."""
        self.graph.output(self._nodes(((result,), {}))[0][0])

    def _enter(self, *_: Any) -> None:
        self.depth += 1

    def _leave(self, name: str, args: Any, kwargs: Any, output: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self._note(self.graph.create_node("call_module", name, *self._nodes((args, kwargs))), output)

    def _note(self, node: fx.Node, result: Any) -> None:
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.nodes[id(leaf)] = node
                self.alive.append(leaf)

    def _nodes(self, arguments: Any) -> Any:
        """Return nested arguments with the node of each tensor in its place."""
        return pytree.tree_map(lambda leaf: self._node(leaf) if isinstance(leaf, Tensor) else leaf, arguments)

    def _node(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self.nodes:
            name = self.parameters.get(id(tensor), "a_constant")
            self._note(self.graph.create_node("get_attr", name), tensor)
        return self.nodes[id(tensor)]


def _name(func: Any) -> str:
    name = getattr(func, "__name__", "")
    owner = getattr(func, "__self__", None)
    return str(getattr(owner, "__name__", name)) if name == "__get__" else str(name)


def _reads(inputs: Any) -> bool:
    """Return whether an argument depends on the images."""
    return any(isinstance(leaf, fx.Node) and leaf.op != "get_attr" for leaf in pytree.tree_leaves(inputs))
