"""The logits among a network's outputs."""

import copy
import dataclasses
import io
import pickle
from collections import OrderedDict, namedtuple

import pytest
import torch
from kondense.networks.build import NetworkSpec, build
from kondense.networks.outputs import (
    SIGMOID,
    auxiliary_of,
    copied_with_logits,
    doubts,
    logits_of,
    output_key,
    untrained,
    with_logits,
)
from torch import nn

LOGITS = torch.arange(8.0).reshape(2, 4)
FEATURES = torch.zeros(2, 16)
MAP = torch.zeros(2, 4, 3, 3)
Pair = namedtuple("Pair", ["logits", "aux_logits"])


@dataclasses.dataclass
class Output:
    loss: None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


class Net(nn.Module):
    """Returns what ``answer`` makes of the logits."""

    def __init__(self, answer):
        super().__init__()
        self.fc, self.answer = nn.Linear(3, 4), answer

    def forward(self, images):
        return self.answer(self.fc(images))


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS,),
        [FEATURES, LOGITS],
        (MAP, LOGITS, None),
        {"features": FEATURES, "y": LOGITS},
        {"aux": LOGITS + 1, "logits": LOGITS},
        {"out": LOGITS, "aux": LOGITS + 1},
        {"head": {"pred": LOGITS, "box": torch.zeros(2, 4, 1)}},
        OrderedDict(logits=LOGITS, hidden_states=(FEATURES, FEATURES)),
        Pair(LOGITS, LOGITS + 1),
        Output(None, LOGITS, (FEATURES,)),
        (LOGITS, LOGITS),  # the same tensor twice
        (LOGITS, LOGITS.argmax(1)),
    ],
)
def test_the_logits_are_found(output):
    assert logits_of(output, classes=4) is LOGITS


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ((LOGITS, LOGITS + 1), r"returned 0 \[2, 4\], 1 \[2, 4\]; say which .*factory#0"),
        ({"a": LOGITS, "b": LOGITS + 1}, r"a \[2, 4\], b \[2, 4\]; say which .*factory#a"),
        ((FEATURES, MAP), r"must return logits \[N, 4\], but returned 0 \[2, 16\], 1 \[2, 4, 3, 3\]"),
        ((), "but returned tuple"),
        ("logits", "but returned str"),
    ],
)
def test_what_is_ambiguous_or_absent_is_told(output, text):
    with pytest.raises(ValueError, match=text):
        logits_of(output, classes=4)


def test_a_key_names_the_logits():
    output = {"heads": [LOGITS + 1, LOGITS]}
    assert logits_of(output, key="heads.1", classes=4) is LOGITS
    with pytest.raises(ValueError, match=r"has no 'heads.2'; it has heads.0 \[2, 4\], heads.1"):
        logits_of(output, key="heads.2")


def test_auxiliary_heads_are_the_other_logits():
    logits, aux = (torch.ones(2, 4, requires_grad=True) for _ in range(2))
    assert auxiliary_of((logits, aux, FEATURES, MAP), logits) == [aux]


def test_a_network_returns_its_logits_alone_in_evaluation_mode_only():
    module = with_logits(Net(lambda logits: {"logits": logits, "twice": 2 * logits}), classes=4)
    images = torch.ones(2, 3)
    assert set(module.train()(images)) == {"logits", "twice"}
    assert torch.equal(module.eval()(images), module.fc(images))
    assert list(module.state_dict()) == ["fc.weight", "fc.bias"]
    assert type(module).__name__ == "Net" and isinstance(module, Net)
    assert torch.equal(copy.deepcopy(module)(images), module(images))
    assert type(with_logits(module)) is type(module) is type(with_logits(Net(None)))


def test_what_a_module_becomes_leaves_the_users_own_as_it_is():
    module = Net(lambda logits: (logits,)).eval()
    adapted = copied_with_logits(module)
    assert isinstance(module(torch.ones(2, 3)), tuple)
    assert adapted.fc.weight is module.fc.weight
    assert adapted(torch.ones(2, 3)).shape == (2, 4)


def test_an_adapted_network_can_be_traced_and_exported():
    images = torch.ones(2, 3)
    module = with_logits(Net(lambda logits: {"twice": 2 * logits, "logits": logits}), classes=4).eval()
    expected = module(images)
    program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert torch.equal(program.module()(images), expected)
    assert torch.equal(torch.fx.symbolic_trace(module)(images), expected)


