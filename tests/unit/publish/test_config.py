import pytest
from kondense.publish.config import PublishConfig, derived_model_name


@pytest.mark.parametrize("name", ["Lenet", "a b", "../up", ".", "-a", "a/b", "a" * 64, "a.b", "ü"])
def test_refuses_names_that_are_no_model_name(name: str) -> None:
    with pytest.raises(ValueError, match="model_name must be 1 to 63 of a-z") as caught:
        PublishConfig(model_name=name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["a", "lenet5-fashion_mnist", "9", "a" * 63])
def test_takes_plain_names(name: str) -> None:
    assert PublishConfig(model_name=name).model_name == name


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_test_drop", -0.01), ("max_test_drop", 1.0), ("champion_tolerance", -1.0), ("objective", "speed")],
)
def test_refuses_bounds_outside_their_range(field: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        PublishConfig(**{field: value})


def test_needs_a_store() -> None:
    with pytest.raises(ValueError, match="store_uri must be"):
        PublishConfig(store_uri="")


@pytest.mark.parametrize(
    ("network", "dataset", "name"),
    [
        ("lenet5", "fashion_mnist", "lenet5-fashion_mnist"),
        ("torchvision:resnet18", "My Photos!", "torchvision-resnet18-my-photos"),
        ("pkg.module:factory", "x" * 80, "pkg-module-factory-" + "x" * 44),
    ],
)
def test_a_derived_name_is_a_model_name(network: str, dataset: str, name: str) -> None:
    assert derived_model_name(network, dataset) == name
    PublishConfig(model_name=name)
