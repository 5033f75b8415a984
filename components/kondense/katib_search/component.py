"""The KFP component of katib_search."""

from typing import NamedTuple

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def katib_search(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    search: dsl.Output[dsl.Artifact],
    html: dsl.Output[dsl.HTML],
    experiment: dict = {},  # noqa: B006 -- KFP reads the default, nothing changes it
    space: list = [],  # noqa: B006
    settings: dict = {},  # noqa: B006
    resources: dict = {},  # noqa: B006
    run_id: str = "",
    pipeline: str = "",
    namespace: str = "",
    dataset_uri: str = "",
    store_uri: str = "",
    image: str = "",
    network: str = "",
    width: float = 0.0,
    algorithm: str = "",
    max_epochs: int = 0,
    max_trials: int = 0,
    parallel_trials: int = 0,
    max_failed_trials: int = -1,
    patience_minutes: float = 15.0,
    poll_seconds: float = 10.0,
    ui: str = "",
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

    It needs a cluster with Katib. On one machine, kondense search FILE runs the same Experiment. What is empty, 0 or
    -1 stays as the Experiment says.

    Args:
        experiment: a Katib Experiment (kubeflow.org/v1beta1).
        space: the parameters to search, in the form of spec.parameters of an Experiment.
        settings: settings of the algorithm by name; the others stay the Experiment's.
        resources: what each trial gets, a map of gpus, accelerator, cpu, memory, shared_memory, node_selector (a map of
            labels) and tolerations (a list of key=value:effect or key:effect).
        run_id: the pipeline run's id, from which the Experiment's name is made.
        pipeline: the pipeline's name, which the Experiment is labelled with.
        namespace: where the trials run; empty: where this step runs.
        dataset_uri: where trials find the data set; empty: the place of this step's own.
        store_uri: where trials keep checkpoints and models.
        image: the trials' image.
        network: the trials' network.
        width: multiplier of its channels.
        algorithm: random, grid, tpe, hyperband or bohb.
        max_epochs: the most epochs that a trial gets, the maximum resource.
        max_trials: trials in all.
        parallel_trials: trials at a time; 1 runs them one after another.
        max_failed_trials: failed trials that end the search.
        patience_minutes: minutes without a first trial after which the search ends; 0 waits for ever.
        poll_seconds: seconds between two looks at the Experiment.
        ui: address of Kubeflow's dashboard or of Katib's pages, for links; empty names a port-forward.
    """
    import json
    from pathlib import Path
    from shutil import copyfile

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import model_metadata, search_metadata
    from kondense.katib_search.config import KatibSearchConfig
    from kondense.katib_search.stage import BEST, PAGE, run
    from kondense.katib_search.structures import config_texts

    with failure.told(), fetched(dataset=dataset):
        config = KatibSearchConfig(
            **config_texts(experiment, space, settings, resources),
            run_id=run_id,
            pipeline=pipeline,
            namespace=namespace,
            dataset_uri=dataset_uri or dataset.uri,
            store_uri=store_uri,
            image=image,
            network=network,
            width=width,
            algorithm=algorithm,
            max_epochs=max_epochs,
            max_trials=max_trials,
            parallel_trials=parallel_trials,
            max_failed_trials=max_failed_trials,
            patience_minutes=patience_minutes,
            poll_seconds=poll_seconds,
            ui=ui,
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
