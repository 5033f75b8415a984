"""The KFP component of publish."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def publish(
    dataset: dsl.Input[dsl.Dataset],
    chosen: dsl.Input[dsl.Model],
    report: dsl.Input[dsl.Artifact],
    receipt: dsl.Output[dsl.Artifact],
    model_name: str = "",
    store_uri: str = "minio://kondense",
    max_test_drop: float = 0.01,
    champion_tolerance: float = 0.002,
    objective: str = "bytes",
    objective_tolerance: float = 0.05,
) -> None:
    """Publish the chosen model as an immutable version and as champion, if the gate holds.

    Args:
        model_name: name to publish under; empty for <network>-<data set>.
        store_uri: the object store, minio://bucket/prefix, s3://bucket/prefix or a path.
        max_test_drop: fraction by which test accuracy may lie below the teacher's.
        champion_tolerance: fraction by which test accuracy may lie below the champion's.
        objective: what may not be worse than the champion's beside accuracy: bytes, latency or none.
        objective_tolerance: fraction by which the objective may be worse than the champion's.
    """
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import receipt_metadata
    from kondense.publish import stage
    from kondense.publish.config import PublishConfig

    with failure.told(), fetched(dataset=dataset, chosen=chosen, report=report):
        config = PublishConfig(
            model_name=model_name,
            store_uri=store_uri,
            max_test_drop=max_test_drop,
            champion_tolerance=champion_tolerance,
            objective=objective,
            objective_tolerance=objective_tolerance,
        )
        paths = {
            "dataset_dir": Path(dataset.path),
            "chosen_dir": Path(chosen.path),
            "report_dir": Path(report.path),
            "receipt_dir": Path(receipt.path),
        }
        stage.run(config, **paths)
        receipt.metadata.update(receipt_metadata(paths["receipt_dir"]))
