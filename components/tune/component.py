"""The KFP component of tune."""

from typing import NamedTuple

from kfp import dsl

from components.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def tune(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    search: dsl.Output[dsl.Artifact],
    html: dsl.Output[dsl.HTML],
    experiment: str = "",
    run_id: str = "",
    namespace: str = "",
    dataset_uri: str = "",
    store_uri: str = "",
    image: str = "",
    network: str = "",
    width: float = 0.0,
    algorithm: str = "",
    settings: str = "",
    space: str = "",
    max_epochs: int = 0,
    max_trials: int = 0,
    parallel_trials: int = 0,
    max_failed_trials: int = -1,
    gpus: int = -1,
    accelerator: str = "nvidia.com/gpu",
    node_selector: str = "",
    tolerations: str = "",
    cpu: str = "",
    memory: str = "",
    shared_memory: str = "",
    patience_minutes: float = 15.0,
    poll_seconds: float = 10.0,
) -> NamedTuple(
    "Best",
    [
        ("trial", str),
        ("batch_size", int),
        ("learning_rate", float),
        ("momentum", float),
        ("weight_decay", float),
        ("schedule", str),
        ("warmup_epochs", float),
        ("label_smoothing", float),
        ("augment", str),
        ("averaging", float),
    ],
):
    """Search hyperparameters with a Katib Experiment; return the best trial's, and its model.

    It needs a cluster with Katib. On one machine, kondense search FILE runs the same Experiment.
    """
    import json
    from pathlib import Path
    from shutil import copyfile

    from components import failure
    from components.artifacts.metadata import model_metadata, search_metadata
    from components.tune.config import TuneConfig
    from components.tune.stage import BEST, PAGE, run

    with failure.told():
        config = TuneConfig(
            experiment=experiment,
            run_id=run_id,
            namespace=namespace,
            dataset_uri=dataset_uri or dataset.uri,
            store_uri=store_uri,
            image=image,
            network=network,
            width=width,
            algorithm=algorithm,
            settings=settings,
            space=space,
            max_epochs=max_epochs,
            max_trials=max_trials,
            parallel_trials=parallel_trials,
            max_failed_trials=max_failed_trials,
            gpus=gpus,
            accelerator=accelerator,
            node_selector=node_selector,
            tolerations=tolerations,
            cpu=cpu,
            memory=memory,
            shared_memory=shared_memory,
            patience_minutes=patience_minutes,
            poll_seconds=poll_seconds,
        )
        paths = {"dataset_dir": Path(dataset.path), "model_dir": Path(model.path), "search_dir": Path(search.path)}
        run(config, **paths)
        search.metadata.update(search_metadata(paths["search_dir"]))
        html.metadata["display_name"] = search.metadata["display_name"]
        made = model_metadata(paths["model_dir"], title="best trial {network}", dataset_dir=paths["dataset_dir"])
        model.metadata.update(made)
        copyfile(Path(search.path) / PAGE, html.path)
        best = json.loads((Path(search.path) / BEST).read_text())
        used = best["config"]
        return (
            best["trial"],
            used["batch_size"],
            used["lr"],
            used["momentum"],
            used["weight_decay"],
            used["schedule"],
            used["warmup_epochs"],
            used["label_smoothing"],
            used["augment"],
            used["averaging"],
        )
