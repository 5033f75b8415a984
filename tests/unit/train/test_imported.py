"""Weights that were saved elsewhere, in the forms in which people have them."""

import argparse
import collections
import dataclasses
import io
import zipfile

import numpy as np
import pytest
import torch
from kondense.data.dataset import save_dataset
from kondense.errors import InputError
from kondense.networks.build import NetworkSpec, build
from kondense.train.config import TrainConfig
from kondense.train.imported import head_names, import_model
from kondense.train.stage import run, train
from kondense.train.state_dicts import read_weights
from safetensors.torch import save_file
from torch import nn

from tests.support.toy_training import toy_dataset

SPEC = NetworkSpec("lenet300", {"classes": 3, "channels": 1, "image_size": 16})
TRAINED = build(SPEC, seed=5).state_dict()
OTHER = build(SPEC, seed=6).state_dict()


def prefixed(prefix, state=TRAINED):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def imported(path, spec=SPEC, **options):
    return import_model(str(path), spec, **options).model.module.state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


CHECKPOINTS = {
    "plain": TRAINED,
    "state_dict": {"state_dict": TRAINED, "epoch": 3, "optimizer": {"state": {0: {"momentum": torch.zeros(2)}}}},
    "model": {"model": TRAINED, "args": None},
    "model_state_dict": {"model_state_dict": TRAINED, "loss": 0.5},
    "params_ema": {"params": OTHER, "params_ema": TRAINED},
    "state_dict_ema": {"state_dict": OTHER, "state_dict_ema": TRAINED},
    "DataParallel": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "Lightning": {
        "state_dict": {**prefixed("model."), "loss_fn.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.0",
        "callbacks": {},
    },
    "net": {"state_dict": prefixed("net.")},
    "ema within": {"state_dict": {**prefixed("model.", OTHER), **prefixed("model_ema.")}},
    "AveragedModel": {**prefixed("module."), "n_averaged": torch.tensor(3)},
    "lucidrains": {**prefixed("online_model.", OTHER), **prefixed("ema_model."), "step": torch.tensor(2)},
    "parts compiled": {name.replace(".", "._orig_mod."): tensor for name, tensor in TRAINED.items()},
    "deep": {"state": {"ema": {"model": prefixed("module.")}}},
    "profiled": {**TRAINED, "total_ops": torch.zeros(1), "fc1.total_params": torch.zeros(1)},
    "ordered": collections.OrderedDict(TRAINED),
    "FSDP": {"_fsdp_wrapped_module." + name.replace(".", "._fsdp_wrapped_module."): x for name, x in TRAINED.items()},
    "recomputed": {name.replace(".", "._checkpoint_wrapped_module."): tensor for name, tensor in TRAINED.items()},
    "with arguments": {"model": TRAINED, "args": argparse.Namespace(lr=0.1, layers=[1, 2])},
    "with NumPy's numbers": {"model": TRAINED, "best": np.float64(0.9), "seen": np.int64(3), "last": np.float32(1)},
    "a tuple": (TRAINED, 3),
    "a list": [{"epoch": 3}, {"state_dict": TRAINED}],
}


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, ".pt") for name in CHECKPOINTS), ("plain", ".pth"), ("Lightning", ".ckpt")]
)
def test_the_weights_are_found_in_a_checkpoint(tmp_path, name, suffix):
    torch.save(CHECKPOINTS[name], tmp_path / f"w{suffix}")
    assert same(imported(tmp_path / f"w{suffix}"), TRAINED)


def test_a_safetensors_file_may_have_prefixes_and_other_types(tmp_path):
    save_file({f"model.{name}": tensor.half() for name, tensor in TRAINED.items()}, tmp_path / "w.safetensors")
    found = imported(tmp_path / "w.safetensors")
    assert all(torch.equal(found[name], tensor.half().float()) for name, tensor in TRAINED.items())


