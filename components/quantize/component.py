"""The quantize stage as a KFP component."""

from kfp import dsl

from components.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def quantize(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    quantized: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    teacher: dsl.Input[dsl.Model] | None = None,
    epochs: int = 3,
    max_epochs: int = 0,
    batch_size: int = 128,
    learning_rate: float = 0.01,
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
    method: str = "static",
    bits: int = 8,
    granularity: str = "channel",
    calibration: str = "minmax",
    percentile: float = 99.99,
    calibration_images: int = 512,
    fine_tune: bool = False,
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> None:
    """Store a model's weights in few bits and, with most methods, compute on integers.

    Args:
        epochs: epochs that methods which train, or fine_tune, train.
        max_epochs: epochs that the schedule spans; 0 means `epochs`. A trial stopped early keeps the schedule of the
            longest.
        batch_size: images per step of training, and calibration images at a time.
        learning_rate: peak learning rate of that training.
        momentum: momentum of SGD (Nesterov when above 0).
        weight_decay: L2 penalty on weights (not on biases and norms).
        schedule: learning rate over the epochs.
        warmup_epochs: epochs of linear warm-up.
        label_smoothing: mass taken from the true label.
        augment: random crops (2 pixels of padding) and flips.
        averaging: decay of the moving average of the weights, per step; 0 keeps none.
        device: where to train; auto takes a GPU when there is one.
        precision: arithmetic; auto takes bfloat16 on GPUs that have it.
        compile: torch.compile the network (pays off on long runs).
        seed: seed of all randomness.
        method: static computes on integers; weight_only stores weights in few bits.
        bits: bits per weight.
        granularity: one scale per output channel or per tensor.
        calibration: range of an activation: extremes or percentile.
        percentile: share of the values that percentile calibration keeps, %.
        calibration_images: training images to calibrate on; all when there are fewer.
        fine_tune: train on after the weights are on their grids, staying on them.
        temperature: softens the logits when a teacher joins the training.
        alpha: weight of the teacher's part of the loss, when there is one.
    """
    from pathlib import Path

    from components.quantize import stage
    from components.quantize.config import QuantizeConfig

    config = QuantizeConfig(
        epochs=epochs,
        max_epochs=max_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup_epochs=warmup_epochs,
        label_smoothing=label_smoothing,
        augment=augment,
        averaging=averaging,
        device=device,
        precision=precision,
        compile=compile,
        seed=seed,
        method=method,
        bits=bits,
        granularity=granularity,
        calibration=calibration,
        percentile=percentile,
        calibration_images=calibration_images,
        fine_tune=fine_tune,
        temperature=temperature,
        alpha=alpha,
    )
    found = stage.run(
        config,
        dataset_dir=Path(dataset.path),
        model_dir=Path(model.path),
        quantized_dir=Path(quantized.path),
        teacher_dir=Path(teacher.path) if teacher else None,
    )
    for name, value in found.items():
        metrics.log_metric(name, value)
