"""The layers' parts of the loss against NumPy and SciPy."""

import numpy as np
import pytest
import torch
from kondense.distill import attention, features, relational
from kondense.distill.feature_hooks import Layer, record_outputs
from kondense.distill.feature_loss import Context
from kondense.distill.features import AdaptedLoss
from kondense.distill.layer_pairs import Pair
from kondense.distill.relational import RelationalLoss
from kondense.networks.build import NetworkSpec, build
from scipy.spatial.distance import cdist
from torch import nn

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def pair(teacher, student):
    return Pair(Layer("teacher", teacher, 0.5), Layer("student", student, 0.5))


def context_of(teacher, student):
    arguments = {"classes": 3, "channels": 1, "image_size": 16}
    networks = [build(NetworkSpec(name, arguments), seed=seed) for seed, name in enumerate((teacher, student))]
    return Context(networks[0], networks[1], (1, 16, 16))


def test_features_is_the_relative_squared_error_behind_a_1x1_convolution():
    loss = AdaptedLoss([pair((5, 4, 4), (3, 4, 4))], seed=0)
    outputs, targets = random(6, 3, 4, 4), random(6, 5, 4, 4)
    weight, bias = (tensor.detach().numpy() for tensor in loss.adapters[0].parameters())
    adapted = np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], outputs.numpy()) + bias[None, :, None, None]
    expected = ((adapted - targets.numpy()) ** 2).mean() / (targets.numpy() ** 2).mean()
    assert loss([outputs], loss.targets([targets])).item() == pytest.approx(expected, rel=1e-5)


def test_features_on_features_is_a_fully_connected_layer_and_several_pairs_are_averaged():
    loss = AdaptedLoss([pair((4,), (2,)), pair((3,), (2,))], seed=0)
    outputs, targets = [random(7, 2), random(7, 2)], [random(7, 4), random(7, 3)]
    found = []
    for adapter, m, t in zip(loss.adapters, outputs, targets, strict=True):
        adapted = m @ adapter.weight[:, :, 0, 0].T + adapter.bias
        found.append((((adapted - t) ** 2).mean() / (t**2).mean()).item())
    assert loss(outputs, targets).item() == pytest.approx(np.mean(found), rel=1e-5)


def test_features_compares_maps_of_two_sizes_at_the_smaller_one():
    loss = AdaptedLoss([pair((3, 4, 4), (3, 2, 2))], seed=0)
    with torch.no_grad():
        loss.adapters[0].weight.copy_(torch.eye(3)[:, :, None, None])
        loss.adapters[0].bias.zero_()
    targets = random(2, 3, 4, 4)
    pooled = targets.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    assert loss([pooled], [targets]).item() == pytest.approx(0.0, abs=1e-9)


def test_adapters_are_drawn_from_the_seed_and_leave_the_global_generator():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    made = [AdaptedLoss([pair((4,), (2,))], seed=seed).adapters[0].weight for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_attention_is_half_the_squared_distance_of_normalised_energy_maps():
    loss = attention.AttentionLoss([pair((5, 3, 3), (2, 3, 3)), pair((4, 2, 2), (2, 2, 2))])
    outputs, targets = [random(6, 2, 3, 3), random(6, 2, 2, 2)], [random(6, 5, 3, 3), random(6, 4, 2, 2)]
    expected = 0.0
    for m, t in zip(outputs, targets, strict=True):
        maps = [(each.numpy() ** 2).mean(1).reshape(6, -1) for each in (m, t)]
        q = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in maps]
        expected += 0.5 * ((q[0] - q[1]) ** 2).sum(1).mean()
    assert float(loss(outputs, loss.targets(targets))) == pytest.approx(expected, rel=1e-5)
    assert [list(target.shape) for target in loss.targets(targets)] == [[6, 1, 3, 3], [6, 1, 2, 2]]


def test_attention_sees_where_and_not_how_much():
    loss = attention.AttentionLoss([pair((5, 3, 3), (2, 3, 3))])
    targets = random(4, 1, 3, 3)
    assert float(loss([3.0 * targets.expand(4, 2, 3, 3)], loss.targets([targets.expand(4, 5, 3, 3)]))) == pytest.approx(
        0.0, abs=1e-9
    )
    assert float(loss([targets.flip(3).expand(4, 2, 3, 3)], loss.targets([targets]))) > 0.01


