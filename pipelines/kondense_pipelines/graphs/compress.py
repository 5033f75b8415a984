"""The compress pipeline: one teacher, every way of making it small side by side, a report, a choice, a gate.

What makes, measures and compares the candidates is a graph of its own within the pipeline: KFP's page then shows the
pipeline at one look, and the candidates behind one box.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kfp import dsl
from kondense.config import Config
from kondense.data_prep.component import data_prep
from kondense.distill.component import distill
from kondense.distill.config import DistillConfig
from kondense.evaluate.component import evaluate
from kondense.profiles import DEFAULT_PROFILE
from kondense.prune.component import prune
from kondense.prune.config import PruneConfig
from kondense.publish.component import publish
from kondense.quantize.component import quantize
from kondense.quantize.config import QuantizeConfig
from kondense.report.component import report
from kondense.train.component import train

from kondense_pipelines.graphs.candidates import Plan, Task
from kondense_pipelines.graphs.parameters import CURATED, PROFILE, STEPS, Values, form, step_arguments
from kondense_pipelines.graphs.resources import Resources, equip
from kondense_pipelines.graphs.run_form import Parameter, parameter_table, pipeline_function, set_literals

NAME = "compress"
DISPLAY_NAME = "Compress a network"
DESCRIPTION = "Train a network or import one, make it small in every way, compare, choose and publish behind a gate."
CANDIDATES = "candidates"  # the graph within
PARAMETERS = (*CURATED, PROFILE)
CANDIDATE_STEPS = {"prune", "prune_weights", "distill", "quantize", "pack_weights", "evaluate", "report"}

COMPRESSING: Mapping[
    type[Config], tuple[Any, str]
] = {  # a step's Config -> its component, the output that is the model
    PruneConfig: (prune, "pruned"),
    DistillConfig: (distill, "student"),
    QuantizeConfig: (quantize, "quantized"),
}
# The form's parameters that the graph within uses.
HANDED_ON = (
    *(name for name, targets in CURATED.items() if {step for step, _ in targets} & CANDIDATE_STEPS),
    PROFILE,
)


class Compared(NamedTuple):
    """What the graph of the candidates puts out."""

    report: dsl.Artifact
    chosen: dsl.Model
    html: dsl.HTML


def task_names(plan: Plan) -> tuple[str, ...]:
    """Return the display names of the tasks in the order in which one machine runs them: made, then measured."""
    return ("data prep", "train teacher", *plan.task_names(), "report", "publish")


def make_compress(
    arguments: Mapping[str, Any],
    bound: Values | None = None,
    resources: Resources | None = None,
    plan: Plan | None = None,
    *,
    nested: bool = True,
) -> Any:
    """Return the pipeline function, for compilation or a local run.

    Args:
        arguments: the run form's defaults by parameter (``parameters.split``).
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: what the steps get of a cluster; None for a local run.
        plan: the candidates; None for the standard ones.
        nested: False puts the candidates' tasks beside the others, and no profile into the form: Argo's Workflow.
    """
    planned = plan or Plan()
    parameters = form(PARAMETERS if nested else CURATED, arguments)
    graph = CandidateGraph(bound or {}, parameters, resources, planned, nested=nested)

    def build(given: dict[str, Any]) -> None:
        given = {PROFILE: DEFAULT_PROFILE, **given}
        values = step_arguments(bound or {}, given)
        prepared = data_prep(**values["data_prep"]).set_display_name("data prep")
        data = prepared.outputs["dataset"]
        trained = train(dataset=data, **values["train"]).set_display_name("train teacher")
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


def make_pipeline(
    name: str,
    *,
    display_name: str,
    summary: str,
    parameters: Mapping[str, Parameter],
    build: Any,
    resources: Resources | None,
    plan: Plan,
) -> Any:
    """Return a KFP pipeline whose description tells its parameters and what this package makes.

    Args:
        name: of the pipeline.
        display_name: what the UI shows.
        summary: one line.
        parameters: of its run form.
        build: makes its tasks from the parameters' values.
        resources: what its steps get of a cluster; None for a local run.
        plan: its candidates.
    """
    given = resources or Resources()
    made = ", ".join(plan.candidates) or "no candidate beside the teacher"
    gpus = f"{given.gpus} x {given.accelerator} for each step that trains" if given.gpus else "no GPU"
    description = "\n".join(
        [
            summary,
            "",
            f"This package makes {made}, and asks for {gpus}. Any other field of any step, other "
            "candidates and recipes, GPUs and memory: kondense compile --set, --candidates, --recipe, --resource.",
            "",
            "Parameters (default):",
            parameter_table(parameters),
        ]
    )
    function = pipeline_function(name, summary, parameters, build)
    pipeline = dsl.pipeline(name=name, display_name=display_name, description=description)(function)
    if given.knows_literals:
        set_literals(pipeline, parameters)
    return pipeline


def finish(values: Mapping[str, Mapping[str, Any]], data: Any, compared: Mapping[str, Any]) -> None:
    """Make the task that publishes what was chosen."""
    published = publish(dataset=data, chosen=compared["chosen"], report=compared["report"], **values["publish"])
    # It writes to the object store and compares with what others have published meanwhile.
    published.set_display_name("publish").set_caching_options(False)


class CandidateGraph:
    """The tasks that follow a trained teacher: compress, measure, compare, choose."""

    def __init__(
        self,
        bound: Values,
        parameters: Mapping[str, Parameter],
        resources: Resources | None,
        plan: Plan,
        *,
        nested: bool = True,
    ) -> None:
        """Make the graph, before the pipeline that it is put into.

        Args:
            bound: values fixed at compile time, by step and field.
            parameters: of the pipeline's run form.
            resources: what the tasks get of a cluster; None for a local run.
            plan: the candidates.
            nested: False puts the tasks beside those of the pipeline.
        """
        self.bound, self.resources, self.plan = bound, resources, plan
        self.names = [name for name in HANDED_ON if name in parameters]
        self.graph = self._graph({name: parameters[name] for name in self.names}) if nested else None

    def add(self, data: Any, teacher: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put the tasks into the pipeline that is being built; return the artifacts ``report``, ``chosen``, ``html``.

        Args:
            data: the Dataset artifact.
            teacher: its Model artifact.
            given: the pipeline's parameters by name.
        """
        if self.graph is None:
            return self._build(given, data, teacher)
        passed = {name: given[name] for name in self.names}
        return dict(self.graph(dataset=data, teacher=teacher, **passed).set_display_name(CANDIDATES).outputs)

    def _graph(self, parameters: Mapping[str, Parameter]) -> Any:
        inputs = {"dataset": Parameter(dsl.Input[dsl.Dataset]), "teacher": Parameter(dsl.Input[dsl.Model])}
        inputs |= {name: Parameter(each.kind) for name, each in parameters.items()}

        def build(given: dict[str, Any]) -> Compared:
            artifacts = given.pop("dataset"), given.pop("teacher")
            made = self._build(given, *artifacts)
            if self.resources:
                equip(self.resources)
            return Compared(*(made[name] for name in Compared._fields))

        summary = "Make, measure and compare the candidates."
        return dsl.pipeline(name=CANDIDATES, description=summary)(
            pipeline_function(CANDIDATES, summary, inputs, build, returns=Compared)
        )

    def _build(self, parameters: Mapping[str, Any], data: Any, teacher: Any) -> dict[str, Any]:
        others = dict.fromkeys(CURATED)  # of steps that are none of these
        values = step_arguments(self.bound, {**others, **parameters})
        reference = evaluate(dataset=data, model=teacher, name="teacher", **values["evaluate"])
        measured = {"teacher": reference.set_display_name("evaluate teacher").outputs["candidate"]}
        for name, model in self._compress(values, data, teacher).items():
            # The measured teacher, because its ONNX form is there already.
            task = evaluate(dataset=data, model=model, teacher=measured["teacher"], name=name, **values["evaluate"])
            measured[name] = task.set_display_name(f"evaluate {name}").outputs["candidate"]
        inputs = {self._report_input(name): candidate for name, candidate in measured.items()}
        return dict(report(**inputs, **values["report"]).set_display_name("report").outputs)

    def _compress(self, values: Mapping[str, Mapping[str, Any]], data: Any, teacher: Any) -> dict[str, Any]:
        """Make the tasks that compress the teacher and return the models they give, by the candidate's name."""
        made: dict[str, Any] = {}
        models = {}
        for name, tasks in self.plan.candidates.items():
            model = teacher
            for task in tasks:
                if task.name not in made:
                    component, output = COMPRESSING[STEPS[task.step].config]
                    arguments = {**values[task.step], **task.overrides, **_inputs(task, model, teacher)}
                    made[task.name] = component(dataset=data, **arguments).set_display_name(task.name).outputs[output]
                model = made[task.name]
            models[name] = model
        return models

    def _report_input(self, name: str) -> str:
        recipes = self.plan.recipes
        return f"recipe_{recipes.index(name) + 1}" if name in recipes else name.replace("-", "_")


def _inputs(task: Task, model: Any, teacher: Any) -> dict[str, Any]:
    """Return the models that a task takes, each of them once.

    KFP's metadata store takes an artifact as one input of a task only, so a task that is given the teacher as its
    model gets no teacher besides: distill then makes a new student, prune and quantize teach by the model itself.
    """
    if STEPS[task.step].config is DistillConfig:
        return {"teacher": teacher} if model is teacher else {"teacher": teacher, "model": model}
    return {"model": model, "teacher": teacher} if task.taught and model is not teacher else {"model": model}
