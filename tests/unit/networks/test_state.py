"""Tensors by name reach networks whose state dict has versions."""

import pytest
import torch
from kondense.networks.state import load_state

from benchmarks.zoo.parts.weights import VersionedState


def test_tensors_are_of_the_networks_own_version():
    module, other = VersionedState(), VersionedState()
    tensors = dict(other.state_dict())
    with pytest.raises(ValueError, match="version None"):
        module.load_state_dict(tensors)
    load_state(module, tensors)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())


def test_a_missing_tensor_is_an_error():
    with pytest.raises(RuntimeError, match=r"Missing key.*layer.bias"):
        load_state(VersionedState(), {"layer.weight": torch.zeros(16, 16, 1, 1)})
