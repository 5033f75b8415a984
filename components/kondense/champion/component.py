"""The KFP component of champion."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def champion(
    dataset: dsl.Input[dsl.Dataset],
    champion: dsl.Output[dsl.Artifact],
    model_name: str = "",
    network: str = "lenet5",
    store_uri: str = "minio://kondense",
    always: bool = False,
) -> bool:
    """Hold the published champion against the newest data; return whether a challenger is to be made.

    Args:
        model_name: the published model's name; empty for <network>-<data set>.
        network: the network that a name is made of when none is given.
        store_uri: where it is published: minio://bucket/prefix, s3://bucket/prefix or a path.
        always: challenge it even when it was made from these very data.
    """
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import champion_metadata
    from kondense.champion.config import ChampionConfig
    from kondense.champion.stage import run

    with failure.told(), fetched(dataset=dataset):
        config = ChampionConfig(model_name=model_name, network=network, store_uri=store_uri, always=always)
        values = run(config, dataset_dir=Path(dataset.path), champion_dir=Path(champion.path))
        champion.metadata.update(champion_metadata(Path(champion.path)))
        return bool(values["challenge"])
