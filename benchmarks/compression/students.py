"""A student of a quarter of its teacher's size: plain training, Hinton's loss at its usual settings, and ours.

Every entry trains the student for the same number of epochs on the same images. "From the teacher" means that the
student starts from the teacher's most important channels, whose training is not counted again; "from scratch" starts at
random. The peers are bare loops, with Adam at its defaults and with SGD as in the usual benchmarks of distillation
(Tian et al. 2020: rate 0.05, momentum 0.9, weight decay 5e-4; T = 4, alpha = 0.9), its rate falling along a cosine.
"""

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from kondense.artifacts.model import load_model
from kondense.distill.config import DistillConfig
from kondense.distill.stage import run as distill
from kondense.networks.build import NetworkSpec, build
from torch import Tensor, nn

from benchmarks.compression.setting import Entry, Setting

WIDTH = 0.5
BATCH = 128
TEMPERATURE, ALPHA = 4.0, 0.9  # of the peers


def make_optimizer(name: str, module: nn.Module) -> torch.optim.Optimizer:
    if name == "Adam":
        return torch.optim.Adam(module.parameters(), lr=1e-3)
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def peer(optimizer_name: str, taught: bool, epochs: int, setting: Setting) -> dict[str, float]:
    """Train the student in a bare loop, with or without the teacher's softened outputs."""
    dataset, teacher = setting.dataset, setting.teacher
    spec = NetworkSpec(teacher.network.name, {**teacher.network.arguments, "width": WIDTH})
    student = build(spec, seed=setting.seed).train()
    optimizer = make_optimizer(optimizer_name, student)
    count = len(dataset.train) // BATCH
    steps = setting.epochs(epochs) * count
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if optimizer_name == "SGD" else None
    generator = torch.Generator().manual_seed(setting.seed)
    for _ in range(setting.epochs(epochs)):
        for index in torch.randperm(len(dataset.train), generator=generator).split(BATCH)[:count]:
            images_BCHW = dataset.normalise(dataset.train.images[index])
            logits_BK, labels_B = student(images_BCHW), dataset.train.labels[index]
            loss = F.cross_entropy(logits_BK, labels_B)
            if taught:
                with torch.no_grad():
                    teacher_BK = teacher.module(images_BCHW)
                loss = ALPHA * hinton(logits_BK, teacher_BK) + (1 - ALPHA) * loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if cosine:
                cosine.step()
    return setting.drop(student.eval())


def hinton(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    student, teacher = (F.log_softmax(logits / TEMPERATURE, dim=1) for logits in (student_BK, teacher_BK))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * TEMPERATURE**2


def ours(method: str, start: str, epochs: int, setting: Setting) -> dict[str, float]:
    """Run the distill stage at its defaults."""
    config = DistillConfig(
        method=method,
        start=start,
        width=WIDTH,
        epochs=setting.epochs(epochs),
        seed=setting.seed,
        device=setting.profile.device,
        cache_teacher=method != "features",  # saves time and changes nothing else; whole maps would need a file
    )
    student_dir = setting.directory / "student"
    distill(config, dataset_dir=setting.dataset_dir, teacher_dir=setting.teacher_dir, student_dir=student_dir)
    return setting.drop(load_model(student_dir).module)


def entries(
    network: str, case: str, epochs: int, optimizers: tuple[str, ...], methods: tuple[str, ...]
) -> Iterator[Entry]:
    def entry(method: str, run: Callable[[Setting], dict[str, float]]) -> Entry:
        return Entry(network, f"{case}, {epochs} epochs", method, run)

    for optimizer in optimizers:
        yield entry(f"plain training, {optimizer}", functools.partial(peer, optimizer, False, epochs))
        yield entry(f"Hinton's loss, {optimizer}", functools.partial(peer, optimizer, True, epochs))
    for start, words in (("random", "from scratch"), ("teacher", "from the teacher")):
        for method in methods:
            yield entry(f"kondense {method}, {words}", functools.partial(ours, method, start, epochs))


ENTRIES = [
    *entries("resnet8", "width 0.5", 4, ("Adam", "SGD"), ("logits", "features", "attention", "relational")),
    *entries("lenet5", "width 0.5", 5, ("Adam",), ("logits",)),
]
