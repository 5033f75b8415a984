"""The stages: the Config and the function of each, and the artifacts that it reads and writes.

The container command, the KFP components and the checks of a run's parameters are made from this table. It names
modules and imports none, so that reading it stays cheap. Another package adds a stage by an entry point of the group
``kondense.stages`` that names a ``Stage``; its Config and its function may be in the same file.
"""

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from kondense import entry_points
from kondense.candidates import MOST_RECIPES, STANDARD
from kondense.candidates import TEACHER as TEACHER_NAME
from kondense.config import Config
from kondense.errors import InputError
from kondense.profiles import settled

GROUP = "kondense.stages"
VIEWS = ("HTML", "Metrics", "ClassificationMetrics")  # types that KFP's pages show; no directories of artifacts


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An input or output of a stage.

    Attributes:
        name: of the component's input or output. The stage's function takes the directory as ``<name>_dir``.
        type: KFP's type: Dataset, Model, Artifact, or one of ``VIEWS``.
        optional: an input that can be omitted.
        several: names of the component's inputs if the function takes a list, ``<name>_dirs``; the first is required.
        title: display name of a Model ({network}, {method} and {candidate} are the model's) or of metrics ({field}s
            are the Config's).
        source: of a view, the output that it shows; metrics without one are those that the function returns.
    """

    name: str
    type: str
    optional: bool = False
    several: tuple[str, ...] = ()
    title: str = ""
    source: str = ""

    @property
    def directory(self) -> str:
        """The parameter of the stage's function."""
        return f"{self.name}_dirs" if self.several else f"{self.name}_dir"

    @property
    def names(self) -> dict[str, bool]:
        """The component's inputs or outputs of this artifact, and whether each is optional."""
        if self.several:
            return {name: name != self.several[0] for name in self.several}
        return {self.name: self.optional}


@dataclasses.dataclass(frozen=True)
class Structures:
    """Inputs of a component that are lists or maps, where its Config, which is flat, has texts.

    Attributes:
        inputs: type and description by name.
        reader: ``module:function`` that takes the inputs and returns the fields of the Config that they set.
        further: ``module:NAMES`` of those fields that are not named as the inputs are.
    """

    inputs: Mapping[str, tuple[type, str]]
    reader: str
    further: str

    @property
    def replaced(self) -> set[str]:
        """The fields of the Config that the inputs set."""
        return {*self.inputs, *load(self.further)}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of the command and the component.
        config: ``module:Class`` of its parameters.
        run: ``module:function``, called as ``run(config, <artifact>_dir=path, ...)``; it returns metrics by name.
        summary: one line for ``--help`` and KFP.
        inputs: the artifacts that it reads.
        outputs: those that it writes.
        returns: parameters that the component returns, by name; a single ``Output`` is KFP's name for one value.
        profiled: it trains: the component can take numbers from a profile, which is chosen in the run form, and on a
            cluster it gets the GPUs.
        structures: inputs of the component that are no fields of the Config.
        component: whether KFP runs it.
    """

    name: str
    config: str
    run: str
    summary: str
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    returns: Mapping[str, type] = dataclasses.field(default_factory=dict)
    profiled: bool = False
    structures: Structures | None = None
    component: bool = True

    @property
    def config_class(self) -> type[Config]:
        """The Config, imported."""
        config: type[Config] = load(self.config)
        return config

    @property
    def directories(self) -> tuple[Artifact, ...]:
        """The artifacts whose directories its function takes."""
        return tuple(each for each in (*self.inputs, *self.outputs) if each.type not in VIEWS)


def load(location: str) -> Any:
    """Import and return the object at ``module:name``."""
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)


def config_values(stage: Stage, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a stage's Config that a component's parameters set.

    Args:
        stage: the stage.
        arguments: the component's parameters by name; structures become texts, and -1 a number of the profile.

    Raises:
        InputError: a structure of another form, or an unknown profile.
    """
    structures = stage.structures
    hidden = structures.replaced if structures else set()
    names = [field.name for field in dataclasses.fields(stage.config_class) if field.name not in hidden]
    values = {name: arguments[name] for name in names if name in arguments}
    if structures:
        values |= load(structures.reader)(**{name: arguments[name] for name in structures.inputs if name in arguments})
    if stage.profiled and {"profile", "step"} <= set(arguments):
        values = settled(values, arguments["profile"], arguments["step"])
    return values


DATASET, MODEL = Artifact("dataset", "Dataset"), Artifact("model", "Model")
TEACHER = Artifact("teacher", "Model", optional=True)
# The inputs of the report's component: the teacher, the standard candidates, recipes of the user.
CANDIDATES = (
    TEACHER_NAME,
    *(name.replace("-", "_") for name in STANDARD),
    *(f"recipe_{number}" for number in range(1, MOST_RECIPES + 1)),
)
BUILT_IN = (
    Stage(
        "data_prep",
        config="kondense.data_prep.config:DataPrepConfig",
        run="kondense.data_prep.stage:run",
        summary="read a data set, split it into training, validation and test images, and write it",
        outputs=(DATASET,),
    ),
    Stage(
        "train",
        config="kondense.train.config:TrainConfig",
        run="kondense.train.stage:run",
        summary="train a network, or import a trained one",
        inputs=(DATASET,),
        outputs=(Artifact("model", "Model", title="teacher {network}"),),
        profiled=True,
    ),
    Stage(
        "prune",
        config="kondense.prune.config:PruneConfig",
        run="kondense.prune.stage:run",
        summary="remove weights or channels, and fine-tune; a teacher joins the loss of the fine-tuning",
        inputs=(DATASET, MODEL, TEACHER),
        outputs=(Artifact("pruned", "Model", title="{method}"),),
        profiled=True,
    ),
    Stage(
        "distill",
        config="kondense.distill.config:DistillConfig",
        run="kondense.distill.stage:run",
        summary="train a student, a new network or the given model, on labels and outputs of one to three teachers",
        inputs=(
            DATASET,
            Artifact("teacher", "Model"),
            Artifact("model", "Model", optional=True),
            Artifact("teacher_2", "Model", optional=True),
            Artifact("teacher_3", "Model", optional=True),
        ),
        outputs=(Artifact("student", "Model", title="student {network}"),),
        profiled=True,
    ),
    Stage(
        "quantize",
        config="kondense.quantize.config:QuantizeConfig",
        run="kondense.quantize.stage:run",
        summary="store weights in few bits and, with most methods, compute on integers",
        inputs=(DATASET, MODEL, TEACHER),
        outputs=(Artifact("quantized", "Model", title="{method}"),),
    ),
    Stage(
        "evaluate",
        config="kondense.evaluate.config:EvaluateConfig",
        run="kondense.evaluate.stage:run",
        summary="measure a candidate: accuracy in torch and onnxruntime, on corrupted images, size, latency, memory",
        inputs=(DATASET, MODEL, TEACHER),
        outputs=(
            Artifact("candidate", "Model", title="{candidate} (measured)"),
            Artifact("metrics", "Metrics", title="figures of {name}", source="candidate"),
            Artifact("classification", "ClassificationMetrics", title="confusion of {name}", source="candidate"),
        ),
    ),
    Stage(
        "report",
        config="kondense.report.config:ReportConfig",
        run="kondense.report.stage:run",
        summary="compare the evaluated candidates, choose one and show why",
        inputs=(Artifact("candidate", "Model", several=CANDIDATES),),
        outputs=(
            Artifact("report", "Artifact"),
            Artifact("chosen", "Model", title="chosen: {candidate}"),
            Artifact("html", "HTML", source="report"),
            Artifact("metrics", "Metrics", title="figures of the chosen"),
        ),
    ),
    Stage(
        "publish",
        config="kondense.publish.config:PublishConfig",
        run="kondense.publish.stage:run",
        summary="publish the chosen model as an immutable version and as champion, if it passes the gate",
        inputs=(DATASET, Artifact("chosen", "Model"), Artifact("report", "Artifact")),
        outputs=(Artifact("receipt", "Artifact"),),
    ),
    Stage(
        "verdict",
        config="kondense.verdict.config:VerdictConfig",
        run="kondense.verdict.stage:run",
        summary="end the run, after all else, with an error if a candidate failed or fell short of the request",
        inputs=(Artifact("report", "Artifact"),),
    ),
    Stage(
        "champion",
        config="kondense.champion.config:ChampionConfig",
        run="kondense.champion.stage:run",
        summary="measure the published champion on the newest data and decide whether to make a challenger",
        inputs=(DATASET,),
        outputs=(Artifact("champion", "Artifact"),),
        returns={"Output": bool},
    ),
    Stage(
        "katib_search",
        config="kondense.katib_search.config:KatibSearchConfig",
        run="kondense.katib_search.stage:run",
        summary="search hyperparameters with a Katib Experiment and return the best trial's, and its model",
        inputs=(DATASET,),
        outputs=(
            Artifact("model", "Model", title="best trial {network}"),
            Artifact("search", "Artifact"),
            Artifact("html", "HTML", source="search"),
        ),
        returns={
            "trial": str,
            "batch_size": int,
            "learning_rate": float,
            "momentum": float,
            "weight_decay": float,
            "schedule": str,
            "warmup_epochs": float,
            "label_smoothing": float,
            "augment": str,
            "averaging": float,
        },
        structures=Structures(
            inputs={
                "experiment": (dict, "a Katib Experiment (kubeflow.org/v1beta1)"),
                "space": (list, "the parameters to search, in the form of spec.parameters of an Experiment"),
                "settings": (
                    dict,
                    'settings of the algorithm by name, such as {"eta": "4"}; the others are the Experiment\'s',
                ),
                "resources": (
                    dict,
                    "resources of each trial: gpus, accelerator, cpu, memory, shared_memory, node_selector (a map of"
                    " labels) and tolerations (a list of key=value:effect or key:effect); the others are the"
                    " Experiment's",
                ),
            },
            reader="kondense.katib_search.structures:config_texts",
            further="kondense.katib_search.structures:RESOURCES",
        ),
    ),
    Stage(
        "train_job",
        config="kondense.train_job.config:TrainJobConfig",
        run="kondense.train_job.stage:run",
        summary="train a network on several nodes as a TrainJob of Kubeflow Trainer",
        inputs=(DATASET,),
        outputs=(Artifact("model", "Model", title="teacher {network}"),),
        profiled=True,
    ),
    Stage(
        "train_node",
        config="kondense.train_node.config:TrainNodeConfig",
        run="kondense.train_node.stage:run",
        summary="train on one node of a TrainJob, for Kubeflow Trainer",
        component=False,  # Trainer starts nodes, KFP does not
    ),
    Stage(
        "trial",
        config="kondense.trial.config:TrialConfig",
        run="kondense.trial.stage:run",
        summary="run all stages of one set of hyperparameters, for Katib",
        component=False,  # Katib starts trials, KFP does not
    ),
)


class Stages(Mapping[str, Stage]):
    """The stages by name: the built-in ones, then those of other packages, imported when they are looked up."""

    def __init__(self, built_in: tuple[Stage, ...] = BUILT_IN) -> None:
        self._built_in = {stage.name: stage for stage in built_in}

    @functools.cached_property
    def _registered(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in entry_points.of_group(GROUP) if point.name not in self._built_in}

    def __iter__(self) -> Iterator[str]:
        return iter((*self._built_in, *self._registered))

    def __len__(self) -> int:
        return len(self._built_in) + len(self._registered)

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._registered

    def __getitem__(self, name: str) -> Stage:
        """Return a stage.

        Raises:
            KeyError: there is none of this name.
            InputError: the entry point cannot be imported, or names no ``Stage`` of its name; the text names it.
        """
        if name in self._built_in:
            return self._built_in[name]
        point = self._registered[name]
        try:
            stage = point.load()
        except Exception as error:  # foreign code may raise anything, and must be named
            raise InputError(f"the stage {name} cannot be imported from {point.value}: {error!r}.") from error
        if not isinstance(stage, Stage) or stage.name != name:
            raise InputError(f"the entry point {name} = {point.value} must be a Stage named {name}, but got {stage!r}.")
        return stage

    def components(self) -> tuple[str, ...]:
        """Return the names of the built-in stages that KFP runs."""
        return tuple(name for name, stage in self._built_in.items() if stage.component)


STAGES = Stages()
