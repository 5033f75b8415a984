"""The quantize stage as a KFP component."""

from kfp import dsl

from kondense.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def quantize(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    quantized: dsl.Output[dsl.Model],
    teacher: dsl.Input[dsl.Model] = None,
    epochs: int = 3,
    max_epochs: int = 0,
    batch_size: int = 128,
    learning_rate: float = 0.01,
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
    method: str = "static",
    bits: int = 8,
    granularity: str = "channel",
    calibration: str = "minmax",
    percentile: float = 99.99,
    calibration_images: int = 512,
    activations: str = "asymmetric",
    exclude: str = "",
    equalize: bool = False,
    bias_correction: bool = False,
    rounding: str = "nearest",
    rounding_steps: int = 500,
    freeze: float = 0.5,
    arithmetic: str = "float",
    budget_bytes: int = 0,
    max_validation_drop: float = 0.003,
    rounds: int = 4,
    sensitivity: bool = False,
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
        optimizer: sgd or muon.
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
        method: static computes on integers, on grids found by calibration; qat trains on such grids; dynamic finds the
            activations' grids anew at run time; weight_only stores weights in few bits, mixed gives each layer its own
            number of bits, codebook lets weights share 2^bits values, fixed_point stores them as fractions in [-1, 1),
            rate_distortion finds the smallest kz file within max_validation_drop.
        bits: bits per weight.
        granularity: one scale per output channel or per tensor.
        calibration: range of an activation: extremes, percentile, least divergence or least squared error.
        percentile: share of the values that percentile calibration keeps, %.
        calibration_images: training images to calibrate on; all when there are fewer.
        activations: grid of an activation; a symmetric one has zero in its middle.
        exclude: static: layers that stay in float, by type or module name.
        equalize: static: equalise the ranges of channels across layers first.
        bias_correction: static: take the mean error of each output channel out of its bias.
        rounding: static: to the nearest integer, or up or down as the outputs on images want it.
        rounding_steps: steps of learned rounding per layer.
        freeze: qat: share of the schedule after which batch norms keep their statistics.
        arithmetic: mixed: what layers compute on; integer quantizes activations as static does.
        budget_bytes: mixed: most bytes that weights and scales take; 0 means as many as `bits` for every layer.
        max_validation_drop: rate_distortion: fraction of the validation split that may be lost against the teacher, or
            else the model.
        rounds: rate_distortion with fine_tune: trainings; `epochs` each until one holds the bound, then a third.
        sensitivity: also measure what each layer alone loses at fewer bits, for the report.
        fine_tune: train on after the weights are on their grids, staying on them.
        temperature: softens the logits of teacher and student in the loss.
        alpha: weight of the teacher's logits in the loss; without a teacher the model as it came in teaches; 0: labels
            only.
    """
    from pathlib import Path

    from kondense import failure
    from kondense.artifacts.inputs import fetched
    from kondense.artifacts.metadata import model_metadata
    from kondense.quantize import stage
    from kondense.quantize.config import QuantizeConfig

    with failure.told(), fetched(dataset=dataset, model=model, teacher=teacher):
        config = QuantizeConfig(
            epochs=epochs,
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer=optimizer,
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
            activations=activations,
            exclude=exclude,
            equalize=equalize,
            bias_correction=bias_correction,
            rounding=rounding,
            rounding_steps=rounding_steps,
            freeze=freeze,
            arithmetic=arithmetic,
            budget_bytes=budget_bytes,
            max_validation_drop=max_validation_drop,
            rounds=rounds,
            sensitivity=sensitivity,
            fine_tune=fine_tune,
            temperature=temperature,
            alpha=alpha,
        )
        stage.run(
            config,
            dataset_dir=Path(dataset.path),
            model_dir=Path(model.path),
            quantized_dir=Path(quantized.path),
            teacher_dir=Path(teacher.path) if teacher else None,
        )
        made = model_metadata(Path(quantized.path), title="{method}", dataset_dir=Path(dataset.path))
        quantized.metadata.update(made)