def huber(difference):
    size = np.abs(difference)
    return np.where(size < 1, 0.5 * size**2, size - 0.5).mean()


def cosines(features):
    count = len(features)
    found = np.zeros((count, count, count))
    for i in range(count):
        for j in range(count):
            for k in range(count):
                if i not in (j, k):
                    first, second = features[j] - features[i], features[k] - features[i]
                    found[i, j, k] = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return found


def test_relational_is_rkd_of_distances_and_angles():
    outputs, targets = random(8, 3), random(8, 2, 2, 2)
    loss = RelationalLoss([pair((2, 2, 2), (3,))])
    arrays = [each.flatten(1).double().numpy() for each in (outputs, targets)]
    scaled = []
    for array in arrays:
        distances = cdist(array, array)
        scaled.append(distances / distances[distances > 0].mean())
    expected = huber(scaled[0] - scaled[1]) + 2.0 * huber(cosines(arrays[0]) - cosines(arrays[1]))
    assert float(loss([outputs], [targets])) == pytest.approx(expected, rel=1e-4)


def test_relational_ignores_scale_shift_and_rotation_and_its_gradient_is_finite():
    targets = random(8, 4)
    rotation = torch.linalg.qr(random(4, 4)).Q
    outputs = (2.5 * targets @ rotation + 1.0).requires_grad_()
    loss = RelationalLoss([pair((4,), (4,))])
    assert loss([outputs], [targets]).item() == pytest.approx(0.0, abs=1e-6)
    twins = torch.cat([targets[:2], targets[:2]]).requires_grad_()  # distances of exactly 0
    loss([twins], [random(4, 4)]).backward()
    assert torch.isfinite(twins.grad).all()


def test_angles_are_taken_among_the_first_images_only():
    outputs, targets = random(relational.ANGLE_IMAGES + 20, 3), random(relational.ANGLE_IMAGES + 20, 3)
    first = [each[: relational.ANGLE_IMAGES] for each in (outputs, targets)]
    distances = [relational.distances(each) for each in (outputs, targets)]
    angles = [relational.angles(each) for each in first]
    expected = nn.functional.smooth_l1_loss(*distances) + 2.0 * nn.functional.smooth_l1_loss(*angles)
    torch.testing.assert_close(RelationalLoss([pair((3,), (3,))])([outputs], [targets]), expected)


@pytest.mark.parametrize(("teacher", "student"), [("lenet300", "lenet300"), ("resnet8", "lenet300")])
def test_attention_needs_maps(teacher, student):
    with pytest.raises(
        ValueError, match=r"attention needs layers with maps larger than 1x1, but the output of '\S+' is \[\d+\]"
    ):
        attention.prepare(context_of(teacher, student))


@pytest.mark.parametrize(
    ("teacher", "student"), [("resnet8", "lenet5"), ("mobilenet_small", "resnet8"), ("lenet300", "lenet300")]
)
def test_features_and_relations_of_unlike_networks_have_gradients(teacher, student):
    context = context_of(teacher, student)
    images = random(4, 1, 16, 16)
    for method in (features, relational):
        loss = method.prepare(context)
        with (
            record_outputs(context.teacher, [item.teacher.name for item in loss.pairs], training=False) as targets,
            record_outputs(context.student, [item.student.name for item in loss.pairs], training=True) as outputs,
        ):
            context.teacher.eval()(images)
            context.student.train()(images)
            detached = [target.detach() for target in loss.targets([targets[item.teacher.name] for item in loss.pairs])]
            loss([outputs[item.student.name] for item in loss.pairs], detached).backward()
        gradients = [weight.grad for weight in context.student.parameters() if weight.grad is not None]
        assert any(gradient.abs().max() > 0 for gradient in gradients)
        assert all(weight.grad is not None for weight in loss.parameters())
        context.student.zero_grad(set_to_none=True)