def test_the_name_of_a_network_says_which_output():
    name = "tests.support.factories:of_two_heads"
    arguments = {"classes": 3, "channels": 1, "image_size": 4}
    first, second = (build(NetworkSpec(f"{name}#{index}", arguments)).eval() for index in (0, 1))
    images = torch.ones(2, 1, 4, 4)
    assert output_key(second) == "1"
    assert torch.equal(2 * first(images), second(images))


class Restless(Net):
    """Makes its own copies of its class, and names its class."""

    def __init__(self, answer=None):
        super().__init__(answer or as_dictionary)

    def twin(self):
        other = type(self)()
        other.load_state_dict(self.state_dict())
        return other.eval()


def as_dictionary(logits):
    return {"logits": logits, "twice": 2 * logits}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_adapted_network_is_pickled_and_copied_with_its_adapter(protocol):
    images = torch.ones(2, 3)
    module = with_logits(Restless(), key="twice", classes=4).eval()
    expected = 2 * module.fc(images)
    loaded = pickle.loads(pickle.dumps(module, protocol))
    for other in (loaded, copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(loaded))):
        assert type(other) is type(module)
        assert torch.equal(other(images), expected)
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    assert torch.equal(torch.load(stream, weights_only=False)(images), expected)
    assert copy.deepcopy(module).fc.weight is not module.fc.weight


def test_a_network_that_its_own_code_makes_of_its_class_returns_its_logits():
    module = with_logits(Restless(), classes=4).eval()
    images = torch.ones(2, 3)
    assert torch.equal(module.twin()(images), module(images))


@pytest.mark.parametrize(
    ("last", "told"), [(nn.Sigmoid(), True), (nn.Hardsigmoid(), True), (nn.Tanh(), False), (nn.Identity(), False)]
)
def test_a_sigmoid_at_the_end_is_doubted(last, told):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), last).eval()
    found = doubts(module, torch.randn(5, 1, 2, 2))
    assert (SIGMOID in found) == told and len(found) == told


class Partly(nn.Module):
    """Computes one layer without gradients, in some way, and another only while it trains."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.norm, self.unused = nn.BatchNorm1d(4), nn.Linear(2, 2)
        self.unused.requires_grad_(way == "unused")

    def forward(self, images_NCHW):
        features = self.norm(images_NCHW.flatten(1))
        if self.way == "no_grad":
            with torch.no_grad():
                features = self.first(features)
        else:
            features = self.first(features).detach() if self.way == "detach" else self.first(features)
        return self.head(features + self.second(features) if self.training else features)


@pytest.mark.parametrize(("way", "count"), [("no_grad", 4), ("detach", 4), ("unused", 2), ("frozen", 0)])
def test_parameters_that_get_no_gradient_are_told(way, count):
    module = Partly("" if way == "frozen" else way).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    told = untrained(module, torch.randn(5, 1, 2, 2))
    assert told.startswith(f"{count} of {10 if way == 'unused' else 8} parameters get no gradient") == bool(count)
    names = {"unused": "unused.weight, unused.bias", "frozen": ""}.get(
        way, "first.weight, first.bias, norm.weight and 1"
    )
    assert names in told and bool(told) == bool(count)
    assert not module.training and all(torch.equal(before[name], each) for name, each in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


class WrittenInPlace(nn.Module):
    """Writes to what it has read, but for training, as FasterNet's layers do."""

    def __init__(self):
        super().__init__()
        self.first, self.part, self.head = nn.Linear(4, 4), nn.Linear(2, 2), nn.Linear(4, 3)

    def forward(self, images_NCHW):
        features = self.first(images_NCHW.flatten(1))
        if self.training:
            return self.head(torch.cat([self.part(features[:, :2]), features[:, 2:]], 1))
        features = features.clone()
        features[:, :2] = self.part(features[:, :2])
        return self.head(features)


def test_a_network_without_gradients_in_evaluation_mode_is_no_error():
    module = WrittenInPlace().eval()
    assert not untrained(module, torch.randn(5, 1, 2, 2))
    assert not module.training


class Frozen(Net):
    """Keeps its norm in evaluation mode and returns nothing from ``train``, as detection code does."""

    def __init__(self):
        super().__init__(lambda logits: {"logits": logits})
        self.norm = nn.BatchNorm1d(4)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()

    def eval(self):
        super().eval()


def test_a_networks_train_and_eval_return_it():
    module = with_logits(Frozen(), classes=4)
    assert module.train() is module and module.training and not module.norm.training
    assert module.train(False) is module and not module.training
    assert module.train().eval() is module and not module.training
    assert copy.deepcopy(module).eval().train(True).training
    assert "train" not in vars(type(with_logits(Net(None))))