class Anything:
    """What a checkpoint may hold beside tensors."""


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "must hold the weights of a network, but is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS; git lfs pull fetches"),
        (b"\n<!DOCTYPE html><html>Not Found</html>", r"is a web page, such as that of an error\."),
        (b"PK\x03\x04 no archive", "is damaged or truncated"),
        ({"state_dict": TRAINED, "hparams": Anything()}, r"holds pickled objects.*convert it .*weights_only=False"),
        (nn.Linear(2, 2), "holds pickled objects"),
        ({"epoch": 3}, r"but holds a dictionary without tensors \(epoch\)"),
        ([1, 2], "but holds a list"),
        (
            {name: tensor for name, tensor in TRAINED.items() if not name.startswith("fc3")},
            r"lacks its last layer \(fc3.weight, fc3.bias\); give it a new one with replace_head=true\.$",
        ),
        (
            {name: tensor for name, tensor in TRAINED.items() if not name.startswith("fc2")},
            r"2 of 6 tensors are missing \(fc2.weight \(nearest: fc.\.weight\), fc2.bias .*; 0 are unexpected",
        ),
        (
            {name.replace("fc1", "fc4"): tensor for name, tensor in TRAINED.items()},
            r"missing \(fc1.weight \(nearest: fc4.weight\), .*; 2 are unexpected \(fc4.weight, fc4.bias\)",
        ),
        (
            build(NetworkSpec("resnet56", {"classes": 3, "channels": 1, "image_size": 16})).state_dict(),
            r"tensors are missing .* are unexpected \(.* and \d+ more\)\.$",
        ),
        (TRAINED | {"fc1.weight": torch.zeros(300, 7)}, r"fc1.weight \[300, 7\] instead of \[300, 256\]"),
        (TRAINED | {"fc1.bias": torch.full((300,), torch.nan)}, "finite weights, but fc1.bias holds NaN"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, rule):
    write(tmp_path / "w.pt", content)
    with pytest.raises(ValueError, match=rule) as caught:
        imported(tmp_path / "w.pt")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(300, 64).to_sparse(), "sparse_coo"),
        (torch.zeros(300, 64).to_sparse_csr(), "sparse_csr"),
        (torch.empty(300, 64, device="meta"), "meta"),
        (torch.zeros(300, 64, dtype=torch.complex64), "complex64"),
        (torch.zeros(300, 64).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.quantize_per_tensor(torch.zeros(300, 64), 1.0, 0, torch.qint8), "qint8"),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "nested"),
    ],
)
def test_tensors_without_values_of_their_own_are_refused_in_one_line(tmp_path, tensor, kind):
    torch.save({**TRAINED, "fc1.weight": tensor}, tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        imported(tmp_path / "w.pt")
    rule = f"must hold dense tensors of real numbers, but fc1.weight is of {kind}; convert it where it was made."
    assert str(caught.value) == f"{tmp_path / 'w.pt'} {rule}"


def test_a_dictionary_that_stands_in_many_places_is_read_once(tmp_path):
    shared = TRAINED
    for _ in range(12):  # of 450 kB; 100 times 100 times ... the same one
        shared = {f"k{index}": shared for index in range(100)}
    torch.save({**TRAINED, "more": shared, "parts": [[shared] * 16] * 16}, tmp_path / "w.pt")
    found = imported(tmp_path / "w.pt")
    assert all(torch.equal(found[name], tensor) for name, tensor in TRAINED.items())


def test_names_of_a_file_are_escaped_in_a_refusal(tmp_path):
    torch.save({**TRAINED, "\x1b[2J\nx": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"1 are unexpected \(\\x1b\[2J\\nx\)"):
        imported(tmp_path / "w.pt")


def test_truncated_files_and_programs_are_refused(tmp_path):
    torch.save(TRAINED, tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:5000])
    save_file(TRAINED, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:5000])
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "program.pt"))
    for name, rule in (("w.pt", "truncated"), ("w.safetensors", "is damaged"), ("program.pt", "TorchScript program")):
        with pytest.raises(ValueError, match=rule):
            imported(tmp_path / name)
    with pytest.raises(ValueError, match="there is no .*absent.pt"):
        imported(tmp_path / "absent.pt")


