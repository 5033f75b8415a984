"""The compress pipeline: one teacher, every way of making it small side by side, a report, a choice, a gate.

The candidates are made, measured and compared in a graph of their own within the pipeline: KFP's page then shows the
pipeline at a glance, and the candidates behind one box. The search and refresh pipelines are compress with other steps
before it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kfp import dsl
from kondense.artifacts.failed import VARIABLE
from kondense.kfp import component
from kondense.profiles import DEFAULT_PROFILE
from kondense.recipes import models_of
from kondense.stages import STAGES

from kondense_pipelines.graphs.candidates import Plan
from kondense_pipelines.graphs.parameters import CURATED, PROFILE, STEPS, TRAIN_JOB, Values, form, step_arguments
from kondense_pipelines.graphs.resources import Resources, equip
from kondense_pipelines.graphs.run_form import Parameter, parameter_table, pipeline_function, set_literals

NAME = "compress"
DISPLAY_NAME = "Compress a network"
DESCRIPTION = "Train a network or import one, make it small in every way, compare, choose and publish behind a gate."
TRAIN_TEACHER = "train teacher"  # display name of the task
CANDIDATES = "candidates"  # the graph within
PARAMETERS = (*CURATED, PROFILE)
CANDIDATE_STAGES = ("prune", "distill", "quantize", "evaluate", "report")
CANDIDATE_STEPS = {step for step, settings in STEPS.items() if settings.stage in CANDIDATE_STAGES}
# The form's parameters that the graph within uses.
PASSED = (*(name for name, targets in CURATED.items() if {step for step, _ in targets} & CANDIDATE_STEPS), PROFILE)

BeforeTeacher = Callable[[Any, Mapping[str, Mapping[str, Any]], Mapping[str, Any], Callable[..., None]], None]


class Compared(NamedTuple):
    """The outputs of the graph of the candidates."""

    report: dsl.Artifact
    chosen: dsl.Model
    html: dsl.HTML


def task_names(plan: Plan) -> tuple[str, ...]:
    """Return the display names of the tasks in the order in which one machine runs them: made, then measured."""
    return ("data prep", TRAIN_TEACHER, *plan.task_names(), "report", "publish")


def cluster_task_names(plan: Plan) -> tuple[str, ...]:
    """Return the display names of a compiled package's tasks: on a cluster the last one tells what failed."""
    return (*task_names(plan), "verdict")


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
        resources: resources of the steps on a cluster; None for a local run.
        plan: the candidates; None for the standard ones.
        nested: False puts the candidates' tasks beside the others, and no profile into the form: Argo's Workflow.
    """

    def build(prepared: Any, values: Any, given: Any, compress: Callable[..., None]) -> None:
        compress()

    return make_pipeline(
        (NAME, DISPLAY_NAME, DESCRIPTION),
        form(PARAMETERS if nested else CURATED, arguments),
        build,
        bound=bound,
        resources=resources,
        plan=plan,
        nested=nested,
    )


def make_pipeline(
    names: tuple[str, str, str],
    parameters: Mapping[str, Parameter],
    before_teacher: BeforeTeacher,
    *,
    fixed: Mapping[str, Any] | None = None,
    bound: Values | None = None,
    resources: Resources | None = None,
    plan: Plan | None = None,
    nested: bool = True,
) -> Any:
    """Return a KFP pipeline that reads data, trains a teacher, compresses it and publishes what the report chose.

    Args:
        names: name, display name and one line of description.
        parameters: of its run form.
        before_teacher: makes the tasks before the training, called with the task that read the data, the arguments of
            every step, the parameters' values, and ``compress(**overrides of the training)``, which makes the rest.
        fixed: values of parameters that the form does not have.
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: resources of the steps on a cluster; None for a local run.
        plan: the candidates; None for the standard ones.
        nested: whether the candidates have a graph of their own.
    """
    bound, plan, cluster = bound or {}, plan or Plan(), resources or Resources()
    graph = candidate_graph(bound, parameters, resources, plan, nested=nested)

    def build(given: dict[str, Any]) -> None:
        given = {PROFILE: DEFAULT_PROFILE, **(fixed or {}), **given}
        values = step_arguments(bound, given)
        prepared = component("data_prep")(**values["data_prep"]).set_display_name("data prep")
        data = prepared.outputs["dataset"]

        def compress(**overrides: Any) -> None:
            trained = train_task(data, {**values["train"], **overrides}, values[TRAIN_JOB], cluster)
            compared = graph(dataset=data, teacher=trained.outputs["model"], given=given)
            chosen = {name: compared[name] for name in ("chosen", "report")}
            published = component("publish")(dataset=data, **chosen, **values["publish"]).set_display_name("publish")
            published.set_caching_options(False)  # it compares with models that others published meanwhile
            if resources:  # on this machine the exit code says it
                verdict = component("verdict")(report=compared["report"], **values["verdict"])
                verdict.set_display_name("verdict").after(published).set_caching_options(False)

        before_teacher(prepared, values, given, compress)
        if resources:
            equip(resources)

    name, display_name, summary = names
    text = "\n".join([summary, "", contents(plan, cluster), "", "Parameters (default):", parameter_table(parameters)])
    function = pipeline_function(name, summary, parameters, build)
    pipeline = dsl.pipeline(name=name, display_name=display_name, description=text)(function)
    if cluster.knows_literals:
        set_literals(pipeline, parameters)
    return pipeline


def train_task(data: Any, arguments: Mapping[str, Any], job: Mapping[str, Any], resources: Resources) -> Any:
    """Return the task that trains the teacher: in its own pod, or on several nodes.

    Args:
        data: the data set.
        arguments: of the step train.
        job: of the step train_job.
        resources: of the steps that train; on several nodes they are each node's.
    """
    if job["nodes"] == 1:
        return component("train")(dataset=data, **arguments).set_display_name(TRAIN_TEACHER)
    task = component(TRAIN_JOB)(
        dataset=data,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        gpus=resources.gpus,
        accelerator=resources.accelerator,
        cpu=resources.cpu_limit,
        memory=resources.memory_limit,
        secret=resources.secret,
        **arguments,
        **job,
    ).set_display_name(TRAIN_TEACHER)
    return task.set_caching_options(False)  # it creates a TrainJob


def contents(plan: Plan, resources: Resources) -> str:
    """Return the sentences of a pipeline's description about its candidates and its GPUs."""
    made = ", ".join(plan.candidates) or "no candidate beside the teacher"
    gpus = f"{resources.gpus} x {resources.accelerator} for each step that trains" if resources.gpus else "no GPU"
    return (
        f"This package makes {made}, and asks for {gpus}. Any other field of any step, other "
        "candidates and recipes, GPUs and memory: kondense compile --set, --candidates, --recipe, --resource."
    )


