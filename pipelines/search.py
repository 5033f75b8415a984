"""The search pipeline: hyperparameters by a Katib Experiment, then a teacher trained with the best, then compress.

It needs a cluster with Katib: the tune step creates an Experiment and follows it. On one machine ``kondense search
FILE`` runs the same Experiment, trials as processes; under kfp.local the tune step ends with a line that says so.

The trial template, the objective and the space come from an Experiment's file (manifests/experiments) when the
pipeline is compiled. The run form can replace the algorithm, its settings, the space, the counts and the resources.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl

from components.data_prep.component import data_prep
from components.images import STAGE_IMAGE
from components.train.component import train
from components.tune.component import tune
from pipelines.compress import build_candidates, make_compress, step_arguments
from pipelines.experiment.spec import load
from pipelines.forms import with_form_of
from pipelines.parameters import Values
from pipelines.plan import Plan
from pipelines.resources import Resources, equip

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
DECIDED = ("import_uri", "train_batch_size", "train_learning_rate", "train_augment")


def read_template(file: Path) -> str:
    """Return an Experiment as one line of JSON.

    Raises:
        ValueError: there is no such file, or it breaks rules of Katib's; all of them are listed.
    """
    if not file.is_file():
        raise ValueError(f"the Experiment must be a file such as those in manifests/experiments, but got {file}.")
    load(file)
    return json.dumps(yaml.safe_load(file.read_text(encoding="utf-8")), separators=(",", ":"))


def toleration_text(toleration: Mapping[str, str]) -> str:
    """Return a toleration as tune reads it: ``key=value:effect`` or ``key:effect``."""
    value = f"={toleration['value']}" if toleration.get("operator") == "Equal" else ""
    return f"{toleration['key']}{value}" + (f":{toleration['effect']}" if toleration.get("effect") else "")


def make_search(
    experiment: str,
    arguments: Mapping[str, Any],
    bound: Values | None = None,
    resources: Resources | None = None,
    plan: Plan | None = None,
) -> Any:
    """Return the pipeline function, for compilation.

    Args:
        experiment: an Experiment as text (``read_template``).
        arguments: values of compress's parameters; those that the form leaves out are taken from here.
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: what the steps get of a cluster; its GPUs are also the default of the trials'.
        plan: the candidates; None for the standard ones.
    """
    given, planned = resources or Resources(), plan or Plan()
    spec = json.loads(experiment)["spec"]
    decided = {name: arguments[name] for name in DECIDED} | {"import_uri": ""}

    def search(  # noqa: PLR0917 -- KFP passes parameters by position
        further: Mapping[str, Any],
        search_algorithm: str = spec["algorithm"]["algorithmName"],
        search_settings: str = "",
        search_space: str = json.dumps(spec["parameters"]),
        search_max_epochs: int = 0,
        search_max_trials: int = 0,
        search_parallel_trials: int = spec.get("parallelTrialCount", 1),
        search_max_failed_trials: int = -1,
        search_namespace: str = "",
        search_store_uri: str = "",
        trial_gpus: int = given.gpus,
        trial_accelerator: str = given.accelerator,
        trial_node_selector: str = ",".join(f"{key}={value}" for key, value in given.node_selector.items()),
        trial_tolerations: str = ",".join(map(toleration_text, given.tolerations)),
        trial_cpu: str = "",
        trial_memory: str = "",
        trial_shared_memory: str = "",
    ) -> None:
        """Search, train, compress.

        Args:
            further: the parameters of compress.
            search_algorithm: random, grid, tpe, hyperband or bohb.
            search_settings: settings of the algorithm, name=value joined by commas; the others stay the Experiment's.
            search_space: the parameters to search, in the form of spec.parameters of an Experiment.
            search_max_epochs: the most epochs that a trial gets, the maximum resource; 0 for the Experiment's.
            search_max_trials: trials in all; 0 for the Experiment's.
            search_parallel_trials: trials at a time; 1 runs them one after another on one GPU.
            search_max_failed_trials: failed trials that end the search; -1 for the Experiment's.
            search_namespace: where the trials run; empty for the namespace of the run.
            search_store_uri: where trials keep checkpoints and models; empty for the Experiment's.
            trial_gpus: accelerators per trial, 0 for none.
            trial_accelerator: the resource's name of an accelerator.
            trial_node_selector: labels of the trials' nodes, key=value joined by commas.
            trial_tolerations: taints that trials tolerate, key=value:effect or key:effect joined by commas.
            trial_cpu: CPU limit of a trial, such as 4; empty for the Experiment's.
            trial_memory: memory limit of a trial, such as 8Gi; empty for the Experiment's.
            trial_shared_memory: size of a trial's /dev/shm; empty for the Experiment's.
        """
        values = step_arguments(bound or {}, {**decided, **further})
        prepared = data_prep(**values["data_prep"]).set_display_name("data prep")
        data = prepared.outputs["dataset"]
        tuned = tune(
            dataset=data,
            experiment=experiment,
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            image=STAGE_IMAGE,
            network=values["train"]["network"],
            width=values["train"]["width"],
            algorithm=search_algorithm,
            settings=search_settings,
            space=search_space,
            max_epochs=search_max_epochs,
            max_trials=search_max_trials,
            parallel_trials=search_parallel_trials,
            max_failed_trials=search_max_failed_trials,
            namespace=search_namespace,
            store_uri=search_store_uri,
            gpus=trial_gpus,
            accelerator=trial_accelerator,
            node_selector=trial_node_selector,
            tolerations=trial_tolerations,
            cpu=trial_cpu,
            memory=trial_memory,
            shared_memory=trial_shared_memory,
        ).set_display_name("search with Katib")
        tuned.set_caching_options(False)  # it makes an Experiment
        best = {name: tuned.outputs[name] for name in TUNED}
        trained = train(dataset=data, **{**values["train"], **best}).set_display_name("train teacher")
        build_candidates(values, data, trained.outputs["model"], planned)
        equip(given)

    compress = make_compress().pipeline_func
    form = with_form_of(compress, search, without=DECIDED)
    return dsl.pipeline(name=NAME, display_name=DISPLAY_NAME, description=DESCRIPTION)(form)
