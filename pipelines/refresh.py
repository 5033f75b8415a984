"""The refresh pipeline, for recurring runs: champion and challenger on the newest data.

The data are read anew in every run. When the published champion was made from these very data, nothing else happens.
Otherwise a challenger is trained and compressed as in compress, and published only if the gate holds: not below the
champion on the same test split, on which publish measures the champion anew.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.champion.component import champion
from components.data_prep.component import data_prep
from components.train.component import train
from pipelines.compress import build_candidates, make_compress, step_arguments, task_names
from pipelines.forms import with_form_of
from pipelines.parameters import Values
from pipelines.plan import Plan
from pipelines.resources import Resources, equip

NAME = "refresh"
DISPLAY_NAME = "Refresh the champion"
DESCRIPTION = "Retrain and compress on the newest data; publish the challenger only if it holds against the champion."
WITHOUT = ("import_uri",)  # a challenger is trained


def refresh_task_names(plan: Plan) -> tuple[str, ...]:
    """Return the display names of the tasks in order."""
    first, *others = task_names(plan)
    return (first, "champion", *others)


def make_refresh(bound: Values | None = None, resources: Resources | None = None, plan: Plan | None = None) -> Any:
    """Return the pipeline function, for compilation or a local run.

    Args:
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: what the steps get of a cluster; None for a local run.
        plan: the candidates; None for the standard ones.
    """
    planned = plan or Plan()

    def refresh(given: Mapping[str, Any], always: bool = False) -> None:
        """Hold a challenger against the champion.

        Args:
            given: the parameters of compress.
            always: make a challenger even when the champion was made from these very data.
        """
        values = step_arguments(bound or {}, {"import_uri": "", **given})
        prepared = data_prep(**values["data_prep"]).set_display_name("data prep")
        prepared.set_caching_options(False)  # the files at the same source may be others now
        data = prepared.outputs["dataset"]
        publishing, training = values["publish"], values["train"]
        verdict = champion(
            dataset=data,
            model_name=publishing["model_name"],
            store_uri=publishing["store_uri"],
            network=training["network"],
            always=always,
        ).set_display_name("champion")
        verdict.set_caching_options(False)  # the champion may be another one now
        with dsl.If(verdict.outputs["Output"] == True, name="challenge"):  # noqa: E712 -- kfp builds a condition of it
            trained = train(dataset=data, **training).set_display_name("train teacher")
            build_candidates(values, data, trained.outputs["model"], planned)
        if resources:
            equip(resources)

    form = with_form_of(make_compress().pipeline_func, refresh, without=WITHOUT)
    return dsl.pipeline(name=NAME, display_name=DISPLAY_NAME, description=DESCRIPTION)(form)
