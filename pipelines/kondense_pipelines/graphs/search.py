"""The search pipeline: hyperparameters by a Katib Experiment, then a teacher trained with the best, then compress.

It needs a cluster with Katib: the katib_search step creates an Experiment and follows it. On one machine
``kondense search FILE`` runs the same Experiment with trials as processes; under kfp.local the step fails with a line
that says so.

The trial template, the objective and the space come from an Experiment's file (manifests/experiments) when the
pipeline is compiled. The run form can replace the algorithm, its settings, the space, the counts and the resources.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp import dsl
from kondense.errors import InputError
from kondense.images import STAGE_IMAGE
from kondense.katib.spec import load
from kondense.katib.yaml_text import read_documents
from kondense.katib_search.experiment import read_experiment
from kondense.kfp import component
from kondense.search.suggesters import SUGGESTERS
from kondense.stages import STAGES

from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.compress import PARAMETERS, make_pipeline
from kondense_pipelines.graphs.parameters import Values, form
from kondense_pipelines.graphs.resources import Resources
from kondense_pipelines.graphs.run_form import Parameter, field_parameter

NAME = "search"
DISPLAY_NAME = "Search, then compress"
DESCRIPTION = "Search hyperparameters with Katib, train with the best, then compress, compare, choose and publish."
STAGE = STAGES["katib_search"]
TUNED = tuple(name for name in STAGE.returns if name != "trial")  # parameters of the training that the best trial sets
# Inputs of katib_search -> the parameters of the run form that set them.
FORM = {
    "algorithm": "search_algorithm",
    "max_epochs": "search_max_epochs",
    "max_trials": "search_max_trials",
    "parallel_trials": "search_parallel_trials",
    "pick": "search_pick",
    "settings": "search_settings",
    "space": "search_space",
    "resources": "trial_resources",
}
# Parameters of compress that the search decides, or that would make it useless.
DECIDED = ("network_import_uri", "train_epochs")


def read_template(file: Path) -> dict[str, Any]:
    """Return an Experiment.

    Raises:
        InputError: there is no such file, it breaks rules of Katib's (all of them are listed), or its trials are not
            Kondense's.
    """
    if not file.is_file():
        raise InputError(f"the Experiment must be a file such as those in manifests/experiments, but got {file}.")
    load(file)
    text = file.read_text(encoding="utf-8")
    read_experiment(text)
    content: dict[str, Any] = read_documents(text)[0]
    return content


def toleration_text(toleration: Mapping[str, str]) -> str:
    """Return a toleration as katib_search reads it: ``key=value:effect`` or ``key:effect``."""
    value = f"={toleration['value']}" if toleration.get("operator") == "Equal" else ""
    return f"{toleration['key']}{value}" + (f":{toleration['effect']}" if toleration.get("effect") else "")


def search_parameters(spec: Mapping[str, Any], resources: Resources) -> dict[str, Parameter]:
    """Return the parameters that only the search has in its run form.

    Args:
        spec: of the Experiment that is compiled in.
        resources: their GPUs and nodes are also the default of the trials.
    """
    config, structures = STAGE.config_class, STAGE.structures
    assert structures, "the stage has structures"
    defaults = {
        "algorithm": spec["algorithm"]["algorithmName"],
        "parallel_trials": spec.get("parallelTrialCount", 1),
        "space": spec["parameters"],
        "resources": {
            "gpus": resources.gpus,
            "accelerator": resources.accelerator,
            "node_selector": dict(resources.node_selector),
            "tolerations": [toleration_text(each) for each in resources.tolerations],
        },
    }
    parameters = {}
    for name, parameter in FORM.items():
        if name in structures.inputs:
            kind, description = structures.inputs[name]
            parameters[parameter] = Parameter(kind, defaults.get(name, kind()), description)
        else:
            parameters[parameter] = field_parameter(config, name, defaults.get(name))
    parameters["search_algorithm"] = dataclasses.replace(
        parameters["search_algorithm"],
        description="how trials are chosen; Katib must know it",
        literals=tuple(SUGGESTERS),
    )
    return parameters


def make_search(
    experiment: Mapping[str, Any],
    arguments: Mapping[str, Any],
    bound: Values | None = None,
    resources: Resources | None = None,
    plan: Plan | None = None,
) -> Any:
    """Return the pipeline function, for compilation.

    Args:
        experiment: an Experiment (``read_template``).
        arguments: values of compress's parameters, those included that the form omits.
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: resources of the steps on a cluster; its GPUs are also the default of the trials'.
        plan: the candidates; None for the standard ones.
    """
    cluster = resources or Resources()
    parameters = form([name for name in PARAMETERS if name not in DECIDED], arguments)
    parameters |= search_parameters(experiment["spec"], cluster)

    def build(prepared: Any, values: Any, given: Any, compress: Callable[..., None]) -> None:
        best = component("katib_search")(
            dataset=prepared.outputs["dataset"],
            experiment=dict(experiment),
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            pipeline=NAME,
            image=STAGE_IMAGE,
            **{name: values["train"][name] for name in ("network", "width")},
            **{name: given[parameter] for name, parameter in FORM.items()},
            **values["katib_search"],
        ).set_display_name("search with Katib")
        best.set_caching_options(False)  # it creates an Experiment
        compress(**{name: best.outputs[name] for name in TUNED})

    return make_pipeline(
        (NAME, DISPLAY_NAME, DESCRIPTION),
        parameters,
        build,
        fixed={name: arguments[name] for name in DECIDED} | {"network_import_uri": ""},
        bound=bound,
        resources=cluster,
        plan=plan,
    )
