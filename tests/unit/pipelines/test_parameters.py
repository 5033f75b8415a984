import pytest
from kondense_pipelines.graphs.parameters import CURATED, STEPS, read_settings, resolve


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["prune.sparsity=1.0"], r"prune: sparsity must be in \[0, 1\), but got 1.0"),
        (["prune.sparsity=-0.1"], "but got -0.1"),
        (["prune_weights.sparsity=1"], r"prune_weights: sparsity must be in \[0, 1\)"),
        (["pack_weights.bits=1"], r"pack_weights: bits must be in .* but got 1\."),
        (["pack_weights.bits=9"], r"pack_weights: bits must be in .* but got 9\."),
        (["train.epochs=0"], r"train: epochs must be in \[1, 100000\], but got 0"),
        (["report.max_validation_drop=-0.01"], "max_validation_drop must be in"),
        (["train.epochs=many"], "epochs must be int, but got 'many'"),
        (["prune.method=nothing"], "method must be one of bn_scale, constrained, fpgm"),
        (["quantize.method=nothing"], "method must be one of"),
        (["distill.method=nothing"], "method must be one of"),
        (["prune.nothing=1"], "these fields of prune: .*sparsity.*; but got 'nothing'"),
        (["nothing.epochs=1"], "knows the steps data_prep, train, .*publish, verdict, katib_search, but got 'nothing'"),
        (["epochs=1"], "must be step.field=value, but got 'epochs=1'"),
        (["train.epochs"], "must be step.field=value"),
        (["evaluate.name=x"], "evaluate.name: the pipeline sets it itself"),
        (["distill.student_network=resnet9"], "network must be one of .*resnet8.*but got 'resnet9'"),
    ],
)
def test_bad_settings_are_refused_with_rule_and_value(settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve("quick", {}, settings)


@pytest.mark.parametrize(
    ("profile", "plain", "message"),
    [
        ("slow", {}, "profile must be one of full, quick, but got 'slow'"),
        ("quick", {"dataset": "mnist"}, "must be one of .*cifar10.*but got 'mnist'"),
        ("quick", {"network": "lenet6"}, "network must be one of .*lenet5.*but got 'lenet6'"),
        ("quick", {"colour": "red"}, "parameter must be one of .*dataset.*but got 'colour'"),
        ("quick", {"seed": -1}, "seed must be in"),
    ],
)
def test_bad_plain_values_are_refused_and_the_right_ones_listed(
    profile: str, plain: dict[str, str | int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(profile, plain)


def test_settings_outweigh_plain_values_and_those_the_profile() -> None:
    configs = resolve("quick", {"seed": 5, "dataset": "digits"}, ["prune.seed=6", "train.epochs=2"])
    assert configs["data_prep"].to_dict()["dataset_name"] == "digits"
    assert configs["train"].to_dict()["seed"] == 5
    assert configs["prune"].to_dict()["seed"] == 6
    assert configs["train"].to_dict()["epochs"] == 2


def test_the_seed_reaches_every_step_that_has_one() -> None:
    for config in resolve("quick", {"seed": 11}).values():
        assert config.to_dict().get("seed", 11) == 11


def test_the_last_of_equal_settings_counts_and_values_may_hold_equals_signs() -> None:
    assert read_settings(["prune.layers=fc1=0.9", "prune.layers=fc1=0.5,fc2=0.2"]) == {
        "prune": {"layers": "fc1=0.5,fc2=0.2"}
    }


def test_rules_between_fields_see_all_values() -> None:
    configs = resolve("quick", {"dataset": "folder"}, ["data_prep.source=/data/images"])
    assert configs["data_prep"].to_dict()["source"] == "/data/images"


def test_curated_parameters_are_few() -> None:
    assert 10 <= len(CURATED) <= 13
    assert all(step in STEPS for targets in CURATED.values() for step, _ in targets)
