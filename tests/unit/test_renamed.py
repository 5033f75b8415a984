import pytest
from kondense import cli
from kondense.renamed import FORM, RENAMED, STEP, flag_names, refuse_old
from kondense.stages import BUILT_IN
from kondense_pipelines.graphs.parameters import CURATED, STEPS, read_settings

CONFIGS = {stage.config_class.__name__: stage.config_class for stage in BUILT_IN}
FIELDS = [(scope, old, new) for scope, names in RENAMED.items() for old, new in names.items() if scope in CONFIGS]


def test_every_scope_is_known():
    assert set(RENAMED) <= {*CONFIGS, STEP, FORM}


@pytest.mark.parametrize(("scope", "old", "new"), FIELDS)
def test_an_old_field_is_refused_and_the_new_one_is_named(scope, old, new):
    config = CONFIGS[scope]
    assert old not in config.parameters()
    assert {*new.split(" or ")} <= {*config.parameters()}
    with pytest.raises(ValueError, match=f"^{old} has been renamed: use .*{new}"):
        config.from_strings({old: "0.5"})


@pytest.mark.parametrize(("old", "new"), RENAMED[STEP].items())
def test_an_old_step_is_refused_and_the_new_one_is_named(old, new):
    assert old not in STEPS and new in STEPS
    with pytest.raises(ValueError, match=f"^{old} has been renamed: use {new}"):
        read_settings([f"{old}.seed=1"])


def test_an_old_field_of_a_step_is_refused_in_set():
    with pytest.raises(ValueError, match="^max_accuracy_drop has been renamed: use max_test_drop"):
        read_settings(["publish.max_accuracy_drop=0.1"])


def test_an_old_parameter_of_the_run_form_has_a_successor():
    assert set(RENAMED[FORM].values()) <= set(CURATED)
    with pytest.raises(ValueError, match="^report_max_accuracy_drop has been renamed: use report_max_drop"):
        refuse_old(FORM, ["seed", "report_max_accuracy_drop"])


def test_an_old_flag_is_refused_with_exit_code_2(capsys):
    directories = ["--dataset-dir=d", "--model-dir=m", "--pruned-dir=p"]
    assert cli.main(["prune", *directories, "--max-accuracy-drop=0.1"]) == 2
    assert "max_accuracy_drop has been renamed: use max_validation_drop." in capsys.readouterr().err


def test_an_old_flag_of_a_trial_is_refused_and_its_reason_is_kept(tmp_path, capsys):
    where = ["--dataset-uri=d", f"--store-uri={tmp_path}", "--trial-name=t"]
    assert cli.main(["trial", *where, "--lr=0.1"]) == 2
    text = "lr has been renamed: use train.learning_rate or prune.learning_rate or distill.learning_rate."
    assert text in capsys.readouterr().err
    assert (tmp_path / "failures/t.txt").read_text() == f"{text}\n"


def test_names_that_flags_set():
    assert flag_names(["--batch-size=64", "--seed", "3", "--prune.sparsity=0.5"]) == [
        "batch_size",
        "seed",
        "prune.sparsity",
    ]
