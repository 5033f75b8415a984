"""The bytes of a whole model at a bound on what it may lose.

Ours is one step from the teacher: rate-distortion optimised quantization with training. What it may lose is asked of
the test split, so the stage is given a stricter bound on the validation split, ``MARGIN`` of it: of many networks it
keeps the smallest that the split lets through, and that one was lucky there. The peers prune by magnitude along a
cubic schedule (torch.nn.utils.prune), training for as many epochs with the teacher's logits, and then code that
network: Deep Compression by k-means, relative indices and Huffman codes, NNCodec by its own uniform grid. Reported are
the bytes of everything (biases, scales, tables, for ours also the description and the digest), the ratio to dense
float32, and the accuracy on the test split.
"""

import copy
import functools

import torch
import torch.nn.functional as F
from kondense.artifacts.model import Model, load_model
from kondense.codec.model_file import pack_model
from kondense.quantize import codebook
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import run as quantize
from torch import nn
from torch.nn.utils import prune

from benchmarks.compression import nncodec_peer
from benchmarks.compression.relative_index import container_bytes
from benchmarks.compression.setting import Entry, Setting

BOUNDS = {"lenet5": 0.003, "lenet300": 0.003, "resnet8": 0.005}  # fractions that may be lost
MARGIN = 0.5
EPOCHS = {"lenet5": 12, "lenet300": 24, "resnet8": 15}  # of each of ours' trainings,
ROUNDS = 4  # of which there are so many
PEER_SPARSITY = {"lenet5": 0.97, "lenet300": 0.95, "resnet8": 0.7}
PEER_BITS = 4
PEER_QP = -20
PRUNED: dict[tuple[str, int], Model] = {}
BATCH, TEMPERATURE, ALPHA, RATE = 128, 2.0, 0.5, 0.06


def total_epochs(network: str) -> int:
    """Return the epochs of all rounds, which the peers train too."""
    return EPOCHS[network] * ROUNDS


def ours(network: str, setting: Setting) -> dict[str, float]:
    """Run the quantize stage as a user would."""
    config = QuantizeConfig(
        method="rate_distortion",
        fine_tune=True,
        max_validation_drop=MARGIN * BOUNDS[network],
        epochs=setting.epochs(EPOCHS[network]),
        rounds=ROUNDS,
        learning_rate=RATE,
        alpha=ALPHA,
        temperature=TEMPERATURE,
        device=setting.profile.device,
        seed=setting.seed,
    )
    directory = setting.directory / "quantized"
    quantize(
        config,
        dataset_dir=setting.dataset_dir,
        model_dir=setting.teacher_dir,
        quantized_dir=directory,
        teacher_dir=setting.teacher_dir,
    )
    model = load_model(directory)
    return figures(len(pack_model(model)), model.module, setting)


def deep_compression(network: str, setting: Setting) -> dict[str, float]:
    """Share the values of the pruned network, and count what Deep Compression's container takes."""
    shared = codebook.quantize(pruned(network, setting), bits=PEER_BITS)
    size = float_bytes(shared)
    for tensor in shared.quantized.values():
        size += container_bytes(tensor.integers.numpy()) + 4 * 2**PEER_BITS
    return figures(size, shared.module, setting)


def nncodec(network: str, setting: Setting) -> dict[str, float]:
    """Let NNCodec quantize and code the pruned network."""
    model = pruned(network, setting)
    parameters = dict(model.module.named_parameters())
    weights = {name: weight.detach().numpy() for name, weight in parameters.items() if weight.ndim > 1}
    coded, decoded = nncodec_peer.quantize(weights, PEER_QP)
    with torch.no_grad():
        for name, weight in decoded.items():
            parameters[name].copy_(torch.from_numpy(weight))
    kept = Model(model.module, model.network, quantized=dict.fromkeys(weights))
    return figures(coded["bytes"] + float_bytes(kept), model.module, setting)


def float_bytes(model: Model) -> int:
    """Return what the tensors that are not quantized take, as float32."""
    state = model.module.state_dict()
    return sum(4 * value.numel() for name, value in state.items() if name not in model.quantized and value.ndim)


def pruned(network: str, setting: Setting) -> Model:
    """Return the teacher pruned and trained; both peers start from the same one."""
    key = (network, setting.seed)
    if key not in PRUNED:
        model = setting.teacher
        layers = [layer for layer in model.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        parameters = [(layer, "weight") for layer in layers]
        train(model.module, setting, setting.epochs(total_epochs(network)), parameters, PEER_SPARSITY[network])
        for layer in layers:
            prune.remove(layer, "weight")
        PRUNED[key] = Model(model.module.eval(), model.network)
    return copy.deepcopy(PRUNED[key])


def train(
    module: nn.Module, setting: Setting, epochs: int, parameters: list[tuple[nn.Module, str]], sparsity: float
) -> None:
    """Train with the teacher's logits while pruning globally by a cubic schedule over the first half."""
    dataset, teacher = setting.dataset, setting.teacher.module.eval()
    steps = len(dataset.train) // BATCH
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    generator = torch.Generator().manual_seed(setting.seed)
    removed = 0.0
    for epoch in range(epochs):
        progress = min(1.0, (epoch + 1) / (epochs / 2))
        target = sparsity * (1 - (1 - progress) ** 3)
        if target > removed:
            amount = (target - removed) / (1 - removed)  # of what is left, as torch counts a second pruning
            prune.global_unstructured(parameters, prune.L1Unstructured, amount=amount)
            removed = target
        module.train()
        for index in torch.randperm(len(dataset.train), generator=generator).split(BATCH)[:steps]:
            images_BCHW, labels_B = dataset.normalise(dataset.train.images[index]), dataset.train.labels[index]
            logits_BK = module(images_BCHW)
            with torch.no_grad():
                soft_BK = (teacher(images_BCHW) / TEMPERATURE).softmax(1)
            taught = F.cross_entropy(logits_BK / TEMPERATURE, soft_BK) * TEMPERATURE**2
            loss = ALPHA * taught + (1 - ALPHA) * F.cross_entropy(logits_BK, labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()


def figures(size_bytes: float, module: nn.Module, setting: Setting) -> dict[str, float]:
    """Return bytes, their ratio to the dense float32 teacher's, and the accuracy on the test split."""
    dense = 4 * sum(parameter.numel() for parameter in setting.teacher.module.parameters())
    return {"bytes": size_bytes, "ratio": dense / size_bytes} | setting.drop(module)


ENTRIES = [
    Entry(
        network,
        f"at most {100 * bound:.1f} points, {total_epochs(network)} epochs",
        method,
        functools.partial(run, network),
    )
    for network, bound in BOUNDS.items()
    for method, run in (
        ("kondense rate_distortion", ours),
        ("Deep Compression", deep_compression),
        (f"NNCodec {nncodec_peer.VERSION}", nncodec),
    )
]
