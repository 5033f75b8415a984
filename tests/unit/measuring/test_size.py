"""Parameters and MACs against counts by hand and against torch's FlopCounterMode."""

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.artifacts.quantized import QuantizedTensor
from kondense.artifacts.separation import separate_attention
from kondense.measuring.size import count_macs, count_nonzero, count_parameters, fp32_bytes, layer_table
from kondense.networks.build import NetworkSpec, build
from kondense.prune.allocation import Layer
from kondense.prune.costs import layer_costs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def network(name: str, size: int = 28, channels: int = 1) -> nn.Module:
    return build(NetworkSpec(name, {"classes": 10, "channels": channels, "image_size": size}))


def test_lenet5_by_hand() -> None:
    module = network("lenet5")
    assert count_parameters(module) == (25 * 20 + 20) + (20 * 25 * 50 + 50) + (800 * 500 + 500) + (500 * 10 + 10)
    assert count_macs(module, (1, 28, 28)) == {
        "conv1": 24 * 24 * 20 * 25,
        "conv2": 8 * 8 * 50 * 20 * 25,
        "fc1": 800 * 500,
        "fc2": 500 * 10,
    }
    assert fp32_bytes(module) == 1_724_320


def test_grouped_convolution_by_hand() -> None:
    module = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.Flatten(), nn.Linear(12 * 25, 3))
    assert count_macs(module, (8, 5, 5)) == {"0": 25 * 12 * 2 * 9, "2": 900}


@pytest.mark.parametrize("name", ["lenet5", "lenet300", "lenet_cifar", "resnet8", "resnet20", "mobilenet_small"])
@pytest.mark.parametrize("channels", [1, 3])
def test_macs_are_half_of_torchs_flops(name: str, channels: int) -> None:
    module = network(name, 28, channels).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, channels, 28, 28))
    assert 2 * sum(count_macs(module, (channels, 28, 28)).values()) == counter.get_total_flops()


def test_counting_leaves_the_network_as_it_was() -> None:
    module = network("resnet8").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count_macs(module, (1, 28, 28))
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_layer_that_runs_twice_counts_twice() -> None:
    layer = nn.Linear(4, 4)
    assert count_macs(nn.Sequential(layer, layer), (1, 1, 4)) == {"0": 32}


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers_by_hand(kind: type[nn.RNNBase], gates: int) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = kind(6, 5, 2, bidirectional=True, batch_first=True)

        def forward(self, images_NCHW: Tensor) -> Tensor:
            return self.rows(images_NCHW[:, 0])[0]

    first, second = 6 * 5 + 5 * 5, 10 * 5 + 5 * 5  # inputs and hidden units of a gate, in one direction
    module = Rows()
    assert count_macs(module, (1, 8, 6)) == {"rows": 8 * 2 * gates * (first + second)}
    assert sum(_cost(layer) for layer in layer_costs(module, "macs", (1, 8, 6), ()).values()) == 8 * 2 * gates * (
        first + second
    )


def test_the_projections_of_an_attention_count_whether_they_are_layers_or_not() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, images_NCHW: Tensor) -> Tensor:
            tokens = images_NCHW[:, 0]
            return self.attention(tokens, tokens, tokens, need_weights=False)[0]

    module = Attends().eval()
    whole = count_macs(module, (1, 7, 12))
    assert sum(whole.values()) == 7 * 4 * 12 * 12
    assert sum(_cost(layer) for layer in layer_costs(module, "macs", (1, 7, 12), ()).values()) == 7 * 4 * 12 * 12
    assert separate_attention(module, [torch.randn(2, 1, 7, 12)]) == ["attention"]
    assert sum(count_macs(module, (1, 7, 12)).values()) == sum(whole.values())


def _cost(layer: Layer) -> float:
    return layer.outputs * (layer.inputs * layer.per_weight + layer.per_output)


def test_the_table_adds_up_and_names_bits_and_sparsity() -> None:
    module = network("lenet5").eval()
    spec = NetworkSpec("lenet5", {"classes": 10, "channels": 1, "image_size": 28})
    integers = torch.ones(10, 500, dtype=torch.int8)
    integers[:5] = 0
    quantized = QuantizedTensor(integers, torch.ones(1), 4)
    with torch.no_grad():
        module.fc2.weight.copy_(quantized.dequantize())
        module.fc2.bias.zero_()
    rows = layer_table(Model(module, spec, quantized={"fc2.weight": quantized}), (1, 28, 28))
    assert [row["name"] for row in rows] == ["conv1", "conv2", "fc1", "fc2"]
    assert [row["bits"] for row in rows] == [32, 32, 32, 4]
    assert rows[3]["nonzero"] == 2500
    assert rows[3]["sparsity"] == pytest.approx(1 - 2500 / 5010)
    assert rows[3]["shape"] == [10, 500]
    assert sum(row["parameters"] for row in rows) == count_parameters(module)
    assert sum(row["nonzero"] for row in rows) == count_nonzero(module)