def candidate_graph(
    bound: Values, parameters: Mapping[str, Parameter], resources: Resources | None, plan: Plan, *, nested: bool
) -> Callable[..., Mapping[str, Any]]:
    """Return a function that adds the tasks after the training to a pipeline and returns the outputs of the report.

    Args:
        bound: values fixed at compile time, by step and field.
        parameters: of the pipeline's run form.
        resources: resources of the tasks on a cluster; None for a local run.
        plan: the candidates.
        nested: whether the tasks are a graph of their own; it must be made before the pipeline.
    """
    names = [name for name in PASSED if name in parameters]
    inputs = {"dataset": Parameter(dsl.Input[dsl.Dataset]), "teacher": Parameter(dsl.Input[dsl.Model])}
    inputs |= {name: Parameter(parameters[name].kind) for name in names}

    def build(given: dict[str, Any]) -> Compared:
        unused = {**dict.fromkeys(CURATED), PROFILE: DEFAULT_PROFILE}  # parameters of other steps
        values = step_arguments(bound, {**unused, **given})
        outputs = compare(values, plan, given["dataset"], given["teacher"])
        if resources and nested:
            equip(resources)
        return Compared(*(outputs[name] for name in Compared._fields))

    summary = "Make, measure and compare the candidates."
    function = pipeline_function(CANDIDATES, summary, inputs, build, returns=Compared)
    graph = dsl.pipeline(name=CANDIDATES, description=summary)(function) if nested else None

    def add(dataset: Any, teacher: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
        arguments = {"dataset": dataset, "teacher": teacher, **{name: given[name] for name in names}}
        if graph is None:
            return dict(function(**arguments)._asdict())
        return dict(graph(**arguments).set_display_name(CANDIDATES).outputs)

    return add


def compare(values: Mapping[str, Mapping[str, Any]], plan: Plan, data: Any, teacher: Any) -> Mapping[str, Any]:
    """Make the tasks that compress, measure and compare; return the outputs of the report."""
    evaluate = component("evaluate")
    # The teacher's failure is the run's: without it nothing can be compared.
    reference = evaluate(dataset=data, model=teacher, name="teacher", **values["evaluate"])
    measured = {"teacher": reference.set_display_name("evaluate teacher").outputs["candidate"]}
    for name, model in compress_teacher(values, plan, data, teacher).items():
        # The measured teacher, because it has its ONNX form already.
        task = evaluate(dataset=data, model=model, teacher=measured["teacher"], name=name, **values["evaluate"])
        measured[name] = independent(task).set_display_name(f"evaluate {name}").outputs["candidate"]
    recipes = {name: f"recipe_{number}" for number, name in enumerate(plan.recipes, start=1)}
    inputs = {recipes.get(name, name.replace("-", "_")): candidate for name, candidate in measured.items()}
    return dict(component("report")(**inputs, **values["report"]).set_display_name("report").outputs)


def independent(task: Any) -> Any:
    """Return a task whose failure is its candidate's alone: it ends well, and the report tells the reason."""
    return task.set_env_variable(VARIABLE, "1")


def compress_teacher(values: Mapping[str, Mapping[str, Any]], plan: Plan, data: Any, teacher: Any) -> dict[str, Any]:
    """Make the tasks that compress the teacher and return their models by the candidate's name."""
    made: dict[str, Any] = {}
    compressed = {}
    for name, tasks in plan.candidates.items():
        model = teacher
        for task in tasks:
            if task.name not in made:
                models = models_of(task.stage, model, teacher, taught=task.taught)
                arguments = {**values.get(task.step, {}), **task.overrides, **models}
                made[task.name] = independent(component(task.stage)(dataset=data, **arguments))
                made[task.name].set_display_name(task.name)
            model = made[task.name].outputs[STAGES[task.stage].outputs[0].name]
        compressed[name] = model
    return compressed
