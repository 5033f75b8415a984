"""The report stage as a KFP component."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def report(
    teacher: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    chosen: dsl.Output[dsl.Model],
    html: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    quantized: dsl.Input[dsl.Model] = None,
    pruned: dsl.Input[dsl.Model] = None,
    pruned_quantized: dsl.Input[dsl.Model] = None,
    distilled: dsl.Input[dsl.Model] = None,
    distilled_quantized: dsl.Input[dsl.Model] = None,
    pruned_distilled_quantized: dsl.Input[dsl.Model] = None,
    sparse_packed: dsl.Input[dsl.Model] = None,
    recipe_1: dsl.Input[dsl.Model] = None,
    recipe_2: dsl.Input[dsl.Model] = None,
    recipe_3: dsl.Input[dsl.Model] = None,
    recipe_4: dsl.Input[dsl.Model] = None,
    title: str = "",
    objective: str = "balanced",
    max_validation_drop: float = 0.01,
):
    """Compare the evaluated candidates, choose one and show why.

    Args:
        title: heading of the report; empty for the network's and the data set's name
        objective: what the chosen candidate has the most of: bytes, latency or balanced
        max_validation_drop: fraction by which validation accuracy may lie below the teacher's
    """
    from pathlib import Path
    from shutil import copyfile

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import model_metadata, report_metadata
    from kondense.artifacts.report import PAGE
    from kondense.report.config import ReportConfig
    from kondense.report.stage import run

    candidates = {
        "teacher": teacher,
        "quantized": quantized,
        "pruned": pruned,
        "pruned_quantized": pruned_quantized,
        "distilled": distilled,
        "distilled_quantized": distilled_quantized,
        "pruned_distilled_quantized": pruned_distilled_quantized,
        "sparse_packed": sparse_packed,
        "recipe_1": recipe_1,
        "recipe_2": recipe_2,
        "recipe_3": recipe_3,
        "recipe_4": recipe_4,
    }
    with failure.told(), fetched(**candidates):
        config = ReportConfig(title=title, objective=objective, max_validation_drop=max_validation_drop)
        values = run(
            config,
            candidate_dirs=[Path(each.path) for each in candidates.values() if each],
            report_dir=Path(report.path),
            chosen_dir=Path(chosen.path),
        )
        copyfile(Path(report.path) / PAGE, html.path)
        for name, value in values.items():
            metrics.log_metric(name, value)
        metrics.metadata["display_name"] = "figures of the chosen"
        report.metadata.update(report_metadata(Path(report.path)))
        html.metadata["display_name"] = report.metadata["display_name"]
        chosen.metadata.update(model_metadata(Path(chosen.path), title="chosen: {candidate}"))
