"""`python -m benchmarks.imported`: what the defaults make of networks that were trained elsewhere.

Each network is trained on scikit-learn's digits by a bare PyTorch loop, saved as people save checkpoints, imported, and
trained further, pruned, quantized and distilled at the defaults. Printed is the test accuracy, %, after each.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset, load_dataset
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run as data_prep
from kondense.distill.config import DistillConfig
from kondense.distill.stage import distill
from kondense.measuring.accuracy import accuracy, predict
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize
from kondense.train.config import TrainConfig
from kondense.train.stage import train
from torch import nn

BATCH = 64
OPTIMIZERS = {
    "Adam, 0.001": lambda module: torch.optim.Adam(module.parameters(), 1e-3),
    "SGD, 0.05": lambda module: torch.optim.SGD(module.parameters(), 0.05, momentum=0.9),
}


def trained_elsewhere(network: str, optimizer: str, dataset: Dataset, epochs: int, path: Path) -> None:
    """Train a network by a bare loop, and save it."""
    spec = NetworkSpec(network, {"classes": 10, "channels": dataset.shape[0], "image_size": dataset.shape[1]})
    module = build(spec, seed=1).train()
    images_NCHW, labels_N = dataset.normalise(dataset.train.images), dataset.train.labels
    steps = OPTIMIZERS[optimizer](module)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for index in torch.randperm(len(labels_N), generator=generator).split(BATCH):
            steps.zero_grad()
            F.cross_entropy(module(images_NCHW[index]), labels_N[index]).backward()
            steps.step()
    torch.save({"model": module.state_dict(), "epoch": epochs}, path)


def figures(network: str, path: Path, dataset: Dataset) -> dict[str, float]:
    """Return the test accuracy, %, of the imported network and of what is made of it."""

    def test(module: nn.Module) -> float:
        return 100.0 * accuracy(predict(module.eval(), dataset.test, dataset), dataset.test.labels)

    plain = TrainConfig(network=network, import_uri=str(path), device="cpu", epochs=8)
    model: Model = train(None, dataset, plain).model
    further = TrainConfig(network=network, import_uri=str(path), fine_tune=True, device="cpu", epochs=8)
    made = {
        "imported": model,
        "fine_tune": train(None, dataset, further).model,
        "prune": prune(model, dataset, PruneConfig(epochs=4, device="cpu")).model,
        "quantize": quantize(model, dataset, QuantizeConfig(device="cpu")).model,
        "distill": distill(None, dataset, DistillConfig(epochs=5, device="cpu"), teachers={"teacher": model}).model,
    }
    return {name: test(each.module) for name, each in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imported", description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default="lenet5,resnet8,mobilenet_small")
    parser.add_argument("--epochs", type=int, default=12, help="of the training elsewhere")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        data_prep(DataPrepConfig(dataset_name="digits"), dataset_dir=Path(scratch, "digits"))
        dataset = load_dataset(Path(scratch, "digits"))
        for network in arguments.networks.split(","):
            for optimizer in OPTIMIZERS:
                path = Path(scratch, "weights.pt")
                trained_elsewhere(network, optimizer, dataset, arguments.epochs, path)
                found = figures(network, path, dataset)
                print(network, optimizer, " ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
