"""Published weights, from a cache with random ones: nothing is downloaded."""

import dataclasses

import pytest
import torch
from kondense.networks.build import NetworkSpec
from kondense.train import published
from kondense.train.config import TrainConfig
from kondense.train.imported import import_model
from kondense.train.stage import train
from torchvision import models

from tests.support.toy_training import toy_dataset

NAME = "torchvision:squeezenet1_1@IMAGENET1K_V1"
ARGUMENTS = {"classes": 1000, "channels": 3, "image_size": 32}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Return random weights in torch's cache, under the name of the published ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    path = tmp_path / "hub" / "checkpoints" / entry.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    state = models.squeezenet1_1().state_dict()
    torch.save(state, path)
    return state


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_torchvisions_weights_come_with_their_transforms(weights, offline):
    found = import_model("", NetworkSpec(NAME, ARGUMENTS))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.model.module.state_dict().items())
    assert found.model.network.name == "torchvision:squeezenet1_1"  # artifacts are built without them
    known = found.preprocessing
    assert (known.crop, known.resize, known.interpolation) == ((224, 224), (256,), "bilinear")
    assert known.mean == (0.485, 0.456, 0.406)


def test_another_preprocessing_is_told_and_a_new_head_is_trained(weights, offline, caplog):
    grey = toy_dataset(train=32, size=32)
    coloured = {
        name: dataclasses.replace(grey.split(name), images=grey.split(name).images.repeat(1, 3, 1, 1))
        for name in ("train", "validation", "test")
    }
    dataset = dataclasses.replace(grey, mean=(0.35,) * 3, std=(0.17,) * 3, **coloured)
    config = TrainConfig(network=NAME, epochs=1, batch_size=16, device="cpu")
    with pytest.raises(ValueError, match=r"for 3 classes, but classifier.1.weight is \[1000, 512, 1, 1\]"):
        train(None, dataset, config)
    result = train(None, dataset, dataclasses.replace(config, replace_head=True))
    assert "the network was trained on images with mean 0.485, 0.456, 0.406, not 0.35" in caplog.text
    assert "--set data_prep.normalization=imagenet" in caplog.text
    assert result.summary == "import torchvision:squeezenet1_1, train it for 1 epochs"


def test_weights_that_are_nowhere_say_where_to_put_them(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"must be in the cache or on the hub, but .*squeezenet1_1.*no route to host"):
        import_model("", NetworkSpec(NAME, ARGUMENTS))


def test_unknown_weights_list_the_right_ones():
    with pytest.raises(ValueError, match="weights of torchvision:resnet18 must be one of 1, such as IMAGENET1K_V1"):
        import_model("", NetworkSpec("torchvision:resnet18@IMAGENET1K_V2", ARGUMENTS))
    with pytest.raises(ValueError, match="import_uri must be empty for a network with published weights"):
        import_model("w.pt", NetworkSpec(NAME, ARGUMENTS))


def test_inceptions_images_are_normalised_to_one_half(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / models.GoogLeNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save({"a": torch.zeros(1)}, path)
    _, known = published.published_weights("torchvision:googlenet@IMAGENET1K_V1", 3, 224)
    assert (known.mean, known.std) == ((0.5,) * 3, (0.5,) * 3)


def test_timms_weights_come_with_their_transforms(monkeypatch):
    timm = pytest.importorskip("timm")
    create, asked = timm.create_model, []

    def from_the_cache(name, *, pretrained, **options):
        asked.append((name, pretrained))
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", from_the_cache)
    state, known = published.published_weights("timm:resnet18@a1_in1k", 1, 224)
    assert asked == [("resnet18.a1_in1k", True)] and state["conv1.weight"].shape[1] == 1
    assert (known.crop, known.resize, known.interpolation) == ((224, 224), (235,), "bicubic")
    with pytest.raises(ValueError, match="weights of timm:resnet18 must be one of .*a1_in1k"):
        published.published_weights("timm:resnet18@a1_in2k", 3, 224)
