"""The KFP component of data_prep."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def data_prep(
    dataset: dsl.Output[dsl.Dataset],
    dataset_name: str = "fashion_mnist",
    source: str = "",
    validation_size: int = 0,
    test_fraction: float = 0.2,
    limit: int = 0,
    image_size: int = 0,
    channels: int = 0,
    seed: int = 0,
) -> None:
    """Read a data set, split it into training, validation and test images, and write it as one artifact.

    Args:
        dataset_name: fashion_mnist, cifar10, cifar100, digits, or folder (a folder of images per class).
        source: where its files are: a directory or s3://bucket/prefix; empty tries the usual places.
        validation_size: training images kept for validation; 0 takes one in twelve.
        test_fraction: share kept for the test where the data set has no test images.
        limit: most images to take of the training and of the test images each; 0 takes all.
        image_size: side in pixels that images are resized to; 0 keeps theirs.
        channels: 1 makes images grey, 3 makes them colour; 0 keeps theirs.
        seed: seed of the permutation that splits.
    """
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.metadata import dataset_metadata
    from kondense.data_prep import stage
    from kondense.data_prep.config import DataPrepConfig

    with failure.told():
        config = DataPrepConfig(
            dataset_name=dataset_name,
            source=source,
            validation_size=validation_size,
            test_fraction=test_fraction,
            limit=limit,
            image_size=image_size,
            channels=channels,
            seed=seed,
        )
        stage.run(config, dataset_dir=Path(dataset.path))
        dataset.metadata.update(dataset_metadata(Path(dataset.path)))
