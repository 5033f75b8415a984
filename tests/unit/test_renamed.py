import subprocess
import sys

import pytest
from kondense.cli import STAGES, stage_config
from kondense.renamed import FORM, RENAMED, STEP, flag_names, refuse_old
from kondense_pipelines.graphs.parameters import CURATED, STEPS, read_settings

CONFIGS = {stage_config(name).__name__: (name, stage_config(name)) for name in STAGES}
FIELDS = [(scope, old, new) for scope, names in RENAMED.items() for old, new in names.items() if scope in CONFIGS]


def test_every_scope_is_known():
    assert set(RENAMED) <= {*CONFIGS, STEP, FORM}


@pytest.mark.parametrize(("scope", "old", "new"), FIELDS)
def test_an_old_field_is_refused_and_the_new_one_is_named(scope, old, new):
    config = CONFIGS[scope][1]
    assert old not in config.__dataclass_fields__
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


def test_an_old_flag_of_a_stage_is_refused_with_exit_code_2():
    command = [sys.executable, "-m", "kondense.cli", "prune", "--max-accuracy-drop=0.1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "max_accuracy_drop has been renamed: use max_validation_drop." in run.stderr + run.stdout


def test_names_that_flags_set():
    assert flag_names(["--batch-size=64", "--seed", "3", "--prune.sparsity=0.5"]) == [
        "batch_size",
        "seed",
        "prune.sparsity",
    ]
