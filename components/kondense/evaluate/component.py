"""The evaluate stage as a KFP component."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def evaluate(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    candidate: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    teacher: dsl.Input[dsl.Model] = None,
    name: str = "candidate",
    batch_size: int = 500,
    latency_seconds: float = 1.0,
    further_latency_seconds: float = 0.2,
    min_agreement: float = 0.99,
    arithmetic: str = "auto",
    uint8_input: bool = False,
    program: bool = False,
    robustness_images: int = 500,
    seed: int = 0,
):
    """Measure one candidate: accuracy in torch and in onnxruntime, on spoiled images too, size, latency, memory."""
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.comparison import compared
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import model_metadata
    from kondense.artifacts.report import EVALUATION, read_evaluation
    from kondense.evaluate.config import EvaluateConfig
    from kondense.evaluate.stage import run

    with failure.told(), fetched(dataset=dataset, model=model, teacher=teacher):
        config = EvaluateConfig(
            name=name,
            batch_size=batch_size,
            latency_seconds=latency_seconds,
            further_latency_seconds=further_latency_seconds,
            min_agreement=min_agreement,
            arithmetic=arithmetic,
            uint8_input=uint8_input,
            program=program,
            robustness_images=robustness_images,
            seed=seed,
        )
        run(
            config,
            dataset_dir=Path(dataset.path),
            model_dir=Path(model.path),
            candidate_dir=Path(candidate.path),
            teacher_dir=Path(teacher.path) if teacher else None,
        )
        evaluation = read_evaluation(Path(candidate.path))
        is_teacher = name == "teacher"
        reference = evaluation if is_teacher else None
        if teacher and (Path(teacher.path) / EVALUATION).is_file():
            reference = read_evaluation(Path(teacher.path))
        title = "teacher {network} (measured)" if is_teacher else "{candidate} (candidate)"
        candidate.metadata.update(model_metadata(Path(candidate.path), title=title))
        for metric, value in compared(evaluation, reference).items():
            metrics.log_metric(metric, value)
        metrics.metadata["display_name"] = f"figures of {name}"
        classification.log_confusion_matrix(evaluation["dataset"]["classes"], evaluation["confusion"])
        classification.metadata["display_name"] = f"confusion of {name}"
