"""An exported file takes pictures as its network's training images were prepared."""

from pathlib import Path

import numpy as np
import pytest
from kondense.artifacts.model import Images, Model, load_model, save_model
from kondense.data.dataset import Dataset
from kondense.export.onnx import export_onnx
from kondense.inference.classifier import open_classifier
from kondense.networks.build import NetworkSpec, build
from kondense.training.transform import check_fits
from PIL import Image

OPTIONS = {"image_size": (16, 20), "resize": 24, "interpolation": "bicubic", "normalization": "imagenet"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (source / name).mkdir()
        for index in range(6):
            pixels = rng.integers(0, 256, (30 + index, 40, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(source / name / f"{index}.png")
    return source


def test_pictures_are_prepared_as_recorded(source: Path, tmp_path: Path) -> None:
    dataset = Dataset.from_folder(source, **OPTIONS)
    spec = NetworkSpec("resnet8", {"classes": 2, "channels": 3, "image_size": 16, "width": 0.25})
    model = Model(build(spec, seed=0), spec, images=Images.of(dataset))
    save_model(tmp_path / "model", model)
    images = load_model(tmp_path / "model").images
    assert images == Images.of(dataset) and images is not None and images.resize == (24,)
    (tmp_path / "model.onnx").write_bytes(export_onnx(model, images))
    classifier = open_classifier(tmp_path / "model.onnx")
    assert (classifier.metadata["resize"], classifier.metadata["interpolation"]) == ([24], "bicubic")
    seen = {image.numpy().tobytes() for name in ("train", "validation", "test") for image in dataset.split(name).images}
    pictures = [classifier.picture(path) for path in sorted(source.rglob("*.png"))]
    assert {picture.tobytes() for picture in pictures} == seen
    assert classifier.classify(np.stack(pictures)).shape == (12, 2)


def test_the_usual_preparation_leaves_the_artifact_as_it_was(source: Path) -> None:
    images = Images.of(Dataset.from_folder(source, image_size=16))
    assert set(images.describe()) == {"classes", "shape", "mean", "std"}


def test_images_that_a_model_was_not_trained_on_are_told(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained, given = (Dataset.from_folder(source, **OPTIONS | {"normalization": name}) for name in ("imagenet", "half"))
    spec = NetworkSpec("resnet8", {"classes": 2, "channels": 3, "image_size": 16, "width": 0.25})
    model = Model(build(spec, seed=0), spec, images=Images.of(trained))
    check_fits("model", model, trained)
    assert not [record for record in caplog.records if "was trained on" in record.message]
    check_fits("model", model, given)
    assert "model: the network was trained on images with mean 0.485, 0.456, 0.406, not 0.5, 0.5, 0.5" in caplog.text
    assert "--set data_prep.normalization=imagenet" in caplog.text
