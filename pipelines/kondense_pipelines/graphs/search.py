"""The search pipeline: hyperparameters by a Katib Experiment, then a teacher trained with the best, then compress.

It needs a cluster with Katib: the katib_search step creates an Experiment and follows it. On one machine
``kondense search FILE`` runs the same Experiment, trials as processes; under kfp.local the step ends with a line that
says so.

The trial template, the objective and the space come from an Experiment's file (manifests/experiments) when the
pipeline is compiled. The run form can replace the algorithm, its settings, the space, the counts and the resources.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl
from kondense.data_prep.component import data_prep
from kondense.errors import InputError
from kondense.images import STAGE_IMAGE
from kondense.katib.spec import load
from kondense.katib_search.component import katib_search
from kondense.katib_search.config import KatibSearchConfig
from kondense.katib_search.experiment import read_experiment
from kondense.search.suggesters import SUGGESTERS
from kondense.train.component import train

from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.compress import PARAMETERS, CandidateGraph, finish, make_pipeline
from kondense_pipelines.graphs.parameters import Values, form, step_arguments
from kondense_pipelines.graphs.resources import Resources, equip
from kondense_pipelines.graphs.run_form import Parameter

NAME = "search"
DISPLAY_NAME = "Search, then compress"
DESCRIPTION = "Search hyperparameters with Katib, train with the best, then compress, compare, choose and publish."
TASKS = ("data prep", "search with Katib", "train teacher")  # before those of compress
# What the best trial gives to the teacher's training.
TUNED = (
    "batch_size",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "warmup_epochs",
    "label_smoothing",
    "augment",
    "averaging",
)
# Parameters of compress that the search decides, or that would make it idle.
DECIDED = ("network_import_uri", "train_epochs")


def read_template(file: Path) -> dict[str, Any]:
    """Return an Experiment.

    Raises:
        ValueError: there is no such file, it breaks rules of Katib's (all of them are listed), or its trials are not
            ours.
    """
    if not file.is_file():
        raise InputError(f"the Experiment must be a file such as those in manifests/experiments, but got {file}.")
    load(file)
    text = file.read_text(encoding="utf-8")
    read_experiment(text)
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def toleration_text(toleration: Mapping[str, str]) -> str:
    """Return a toleration as katib_search reads it: ``key=value:effect`` or ``key:effect``."""
    value = f"={toleration['value']}" if toleration.get("operator") == "Equal" else ""
    return f"{toleration['key']}{value}" + (f":{toleration['effect']}" if toleration.get("effect") else "")


def search_parameters(spec: Mapping[str, Any], resources: Resources) -> dict[str, Parameter]:
    """Return the run form's own parameters of the search.

    Args:
        spec: of the Experiment that is compiled in.
        resources: their GPUs and nodes are also the default of the trials.
    """

    def told(field: str) -> str:
        return str(KatibSearchConfig.__dataclass_fields__[field].metadata["description"])

    trial = {
        "gpus": resources.gpus,
        "accelerator": resources.accelerator,
        "node_selector": dict(resources.node_selector),
        "tolerations": [toleration_text(each) for each in resources.tolerations],
    }
    return {
        "search_algorithm": Parameter(
            str, spec["algorithm"]["algorithmName"], "how trials are chosen; Katib must know it", tuple(SUGGESTERS)
        ),
        "search_max_epochs": Parameter(int, 0, told("max_epochs")),
        "search_max_trials": Parameter(int, 0, told("max_trials")),
        "search_parallel_trials": Parameter(int, spec.get("parallelTrialCount", 1), told("parallel_trials")),
        "search_settings": Parameter(
            dict, {}, 'settings of the algorithm by name, such as {"eta": "4"}; the others stay the Experiment\'s'
        ),
        "search_space": Parameter(
            list, spec["parameters"], "the parameters to search, in the form of spec.parameters of an Experiment"
        ),
        "trial_resources": Parameter(
            dict,
            trial,
            "what each trial gets: gpus, accelerator, cpu, memory, shared_memory, node_selector, tolerations; what is"
            " not named is the Experiment's",
        ),
    }


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
        arguments: values of compress's parameters; those that the form leaves out are taken from here.
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: what the steps get of a cluster; its GPUs are also the default of the trials'.
        plan: the candidates; None for the standard ones.
    """
    given, planned = resources or Resources(), plan or Plan()
    decided = {name: arguments[name] for name in DECIDED} | {"network_import_uri": ""}
    parameters = form([name for name in PARAMETERS if name not in DECIDED], arguments)
    graph = CandidateGraph(bound or {}, parameters, given, planned)
    parameters |= search_parameters(experiment["spec"], given)

    def build(values_of: dict[str, Any]) -> None:
        values_of = {**decided, **values_of}
        values = step_arguments(bound or {}, values_of)
        prepared = data_prep(**values["data_prep"]).set_display_name("data prep")
        data = prepared.outputs["dataset"]
        tuned = katib_search(
            dataset=data,
            experiment=dict(experiment),
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            pipeline=NAME,
            image=STAGE_IMAGE,
            network=values["train"]["network"],
            width=values["train"]["width"],
            algorithm=values_of["search_algorithm"],
            settings=values_of["search_settings"],
            space=values_of["search_space"],
            max_epochs=values_of["search_max_epochs"],
            max_trials=values_of["search_max_trials"],
            parallel_trials=values_of["search_parallel_trials"],
            resources=values_of["trial_resources"],
            **values["katib_search"],
        ).set_display_name("search with Katib")
        tuned.set_caching_options(False)  # it makes an Experiment
        best = {name: tuned.outputs[name] for name in TUNED}
        trained = train(dataset=data, **{**values["train"], **best}).set_display_name("train teacher")
        finish(values, data, graph.add(data, trained.outputs["model"], values_of))
        equip(given)

    return make_pipeline(
        NAME,
        display_name=DISPLAY_NAME,
        summary=DESCRIPTION,
        parameters=parameters,
        build=build,
        resources=given,
        plan=planned,
    )
