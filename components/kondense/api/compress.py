"""Several compressed models of one network, measured and compared: the compress pipeline in memory."""

import contextlib
import dataclasses
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kondense.api.given import check_data, check_model
from kondense.api.models import named
from kondense.api.parameters import configured, takes
from kondense.api.techniques import apply, data_identity
from kondense.artifacts.failed import Failed
from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, model_identity, save_model
from kondense.artifacts.report import EVALUATION, PAGE, REPORT, Report, evaluation_bytes, models, report_bytes
from kondense.candidates import STANDARD, TEACHER
from kondense.data.dataset import Dataset
from kondense.display import text_table
from kondense.distill.stage import distill
from kondense.errors import InputError, KondenseError
from kondense.evaluate.config import EvaluateConfig
from kondense.evaluate.exports import ONNX
from kondense.evaluate.stage import Evaluated, evaluate
from kondense.files import copy_directory, new_directory
from kondense.logging import LOG
from kondense.preflight.examine import impossible_step
from kondense.preflight.images import random_dataset
from kondense.printable import printable
from kondense.prune.stage import prune
from kondense.quantize.stage import quantize
from kondense.recipes import Composed, compose, models_of
from kondense.report.config import ReportConfig
from kondense.report.document import build_report
from kondense.report.page import render
from kondense.training.transform import Result, check_fits

