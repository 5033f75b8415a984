"""The refresh pipeline, for recurring runs: champion and challenger on the newest data.

The data are read anew in every run. When the published champion was made from these very data, nothing else happens.
Otherwise a challenger is trained and compressed as in compress, and published only if the gate holds: not below the
champion on the same test split, on which publish measures the champion anew.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl
from kondense.champion.component import champion
from kondense.champion.config import ChampionConfig
from kondense.data_prep.component import data_prep
from kondense.train.component import train

from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.compress import PARAMETERS, CandidateGraph, finish, make_pipeline, task_names
from kondense_pipelines.graphs.parameters import Values, form, step_arguments
from kondense_pipelines.graphs.resources import Resources, equip
from kondense_pipelines.graphs.run_form import Parameter

NAME = "refresh"
DISPLAY_NAME = "Refresh the champion"
DESCRIPTION = "Retrain and compress on the newest data; publish the challenger only if it holds against the champion."
WITHOUT = ("network_import_uri",)  # a challenger is trained
ALWAYS = "refresh_always"


def refresh_task_names(plan: Plan) -> tuple[str, ...]:
    """Return the display names of the tasks in order."""
    first, *others = task_names(plan)
    return (first, "champion", *others)


def make_refresh(
    arguments: Mapping[str, Any],
    bound: Values | None = None,
    resources: Resources | None = None,
    plan: Plan | None = None,
) -> Any:
    """Return the pipeline function, for compilation or a local run.

    Args:
        arguments: the run form's defaults by parameter (``parameters.split``).
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: what the steps get of a cluster; None for a local run.
        plan: the candidates; None for the standard ones.
    """
    planned = plan or Plan()
    always = ChampionConfig.__dataclass_fields__["always"]
    parameters = form([name for name in PARAMETERS if name not in WITHOUT], arguments)
    graph = CandidateGraph(bound or {}, parameters, resources, planned)
    parameters[ALWAYS] = Parameter(bool, always.default, always.metadata["description"])

    def build(given: dict[str, Any]) -> None:
        given |= {"network_import_uri": ""}
        values = step_arguments(bound or {}, given)
        prepared = data_prep(**values["data_prep"]).set_display_name("data prep")
        prepared.set_caching_options(False)  # the files at the same source may be others now
        data = prepared.outputs["dataset"]
        publishing, training = values["publish"], values["train"]
        verdict = champion(
            dataset=data,
            model_name=publishing["model_name"],
            store_uri=publishing["store_uri"],
            network=training["network"],
            always=given[ALWAYS],
        ).set_display_name("champion")
        verdict.set_caching_options(False)  # the champion may be another one now
        with dsl.If(verdict.outputs["Output"] == True, name="challenge"):  # noqa: E712 -- kfp builds a condition of it
            trained = train(dataset=data, **training).set_display_name("train teacher")
            finish(values, data, graph.add(data, trained.outputs["model"], given))
        if resources:
            equip(resources)

    return make_pipeline(
        NAME,
        display_name=DISPLAY_NAME,
        summary=DESCRIPTION,
        parameters=parameters,
        build=build,
        resources=resources,
        plan=planned,
    )
