"""The refresh pipeline, for recurring runs: champion and challenger on the newest data.

Every run reads the data again. If the published champion was made from these data, nothing else happens. Otherwise a
challenger is trained and compressed as in compress, and published only if it passes the gate: not below the champion on
the same test split, on which publish measures the champion again.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl
from kondense.kfp import component
from kondense.stages import STAGES

from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.compress import PARAMETERS, cluster_task_names, make_pipeline
from kondense_pipelines.graphs.parameters import Values, form
from kondense_pipelines.graphs.resources import Resources
from kondense_pipelines.graphs.run_form import field_parameter

NAME = "refresh"
DISPLAY_NAME = "Refresh the champion"
DESCRIPTION = "Retrain and compress on the newest data; publish the challenger only if it holds against the champion."
WITHOUT = ("network_import_uri",)  # a challenger is trained
ALWAYS = "refresh_always"


def refresh_task_names(plan: Plan) -> tuple[str, ...]:
    """Return the display names of the tasks in order."""
    first, *others = cluster_task_names(plan)
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
        resources: resources of the steps on a cluster; None for a local run.
        plan: the candidates; None for the standard ones.
    """
    parameters = form([name for name in PARAMETERS if name not in WITHOUT], arguments)
    parameters[ALWAYS] = field_parameter(STAGES["champion"].config_class, "always")

    def build(prepared: Any, values: Any, given: Any, compress: Callable[..., None]) -> None:
        prepared.set_caching_options(False)  # the files at the same source may have changed
        verdict = component("champion")(
            dataset=prepared.outputs["dataset"],
            **{name: values["publish"][name] for name in ("model_name", "store_uri")},
            network=values["train"]["network"],
            always=given[ALWAYS],
        ).set_display_name("champion")
        verdict.set_caching_options(False)  # the champion may have changed
        with dsl.If(verdict.outputs["Output"] == True, name="challenge"):  # noqa: E712 -- kfp builds a condition of it
            compress()

    return make_pipeline(
        (NAME, DISPLAY_NAME, DESCRIPTION),
        parameters,
        build,
        fixed={"network_import_uri": ""},
        bound=bound,
        resources=resources,
        plan=plan,
    )
