"""Reconstruct the outputs of the layers of a pruned network, without training.

Each layer's weights are fitted by least squares over training images to the layer's outputs before pruning. Its inputs
are those of the pruned network, so errors of earlier layers are compensated too.

Shapes: N images, P positions sampled of each, I inputs of a layer (taps included), O outputs.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.artifacts.dataflow import calls, only_user, trace
from kondense.data.dataset import Dataset
from kondense.prune.context import Context
from kondense.training.device import move

IMAGES = 2_000
ROWS = 20_000  # equations per layer; the largest layer of ResNet-8 has 576 unknowns per output
ELEMENTS = 2**24  # most elements of an activation of all images together, 64 MiB; limits the number of images
RIDGE = 1e-3  # relative to the mean square of the inputs; damps weights that the images determine poorly
BATCH = 250


@torch.no_grad()
def reconstruct(
    module: nn.Module,
    before: nn.Module,
    kept_outputs: Mapping[str, Tensor],
    context: Context,
    *,
    images: int = IMAGES,
    rows: int = ROWS,
) -> None:
    """Fit the weights of every layer of ``module`` to the outputs of ``before``, in place, one after the other.

    Not changed: grouped convolutions, whose channels keep their inputs, and layers with weights that an earlier stage
    pruned.

    Args:
        module: the network after the removal; it ends on the CPU, in evaluation mode.
        before: the network before the removal.
        kept_outputs: indices of the remaining outputs, by layer that lost some.
        context: gives training images and the seed.
        images: the most images; the number of equations is proportional.
        rows: equations per layer at the default number of images.

    Source: He et al. 2017 (channel pruning), section 3.1, equation 5, and section 3.2 (outputs of the network
    before pruning, inputs of the pruned one). Deviation: a ridge towards the current weights.
    """
    count = _image_count(module, context.dataset, images)
    Targets(before, context, count, rows * images // IMAGES).fit(module, kept_outputs)


class Targets:
    """The outputs of the layers of a network, to which smaller ones are fitted.

    Args:
        before: the network; it ends on the CPU, in evaluation mode.
        context: gives training images and the seed.
        images: their number.
        rows: equations per layer.
    """

    def __init__(self, before: nn.Module, context: Context, images: int, rows: int) -> None:
        self.masked = {name.rpartition(".")[0] for name in context.masked}
        self.device, seed = context.device, context.config.seed
        self.images_NCHW = _images(context.dataset, images, seed).to(self.device)
        self.sampler = Sampler(images, rows, seed)
        move(before, self.device).eval()
        self.places: dict[str, int] = {}  # of every image, by linear layer
        self.wanted = _outputs(before, list(self._layers(before)), self.images_NCHW, self.sampler, self.places)
        move(before, "cpu")
        self.norms = _norms_after(before)

    def _layers(self, module: nn.Module) -> dict[str, nn.Module]:
        return {name: layer for name, layer in module.named_modules() if name not in self.masked and _can_solve(layer)}

    @torch.no_grad()
    def fit(
        self,
        module: nn.Module,
        kept_outputs: Mapping[str, Tensor],
        touched: Collection[str] = (),
        *,
        only: bool = False,
    ) -> None:
        """Fit the weights of the layers of ``module`` (see ``reconstruct``).

        Args:
            module: the network after the removal; it ends on the CPU, in evaluation mode.
            kept_outputs: indices of the remaining outputs, by layer that lost some.
            touched: if given, layers that run before the first of these are as they were and stay so.
            only: leave the layers as they are that are not among ``touched``, and run the network no further.
        """
        wanted = dict(self.wanted)
        for name, kept in kept_outputs.items():
            if name in wanted:
                wanted[name] = wanted[name][:, kept.to(self.device)]
        norms = {name: module.get_submodule(norm) for name, norm in self.norms.items()}
        layers = self._layers(module)
        if only:
            layers = {name: layer for name, layer in layers.items() if name in touched}
        first = layers.keys() & set(touched) or layers.keys()
        move(module, self.device).eval()
        _fit(module, layers, wanted, self.images_NCHW, self.sampler, norms=norms, first=first, places=self.places)
        move(module, "cpu")


def _can_solve(layer: nn.Module) -> bool:
    """Return whether the layer computes what its settings say; a class of another library may pad its inputs itself."""
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


class Sampler:
    """Samples positions of a layer's outputs: different ones in every image, the same ones at every call."""

    def __init__(self, images: int, rows: int, seed: int) -> None:
        self.images, self.rows, self.seed = images, rows, seed
        self.chosen: dict[int, Tensor] = {}

    def positions(self, length: int) -> Tensor:
        """Return positions [N, P] in [0, length), without repetition within an image."""
        if length not in self.chosen:
            count = min(length, max(1, self.rows // self.images))
            generator = torch.Generator().manual_seed(self.seed)
            self.chosen[length] = torch.rand(self.images, length, generator=generator).topk(count, dim=1).indices
        return self.chosen[length]


def trial_targets(before: nn.Module, context: Context, images: int) -> Targets:
    """Return the targets of networks that lose something of ``before``, from fewer images (see ``reconstruct``)."""
    return Targets(before, context, _image_count(before, context.dataset, images), ROWS * images // IMAGES)


def _image_count(module: nn.Module, dataset: Dataset, most: int) -> int:
    return max(1, min(most, ELEMENTS // _largest_output(module, dataset.shape), len(dataset.train)))


def _images(dataset: Dataset, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return dataset.normalise(dataset.train.images[torch.randperm(len(dataset.train), generator=generator)[:count]])


def _largest_output(module: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the number of elements of the largest module output for one image."""
    largest = 0

    def note(output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [layer.register_forward_hook(lambda _, __, output: note(output)) for layer in module.modules()]
    module(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return largest


def _outputs(
    before: nn.Module, names: list[str], images_NCHW: Tensor, sampler: Sampler, places: dict[str, int]
) -> dict[str, Tensor]:
    """Return the outputs of the named layers at the sampled positions, [N * P, O] each, and note their positions."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    start = 0

    def keep(layer: nn.Module, name: str, output: Tensor) -> None:
        output_NOL = _by_position(layer, output)
        if len(output) != count or output_NOL is None:  # such as windows of images, which stand in the first axis
            return
        places[name] = output_NOL.shape[2]
        chosen = sampler.positions(places[name])[start : start + count].to(output.device)
        index = chosen.unsqueeze(1).expand(-1, output_NOL.shape[1], -1)
        outputs[name].append(output_NOL.gather(2, index).transpose(1, 2).flatten(0, 1))

    hooks = [
        before.get_submodule(name).register_forward_hook(lambda layer, _, output, name=name: keep(layer, name, output))
        for name in names
    ]
    for part_NCHW in images_NCHW.split(BATCH):
        count = len(part_NCHW)
        before(part_NCHW)
        start += count
    for hook in hooks:
        hook.remove()
    batches = len(images_NCHW.split(BATCH))
    return {name: torch.cat(parts) for name, parts in outputs.items() if len(parts) == batches}  # called once


def _by_position(layer: nn.Module, values: Tensor) -> Tensor | None:
    """Return a layer's inputs or outputs with their positions in the last axis, [N, C, L]; None without images."""
    if isinstance(layer, nn.Linear):
        return values.flatten(1, -2).transpose(1, 2) if values.ndim > 2 else values.unsqueeze(-1)
    return values.flatten(2) if values.ndim == 4 else None


def _fit(
    module: nn.Module,
    layers: Mapping[str, nn.Module],
    wanted: Mapping[str, Tensor],
    images_NCHW: Tensor,
    sampler: Sampler,
    *,
    norms: Mapping[str, nn.Module],
    first: Collection[str],
    places: Mapping[str, int],
) -> None:
    """Run the network until all are solved: from one of ``first`` on, each layer when its inputs arrive."""
    left, begun = layers.keys() & wanted.keys(), False

    def solve(name: str, inputs: Tensor) -> None:
        nonlocal begun
        begun = begun or name in first
        if begun and name in left:
            left.remove(name)
            tokens = isinstance(layers[name], nn.Linear) and inputs.ndim > 2  # a norm behind would be of another axis
            if tokens and inputs.shape[1:-1].numel() != places[name]:
                return  # it works along another axis, and the channels that it works on are fewer
            norm = None if tokens else norms.get(name)
            _solve(layers[name], norm, inputs, wanted[name], sampler)
        if not left:
            raise _SolvedError

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: solve(name, inputs[0]))
        for name, layer in layers.items()
    ]
    try:
        if left:
            module(images_NCHW)
    except _SolvedError:
        pass
    finally:
        for hook in hooks:
            hook.remove()


class _SolvedError(Exception):
    """Ends a pass whose rest is of no use."""


def _solve(layer: nn.Module, norm: nn.Module | None, inputs: Tensor, wanted_RO: Tensor, sampler: Sampler) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    shifts = layer.bias is not None or norm is not None
    fit = _fit_few if len(wanted_RO) < layer.weight[0].numel() else _fit_many
    solution = fit(_batches(layer, inputs, wanted_RO, sampler), layer.weight.flatten(1), shifts)
    if solution is None:
        return  # constant inputs do not determine the weights
    change_IO, mean_I, error_O = solution
    layer.weight.add_(change_IO.T.reshape(layer.weight.shape))
    if shifts:
        _shift(layer, norm, error_O - mean_I @ change_IO)


Solution = tuple[Tensor, Tensor, Tensor]  # change of the weights [I, O], means of the inputs [I] and errors [O]


def _fit_many(batches: Iterable[tuple[Tensor, Tensor]], weight_OI: Tensor, shifts: bool) -> Solution | None:
    """Solve the normal equations, [I, I]: for more rows than unknowns."""
    outputs, unknowns = weight_OI.shape
    zeros = weight_OI.new_zeros((), dtype=torch.float64)
    gram_II, moment_IO = zeros.expand(unknowns, unknowns).clone(), zeros.expand(unknowns, outputs).clone()
    mean_I, error_O, rows = zeros.expand(unknowns).clone(), zeros.expand(outputs).clone(), 0
    for inputs_RI, wanted_RO in batches:
        missing_RO = wanted_RO - inputs_RI @ weight_OI.T
        gram_II += inputs_RI.T @ inputs_RI
        moment_IO += inputs_RI.T @ missing_RO
        mean_I += inputs_RI.sum(0)
        error_O += missing_RO.sum(0)
        rows += len(inputs_RI)
    if shifts:  # the best shift of each output follows from the means
        mean_I, error_O = mean_I / rows, error_O / rows
        gram_II -= rows * torch.outer(mean_I, mean_I)
        moment_IO -= rows * torch.outer(mean_I, error_O)
    scale = float(gram_II.diagonal().mean())
    if scale <= 0.0:
        return None
    gram_II.diagonal().add_(RIDGE * scale)
    return torch.linalg.solve(gram_II, moment_IO), mean_I, error_O


def _fit_few(batches: Iterable[tuple[Tensor, Tensor]], weight_OI: Tensor, shifts: bool) -> Solution | None:
    """Solve the same ridge in its dual form, [R, R]: for fewer rows than unknowns."""
    parts = list(batches)
    inputs_RI, wanted_RO = torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts])
    missing_RO = wanted_RO - inputs_RI @ weight_OI.T
    mean_I, error_O = inputs_RI.mean(0) * shifts, missing_RO.mean(0) * shifts
    centred_RI = inputs_RI - mean_I
    gram_RR = (centred_RI @ centred_RI.T).double()
    scale = float(gram_RR.diagonal().sum()) / inputs_RI.shape[1]
    if scale <= 0.0:
        return None
    gram_RR.diagonal().add_(RIDGE * scale)
    weights_RO = torch.linalg.solve(gram_RR, (missing_RO - error_O).double())
    return (centred_RI.T @ weights_RO.to(centred_RI.dtype)).double(), mean_I.double(), error_O.double()


def _shift(layer: nn.Conv2d | nn.Linear, norm: nn.Module | None, shift_O: Tensor) -> None:
    """Set the bias so that the outputs are those of the weights alone plus ``shift_O``."""
    if norm is not None:  # its mean is subtracted, so it takes the shift with opposite sign
        mean_O = norm.get_buffer("running_mean")
        mean_O.sub_(shift_O if layer.bias is None else shift_O - layer.bias)
    else:
        assert layer.bias is not None
        layer.bias.copy_(shift_O)


def _batches(
    layer: nn.Conv2d | nn.Linear, inputs: Tensor, wanted_RO: Tensor, sampler: Sampler
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, in parts, the inputs [R, I] that a layer multiplies with its weights and the wanted outputs [R, O]."""
    if isinstance(layer, nn.Linear):
        inputs_NIL = _by_position(layer, inputs)
        assert inputs_NIL is not None
        index = sampler.positions(inputs_NIL.shape[2]).to(inputs.device).unsqueeze(1)
        chosen = inputs_NIL.gather(2, index.expand(-1, inputs_NIL.shape[1], -1))
        yield chosen.transpose(1, 2).flatten(0, 1), wanted_RO
        return
    windows = _windows(layer, inputs)
    positions_NP = sampler.positions(windows.shape[2] * windows.shape[3]).to(inputs.device)
    count, unknowns = positions_NP.shape[1], layer.weight[0].numel()
    images = max(1, ELEMENTS // (count * unknowns))
    for start in range(0, len(inputs), images):
        chosen = positions_NP[start : start + images]
        index = torch.arange(start, start + len(chosen), device=inputs.device).unsqueeze(1)
        patches = windows[index, :, chosen // windows.shape[3], chosen % windows.shape[3]]
        yield patches.flatten(2).flatten(0, 1), wanted_RO[start * count : (start + images) * count]


def _windows(layer: nn.Conv2d, inputs_NCHW: Tensor) -> Tensor:
    """Return a view of the inputs of each output, [N, C, outH, outW, kH, kW]."""
    assert not isinstance(layer.padding, str)
    vertical, horizontal = layer.padding
    windows = F.pad(inputs_NCHW, (horizontal, horizontal, vertical, vertical))
    for axis, (kernel, dilation, stride) in enumerate(
        zip(layer.kernel_size, layer.dilation, layer.stride, strict=True), start=2
    ):
        windows = windows.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    return windows


def _norms_after(module: nn.Module) -> dict[str, str]:
    """Return the batch norm that is the only consumer of a layer, by layer, as far as the network's graph shows it."""
    graph = trace(module)
    if graph is None:
        return {}
    nodes, modules = calls(graph), dict(module.named_modules())
    norms: dict[str, str] = {}
    for name, node in nodes.items():
        user = only_user(node)
        if user is not None and user.op == "call_module" and str(user.target) in nodes:
            norm = modules[str(user.target)]
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_mean is not None:
                norms[name] = str(user.target)
    return norms
