"""An exported file takes pictures as its network's training images were prepared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from kondense.artifacts.images import Images
from kondense.artifacts.model import Model, load_model, save_model
from kondense.data.dataset import Dataset
from kondense.export.onnx import export_onnx
from kondense.files import ArtifactError
from kondense.inference.classifier import Classifier, open_classifier
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


def test_a_graph_that_does_not_fit_its_metadata_is_one_line(tmp_path: Path) -> None:
    """The graph comes from others: it may have other inputs, or fail when it runs."""
    spec = NetworkSpec("lenet300", {"classes": 2, "channels": 1, "image_size": 8, "width": 0.05})
    images = Images(("a", "b"), (1, 8, 8), (0.5,), (0.5,))
    graph = onnx.load_from_string(export_onnx(Model(build(spec).eval(), spec, images=images), images))

    def opened(change: Callable[[onnx.ModelProto], object], name: str) -> Classifier:
        changed = onnx.ModelProto()
        changed.CopyFrom(graph)
        change(changed)
        (tmp_path / name).write_bytes(changed.SerializeToString())
        return open_classifier(tmp_path / name)

    two = onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
    with pytest.raises(ArtifactError, match="must have one input and one output, the logits, but has 2 and 1"):
        opened(lambda model: model.graph.input.append(two), "two.onnx")

    def large(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            entry.value = "[1, 100000, 100000]" if entry.key == "shape" else entry.value

    with pytest.raises(ArtifactError, match="must have images of at most 16777216 values"):
        opened(large, "large.onnx")

    def broken(model: onnx.ModelProto) -> None:
        node = onnx.helper.make_node("Reshape", [model.graph.output[0].name, "shape"], ["logits_"])
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([7, 2]), "shape"))
        model.graph.node.append(node)
        model.graph.output[0].name = "logits_"

    classifier = opened(broken, "broken.onnx")
    with pytest.raises(ArtifactError, match="the ONNX model cannot be run: "):
        classifier.classify(np.zeros((1, 1, 8, 8), np.uint8))