def test_a_head_for_other_classes_is_replaced_on_request(tmp_path):
    torch.save(build(NetworkSpec("lenet300", {**SPEC.arguments, "classes": 7}), seed=5).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"for 3 classes, but fc3.weight is \[7, 100\]; .* replace_head=true"):
        imported(tmp_path / "w.pt")
    found = imported(tmp_path / "w.pt", replace_head=True)
    assert torch.equal(found["fc1.weight"], TRAINED["fc1.weight"])
    assert found["fc3.weight"].shape == (3, 100)
    assert head_names(SPEC) == {"fc3.weight", "fc3.bias"}


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (lambda weight: weight.T, r"is \[100, 3\] instead of \[3, 100\]: it is transposed, and fc3.weight.T is what"),
        (
            lambda weight: weight[:, :, None, None],
            r"is \[3, 100, 1, 1\] instead of \[3, 100\]: another kind of layer .* fc3.weight.reshape\(3, 100\) is",
        ),
    ],
)
def test_a_head_of_another_form_is_not_taken_for_one_of_other_classes(tmp_path, change, way):
    torch.save(TRAINED | {"fc3.weight": change(TRAINED["fc3.weight"]).contiguous()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=way) as caught:
        imported(tmp_path / "w.pt")
    assert "for 3 classes" not in str(caught.value) and "replace_head=true" in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_the_conversion_of_other_types_is_told(tmp_path, kind, caplog):
    torch.save({name: tensor.to(kind) for name, tensor in TRAINED.items()}, tmp_path / "w.pt")
    with caplog.at_level("INFO", "kondense"):
        found = imported(tmp_path / "w.pt")
    assert all(torch.equal(found[name], tensor.to(kind).float()) for name, tensor in TRAINED.items())
    assert f"6 of 6 tensors are converted from {str(kind).removeprefix('torch.')} to float32" in caplog.text


def test_the_network_s_own_type_is_not_told(tmp_path, caplog):
    torch.save(TRAINED, tmp_path / "w.pt")
    with caplog.at_level("INFO", "kondense"):
        imported(tmp_path / "w.pt")
    assert "converted" not in caplog.text


def test_a_new_head_or_fine_tuning_trains_with_a_smaller_rate(tmp_path):
    save_dataset(tmp_path / "data", toy_dataset())
    torch.save(TRAINED, tmp_path / "w.pt")
    config = TrainConfig(network="lenet300", epochs=1, batch_size=32, device="cpu", import_uri=str(tmp_path / "w.pt"))
    for change, trained in ({}, False), ({"fine_tune": True}, True), ({"replace_head": True}, True):
        result = train(None, toy_dataset(), dataclasses.replace(config, **change))
        assert bool(result.curve) == trained
        assert same(result.model.module.state_dict(), TRAINED) != trained
        assert result.details["imported"] == str(tmp_path / "w.pt")
        assert all(point["learning_rate"] < 0.005 for point in result.curve)
    with pytest.raises(ValueError, match="fine_tune must be false for a new network"):
        run(TrainConfig(fine_tune=True), dataset_dir=tmp_path / "data", model_dir=tmp_path / "model")


def test_an_archive_that_grows_is_refused_before_it_does():
    stored, packed = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(2**23)}, stored)  # 32 MiB
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as copy:
        for entry in archive.infolist():
            copy.writestr(entry.filename, archive.read(entry))
    assert read_weights("w.pt", stored.getvalue())["w"].shape == (2**23,)
    with pytest.raises(InputError, match=r"w.pt must not decompress to .* but grows to 33,55\d,\d{3} bytes"):
        read_weights("w.pt", packed.getvalue())
