"""The compress pipeline: one teacher, every way of making it small side by side, a report, a choice, a gate."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.config import Config
from components.data_prep.component import data_prep
from components.distill.component import distill
from components.distill.config import DistillConfig
from components.evaluate.component import evaluate
from components.prune.component import prune
from components.prune.config import PruneConfig
from components.publish.component import publish
from components.quantize.component import quantize
from components.quantize.config import QuantizeConfig
from components.report.component import report
from components.train.component import train
from pipelines.parameters import STEPS, Values, apply
from pipelines.plan import Plan, Task
from pipelines.resources import Resources, equip

NAME = "compress"
DESCRIPTION = "Train a network or import one, make it small in every way, compare, choose and publish behind a gate."

COMPRESSING: Mapping[
    type[Config], tuple[Any, str]
] = {  # a step's Config -> its component, the output that is the model
    PruneConfig: (prune, "pruned"),
    DistillConfig: (distill, "student"),
    QuantizeConfig: (quantize, "quantized"),
}


def task_names(plan: Plan) -> tuple[str, ...]:
    """Return the display names of the tasks in the order in which one machine runs them: made, then measured."""
    return ("data prep", "train teacher", *plan.task_names(), "report", "publish")


def make_compress(bound: Values | None = None, resources: Resources | None = None, plan: Plan | None = None) -> Any:
    """Return the pipeline function, for compilation or a local run.

    Args:
        bound: values, by step and field, that are fixed at compile time and outweigh the parameters.
        resources: what the steps get of a cluster; None for a local run.
        plan: the candidates; None for the standard ones.
    """
    fixed, planned = bound or {}, plan or Plan()

    @dsl.pipeline(name=NAME, display_name="Compress a network", description=DESCRIPTION)
    def compress(  # noqa: PLR0917 -- KFP wants a literal signature and passes it by position
        dataset: str = "fashion_mnist",
        source: str = "",
        validation_size: int = 0,
        image_limit: int = 0,
        network: str = "lenet5",
        network_width: float = 1.0,
        import_uri: str = "",
        seed: int = 0,
        device: str = "auto",
        train_epochs: int = 8,
        train_batch_size: int = 128,
        train_learning_rate: float = 0.05,
        train_augment: str = "none",
        prune_method: str = "l1",
        prune_sparsity: float = 0.75,
        prune_epochs: int = 4,
        prune_learning_rate: float = 0.05,
        sparsify_sparsity: float = 0.95,
        sparsify_epochs: int = 5,
        pack_bits: int = 5,
        distill_network: str = "",
        distill_width: float = 0.5,
        distill_epochs: int = 6,
        distill_temperature: float = 2.0,
        distill_alpha: float = 0.9,
        report_objective: str = "balanced",
        max_accuracy_drop: float = 0.01,
        publish_name: str = "",
        publish_store_uri: str = "minio://kondense",
        publish_objective: str = "bytes",
    ) -> None:
        """Compress a network.

        Args:
            dataset: fashion_mnist, cifar10, cifar100, digits, or folder (one folder of images per class).
            source: where the data set's files are: a directory or s3://bucket/prefix; empty tries the usual places.
            validation_size: training images kept for validation; 0 takes one in twelve.
            image_limit: most images to take of the training and of the test images each; 0 takes all.
            network: the teacher: a built-in name, torchvision:NAME, or package.module:factory.
            network_width: multiplier of the teacher's channels.
            import_uri: take a trained teacher from here instead of training one.
            seed: seed of all randomness.
            device: auto takes a GPU when there is one; cpu or cuda to insist.
            train_epochs: epochs to train the teacher.
            train_batch_size: images per step of the teacher's training.
            train_learning_rate: peak learning rate of the teacher's training.
            train_augment: none, crop or crop_flip.
            prune_method: l1 removes channels, magnitude zeroes single weights.
            prune_sparsity: fraction that pruning removes, of MACs for l1.
            prune_epochs: epochs of fine-tuning after pruning.
            prune_learning_rate: peak learning rate of that fine-tuning.
            sparsify_sparsity: fraction of the weights that become zero in the sparse candidate.
            sparsify_epochs: epochs of fine-tuning while it becomes sparse.
            pack_bits: bits per weight that is left in the sparse candidate, 2 to 8.
            distill_network: the student; empty for the teacher's kind of network.
            distill_width: multiplier of the student's channels.
            distill_epochs: epochs to train the student.
            distill_temperature: softens the logits of teacher and student.
            distill_alpha: weight of the teacher's part of the student's loss, 0 to 1.
            report_objective: what the chosen candidate has the most of: balanced, bytes or latency.
            max_accuracy_drop: how far below the teacher the chosen and published model may be, as a fraction.
            publish_name: name to publish under; empty for network and data set.
            publish_store_uri: where to publish: minio://bucket/prefix, s3://bucket/prefix or a path.
            publish_objective: what may not be worse than the published champion's: bytes, latency or none.
        """
        build_graph(step_arguments(fixed, dict(locals())), planned)
        if resources:
            equip(resources)

    return compress


def build_graph(values: Mapping[str, Mapping[str, Any]], plan: Plan) -> None:
    """Make the pipeline's tasks from the arguments of every step."""
    prepared = data_prep(**values["data_prep"]).set_display_name("data prep")
    data = prepared.outputs["dataset"]
    trained = train(dataset=data, **values["train"]).set_display_name("train teacher")
    build_candidates(values, data, trained.outputs["model"], plan)


