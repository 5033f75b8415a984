"""The train stage as a KFP component."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def train(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    epochs: int = 8,
    max_epochs: int = 0,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    warmup_epochs: float = 0.5,
    label_smoothing: float = 0.0,
    augment: str = "none",
    averaging: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    seed: int = 0,
    network: str = "lenet5",
    width: float = 1.0,
    import_uri: str = "",
    profile: str = "quick",
    step: str = "",
):
    """Train a network, the teacher of all that follows, or import a trained one.

    Args:
        profile: quick or full: what takes the place of numbers that are -1.
        step: whose numbers of the profile these are; empty looks nothing up.
    """
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import model_metadata
    from kondense.profiles import settled
    from kondense.train.config import TrainConfig
    from kondense.train.stage import run

    with failure.told(), fetched(dataset=dataset):
        values = {
            "epochs": epochs,
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "optimizer": optimizer,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "schedule": schedule,
            "warmup_epochs": warmup_epochs,
            "label_smoothing": label_smoothing,
            "augment": augment,
            "averaging": averaging,
            "device": device,
            "precision": precision,
            "compile": compile,
            "seed": seed,
            "network": network,
            "width": width,
            "import_uri": import_uri,
        }
        config = TrainConfig(**settled(values, profile, step))
        paths = {"dataset_dir": Path(dataset.path), "model_dir": Path(model.path)}
        run(config, **paths)
        made = model_metadata(paths["model_dir"], title="teacher {network}", dataset_dir=paths["dataset_dir"])
        model.metadata.update(made)