TECHNIQUES: Mapping[str, Callable[..., Result]] = {"prune": prune, "distill": distill, "quantize": quantize}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Compressed models beside the one they were made from; shows its report in a notebook.

    Attributes:
        report: the content of report.json.
        evaluated: the measured models by name, ``teacher`` first.
        failures: why a recipe gave no model, by name.
    """

    report: Report
    evaluated: Mapping[str, Evaluated]
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def chosen(self) -> str:
        """The name of the recommended model."""
        return self.report["chosen"]

    @property
    def model(self) -> Model:
        """The recommended model."""
        return self.evaluated[self.chosen].model

    @property
    def models(self) -> dict[str, Model]:
        """All models by name, ``teacher`` first."""
        return {name: each.model for name, each in self.evaluated.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per model: accuracy in %, points against the teacher, ratios of size and latency."""
        return [
            {
                "model": each["name"] + (" (chosen)" if each["name"] == self.chosen else ""),
                "test %": f"{100 * each['test_accuracy']:.2f}",
                "points": f"{100 * each['difference']['test_accuracy']:+.2f}",
                "smaller": f"{each['difference']['bytes_ratio']:.1f}x",
                "bytes": f"{each['bytes']['kz']:,}",
                "faster": f"{each['difference']['latency_ratio']:.2f}x",
            }
            for each in models(self.report)
        ]

    def page(self) -> str:
        """Return the report as one self-contained HTML page."""
        return render(self.report)

    def save(
        self,
        directory: str | Path,
        *,
        network: str | Callable[..., nn.Module] = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Write report.json, report.html, ``candidates/NAME`` and ``chosen``; whole or not at all.

        Args:
            directory: its place; replaced if it exists.
            network: the code that builds the compared network, if that was given in memory (see ``kd.save``).
            arguments: the factory's keyword arguments, JSON values.

        Raises:
            InputError: nothing that can be imported is named that builds the network.
        """
        with new_directory(Path(directory)) as scratch:
            for name, each in self.evaluated.items():
                files = each.files | {EVALUATION: evaluation_bytes(each.evaluation)}
                model = named(each.model, network, arguments)
                save_model(scratch / "candidates" / name, model, files=files)
            copy_directory(scratch / "candidates" / self.chosen, scratch / "chosen")
            (scratch / REPORT).write_bytes(report_bytes(self.report))
            (scratch / PAGE).write_text(self.page(), encoding="utf-8")

    def show(self) -> None:
        """Show the report in a notebook; elsewhere print the table."""
        try:
            from IPython import get_ipython
            from IPython.display import HTML, display
        except ImportError:
            print(self)
            return
        if get_ipython() is None:
            print(self)
        else:
            display(HTML(self._repr_html_()))

    def __str__(self) -> str:
        failed = [f"{name} failed: {reason}" for name, reason in self.failures.items()]
        return "\n".join([text_table(self.rows()), *map(printable, (self.report["reason"], *failed))])

    def _repr_html_(self) -> str:
        page = html.escape(self.page(), quote=True)
        return f'<iframe sandbox="allow-scripts" srcdoc="{page}" style="width:100%;height:800px;border:0"></iframe>'


@takes(ReportConfig)
def compress(
    model: Model,
    data: Dataset,
    recipes: str | Sequence[str] | Mapping[str, str] = STANDARD,
    *,
    settings: Mapping[str, Any] | None = None,
    checkpoints: str | Path = "",
    **parameters: Any,
) -> Comparison:
    """Compress a model by several recipes, measure each result and recommend one.

    Args:
        model: the trained network; the teacher of all recipes.
        data: trains, calibrates and measures.
        recipes: texts such as ``"prune:l1:0.5 > distill > quantize:static"``, optionally by name, or one text; the same
            texts that ``kondense run --recipe`` takes.
        settings: parameters of the steps, such as ``{"prune.epochs": 2, "evaluate.latency_seconds": 0.2}``.
        checkpoints: directory or URI that keeps the trainings' checkpoints: the same call continues.
        **parameters: PARAMETERS

    Returns:
        The models with their report. A recipe that fails is in ``.failures``, and the others are finished.

    Raises:
        InputError: a recipe, a parameter or the model breaks a rule; nothing has been done then.
        KondenseError: every recipe failed.

    Example:
        >>> quick = {"prune.epochs": 1, "evaluate.latency_seconds": 0.02, "evaluate.robustness_images": 0}
        >>> comparison = kd.compress(model, data, ["prune:l1:0.5 > quantize:static"], settings=quick)
        >>> list(comparison.models)
        ['teacher', 'recipe-1']
    """
    check_model("model", model)
    check_data(data)
    recipes = [recipes] if isinstance(recipes, str) else recipes
    by_name = (
        dict(recipes) if isinstance(recipes, Mapping) else {f"recipe-{n}": text for n, text in enumerate(recipes, 1)}
    )
    for text in by_name.values():
        if not isinstance(text, str):
            raise InputError(f"a recipe must be a text such as 'prune:l1:0.5 > quantize:static', but got {text!r}.")
    texts = _by_stage(settings or {})
    plans = {name: compose(text, settings=texts) for name, text in by_name.items()}
    for name, steps in plans.items():
        for step in steps:
            if step.stage not in TECHNIQUES:
                raise InputError(f"recipe {name}: compress knows {', '.join(TECHNIQUES)}, but got {step.stage!r}.")
    measuring = EvaluateConfig.from_strings(texts.get("evaluate", {}))
    reporting = configured(ReportConfig, parameters)
    check_fits("model", model, data)
    teacher = evaluate(model, data, dataclasses.replace(measuring, name=TEACHER))
    evaluated, failed = {TEACHER: teacher}, list[Failed]()
    made: dict[tuple[str, ...], Model] = {}
    tried = random_dataset(data.shape, len(data.classes))
    for name, steps in plans.items():
        LOG.info("%s: %s", name, by_name[name])
        try:
            if len(steps) > 1 and (check := impossible_step(steps, model, tried)):  # before its first step is made
                raise StepFailedError(check.name, check.note)
            small = _follow(steps, model, data, made, checkpoints)
            config = dataclasses.replace(measuring, name=name)
            with _named("evaluate"):
                evaluated[name] = evaluate(small, data, config, teacher=model, teacher_onnx=teacher.files[ONNX])
        except StepFailedError as error:
            failed.append({"name": name, "step": error.step, "reason": str(error)})
            LOG.warning("%s failed in %s: %s", name, error.step, error)
    failures = {each["name"]: each["reason"] for each in failed}
    if failures and len(evaluated) == 1:
        raise KondenseError("every recipe failed: " + "; ".join(f"{name}: {text}" for name, text in failures.items()))
    return Comparison(_report(evaluated, data, reporting, failed), evaluated, failures)


class StepFailedError(KondenseError):
    """A step of a recipe failed with an expected error; the text is that error's.

    Args:
        step: the stage.
        text: the reason.
    """

    def __init__(self, step: str, text: str) -> None:
        super().__init__(text)
        self.step = step


@contextlib.contextmanager
def _named(step: str) -> Iterator[None]:
    """Raise StepFailedError for an expected error of the block."""
    try:
        yield
    except KondenseError as error:
        raise StepFailedError(step, str(error)) from error


def _by_stage(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return ``{"prune.epochs": 2}`` as texts by stage."""
    texts: dict[str, dict[str, str]] = {}
    for key, value in settings.items():
        stage, dot, field = key.partition(".")
        if not dot or stage not in (*TECHNIQUES, "evaluate"):
            known = ", ".join(f"{each}.FIELD" for each in (*TECHNIQUES, "evaluate"))
            raise InputError(f"settings must be {known}, but got {key!r}.")
        texts.setdefault(stage, {})[field] = str(value)
    return texts


def _follow(
    steps: Sequence[Composed],
    teacher: Model,
    data: Dataset,
    made: dict[tuple[str, ...], Model],
    checkpoints: str | Path,
) -> Model:
    """Return the model that a recipe makes; recipes that begin alike share their first steps, kept in ``made``."""
    model, key = teacher, tuple[str, ...]()
    for step in steps:
        key = (*key, f"{step.stage} {step.config.digest()}")
        if key not in made:
            roles = models_of(step.stage, model, teacher)
            source = roles.pop("model", None)
            technique = TECHNIQUES[step.stage]
            with _named(step.stage):
                made[key] = apply(
                    step.stage, technique, step.config, source, data, teachers=roles, checkpoints=checkpoints
                ).model
        model = made[key]
    return model


def _report(
    evaluated: Mapping[str, Evaluated], data: Dataset, config: ReportConfig, failed: Sequence[Failed]
) -> Report:
    digests = [model_identity(each.model) for each in evaluated.values()]
    inputs = {"dataset": data_identity(data)} | dict(zip(evaluated, digests, strict=True))
    return build_report(
        [each.evaluation for each in evaluated.values()],
        digests,
        record=stage_record("report", config, inputs=inputs, metrics={}, summary=f"report {config.objective}"),
        title=config.title,
        objective=config.objective,
        max_validation_drop=config.max_validation_drop,
        failed=failed,
        note=config.note,
    )
