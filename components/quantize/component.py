"""The quantize stage as a KFP component."""

from kfp import dsl

from components.images import STAGE_IMAGE


@dsl.component(base_image=STAGE_IMAGE, install_kfp_package=False, packages_to_install=[])
def quantize(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    quantized: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    method: str = "static",
    bits: int = 8,
    granularity: str = "channel",
    calibration: str = "minmax",
    percentile: float = 99.99,
    calibration_images: int = 512,
    batch_size: int = 128,
    seed: int = 0,
):
    """Store a model's weights in few bits and, with static, compute on integers."""
    from pathlib import Path

    from components.quantize.config import QuantizeConfig
    from components.quantize.stage import run

    config = QuantizeConfig(
        method=method,
        bits=bits,
        granularity=granularity,
        calibration=calibration,
        percentile=percentile,
        calibration_images=calibration_images,
        batch_size=batch_size,
        seed=seed,
    )
    directories = {"dataset_dir": dataset.path, "model_dir": model.path, "quantized_dir": quantized.path}
    for name, value in run(config, **{key: Path(path) for key, path in directories.items()}).items():
        metrics.log_metric(name, value)
