"""The layers' parts of the loss against NumPy and SciPy."""

import numpy as np
import pytest
import torch
from kondense.distill import attention, features, relational
from kondense.distill.feature_hooks import Layer, watch
from kondense.distill.feature_loss import Request
from kondense.distill.features import FeatureHint
from kondense.distill.layer_pairs import Pair
from kondense.distill.relational import RelationalHint
from kondense.networks.build import NetworkSpec, build
from scipy.spatial.distance import cdist
from torch import nn

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def pair(teacher, student):
    return Pair(Layer("theirs", teacher, 0.5), Layer("mine", student, 0.5))


def request(teacher, student):
    arguments = {"classes": 3, "channels": 1, "image_size": 16}
    networks = [build(NetworkSpec(name, arguments), seed=seed) for seed, name in enumerate((teacher, student))]
    return Request(networks[0], networks[1], (1, 16, 16))


def test_feature_hint_is_the_relative_squared_error_behind_a_1x1_convolution():
    hint = FeatureHint([pair((5, 4, 4), (3, 4, 4))], seed=0)
    mine, theirs = random(6, 3, 4, 4), random(6, 5, 4, 4)
    weight, bias = (tensor.detach().numpy() for tensor in hint.adapters[0].parameters())
    adapted = np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], mine.numpy()) + bias[None, :, None, None]
    expected = ((adapted - theirs.numpy()) ** 2).mean() / (theirs.numpy() ** 2).mean()
    assert hint([mine], hint.keep([theirs])).item() == pytest.approx(expected, rel=1e-5)


def test_feature_hint_on_features_is_a_fully_connected_layer_and_several_pairs_are_averaged():
    hint = FeatureHint([pair((4,), (2,)), pair((3,), (2,))], seed=0)
    mine, theirs = [random(7, 2), random(7, 2)], [random(7, 4), random(7, 3)]
    found = []
    for adapter, m, t in zip(hint.adapters, mine, theirs, strict=True):
        adapted = m @ adapter.weight[:, :, 0, 0].T + adapter.bias
        found.append((((adapted - t) ** 2).mean() / (t**2).mean()).item())
    assert hint(mine, theirs).item() == pytest.approx(np.mean(found), rel=1e-5)


def test_feature_hint_compares_maps_of_two_sizes_at_the_smaller_one():
    hint = FeatureHint([pair((3, 4, 4), (3, 2, 2))], seed=0)
    with torch.no_grad():
        hint.adapters[0].weight.copy_(torch.eye(3)[:, :, None, None])
        hint.adapters[0].bias.zero_()
    theirs = random(2, 3, 4, 4)
    pooled = theirs.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    assert hint([pooled], [theirs]).item() == pytest.approx(0.0, abs=1e-9)


def test_adapters_are_drawn_from_the_seed_and_leave_the_global_generator():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    made = [FeatureHint([pair((4,), (2,))], seed=seed).adapters[0].weight for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_attention_is_half_the_squared_distance_of_normalised_energy_maps():
    hint = attention.AttentionHint([pair((5, 3, 3), (2, 3, 3)), pair((4, 2, 2), (2, 2, 2))])
    mine, theirs = [random(6, 2, 3, 3), random(6, 2, 2, 2)], [random(6, 5, 3, 3), random(6, 4, 2, 2)]
    expected = 0.0
    for m, t in zip(mine, theirs, strict=True):
        maps = [(each.numpy() ** 2).mean(1).reshape(6, -1) for each in (m, t)]
        q = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in maps]
        expected += 0.5 * ((q[0] - q[1]) ** 2).sum(1).mean()
    assert float(hint(mine, hint.keep(theirs))) == pytest.approx(expected, rel=1e-5)
    assert [list(kept.shape) for kept in hint.keep(theirs)] == [[6, 1, 3, 3], [6, 1, 2, 2]]


def test_attention_sees_where_and_not_how_much():
    hint = attention.AttentionHint([pair((5, 3, 3), (2, 3, 3))])
    theirs = random(4, 1, 3, 3)
    assert float(hint([3.0 * theirs.expand(4, 2, 3, 3)], hint.keep([theirs.expand(4, 5, 3, 3)]))) == pytest.approx(
        0.0, abs=1e-9
    )
    assert float(hint([theirs.flip(3).expand(4, 2, 3, 3)], hint.keep([theirs]))) > 0.01


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
    mine, theirs = random(8, 3), random(8, 2, 2, 2)
    hint = RelationalHint([pair((2, 2, 2), (3,))])
    arrays = [each.flatten(1).double().numpy() for each in (mine, theirs)]
    scaled = []
    for array in arrays:
        distances = cdist(array, array)
        scaled.append(distances / distances[distances > 0].mean())
    expected = huber(scaled[0] - scaled[1]) + 2.0 * huber(cosines(arrays[0]) - cosines(arrays[1]))
    assert float(hint([mine], [theirs])) == pytest.approx(expected, rel=1e-4)


def test_relational_ignores_scale_shift_and_rotation_and_its_gradient_is_finite():
    theirs = random(8, 4)
    rotation = torch.linalg.qr(random(4, 4)).Q
    mine = (2.5 * theirs @ rotation + 1.0).requires_grad_()
    hint = RelationalHint([pair((4,), (4,))])
    loss = hint([mine], [theirs])
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    twins = torch.cat([theirs[:2], theirs[:2]]).requires_grad_()  # distances of exactly 0
    hint([twins], [random(4, 4)]).backward()
    assert torch.isfinite(twins.grad).all()


def test_angles_are_taken_among_the_first_images_only():
    mine, theirs = random(relational.ANGLE_IMAGES + 20, 3), random(relational.ANGLE_IMAGES + 20, 3)
    first = [each[: relational.ANGLE_IMAGES] for each in (mine, theirs)]
    distances = [relational.distances(each) for each in (mine, theirs)]
    angles = [relational.angles(each) for each in first]
    expected = nn.functional.smooth_l1_loss(*distances) + 2.0 * nn.functional.smooth_l1_loss(*angles)
    torch.testing.assert_close(RelationalHint([pair((3,), (3,))])([mine], [theirs]), expected)


@pytest.mark.parametrize(("teacher", "student"), [("lenet300", "lenet300"), ("resnet8", "lenet300")])
def test_attention_needs_maps(teacher, student):
    with pytest.raises(ValueError, match=r"attention needs layers with maps larger than 1x1, but '\S+' gives \[\d+\]"):
        attention.prepare(request(teacher, student))


@pytest.mark.parametrize(
    ("teacher", "student"), [("resnet8", "lenet5"), ("mobilenet_small", "resnet8"), ("lenet300", "lenet300")]
)
def test_features_and_relations_of_unlike_networks_have_gradients(teacher, student):
    asked = request(teacher, student)
    images = random(4, 1, 16, 16)
    for method in (features, relational):
        hint = method.prepare(asked)
        with (
            watch(asked.teacher, [each.teacher.name for each in hint.pairs], training=False) as theirs,
            watch(asked.student, [each.student.name for each in hint.pairs], training=True) as mine,
        ):
            asked.teacher.eval()(images)
            asked.student.train()(images)
            kept = [each.detach() for each in hint.keep([theirs[each.teacher.name] for each in hint.pairs])]
            hint([mine[each.student.name] for each in hint.pairs], kept).backward()
        gradients = [weight.grad for weight in asked.student.parameters() if weight.grad is not None]
        assert any(gradient.abs().max() > 0 for gradient in gradients)
        assert all(weight.grad is not None for weight in hint.parameters())
        asked.student.zero_grad(set_to_none=True)