def build_candidates(values: Mapping[str, Mapping[str, Any]], data: Any, teacher: Any, plan: Plan) -> None:
    """Make the tasks that follow a trained teacher: compress, measure, compare, choose, publish."""
    reference = evaluate(dataset=data, model=teacher, name="teacher", **values["evaluate"])
    candidates = {"teacher": reference.set_display_name("evaluate teacher").outputs["candidate"]}
    for name, model in compress_teacher(values, data, teacher, plan).items():
        # The measured teacher, because its ONNX form is there already.
        measured = evaluate(dataset=data, model=model, teacher=candidates["teacher"], name=name, **values["evaluate"])
        candidates[name] = measured.set_display_name(f"evaluate {name}").outputs["candidate"]

    inputs = {_report_input(name, plan): candidate for name, candidate in candidates.items()}
    reported = report(**inputs, **values["report"]).set_display_name("report").outputs
    published = publish(dataset=data, chosen=reported["chosen"], report=reported["report"], **values["publish"])
    # It writes to the object store and compares with what others have published meanwhile.
    published.set_display_name("publish").set_caching_options(False)


def compress_teacher(values: Mapping[str, Mapping[str, Any]], data: Any, teacher: Any, plan: Plan) -> dict[str, Any]:
    """Make the tasks that compress the teacher and return the models they give, by the candidate's name."""
    made: dict[str, Any] = {}
    models = {}
    for name, tasks in plan.candidates.items():
        model = teacher
        for task in tasks:
            if task.name not in made:
                component, output = COMPRESSING[STEPS[task.step].config]
                arguments = {**values[task.step], **task.overrides, **_inputs(task, model, teacher)}
                made[task.name] = component(dataset=data, **arguments).set_display_name(task.name).outputs[output]
            model = made[task.name]
        models[name] = model
    return models


def _inputs(task: Task, model: Any, teacher: Any) -> dict[str, Any]:
    """Return the models that a task takes, each of them once.

    KFP's metadata store takes an artifact as one input of a task only, so a task that is given the teacher as its
    model gets no teacher besides: distill then makes a new student, prune and quantize teach by the model itself.
    """
    if STEPS[task.step].config is DistillConfig:
        return {"teacher": teacher} if model is teacher else {"teacher": teacher, "model": model}
    return {"model": model, "teacher": teacher} if task.taught and model is not teacher else {"model": model}


def _report_input(name: str, plan: Plan) -> str:
    return f"recipe_{plan.recipes.index(name) + 1}" if name in plan.recipes else name.replace("-", "_")


def step_arguments(bound: Values, parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of every step's component.

    Args:
        bound: values fixed at compile time.
        parameters: the pipeline's parameters by name; names that are none are left out.
    """
    values = apply(parameters)
    for step, fields in bound.items():
        values[step].update(fields)
    return values
