"""A quantization in one line, as the report shows the step."""

from collections.abc import Callable

from kondense.artifacts.model import Model
from kondense.quantize.config import QuantizeConfig


def summarise(config: QuantizeConfig, quantized: Model) -> str:
    """Return in words what was done."""
    return TEXTS[config.method](config, quantized)


def _codebook(config: QuantizeConfig, _quantized: Model) -> str:
    return f"share {2**config.bits} values per layer" + (" and train them" if config.fine_tune else "")


def _dynamic(config: QuantizeConfig, _quantized: Model) -> str:
    return f"quantize to {config.bits}-bit weights and 8-bit activations at run time"


def _fixed_point(config: QuantizeConfig, _quantized: Model) -> str:
    return f"quantize weights to {config.bits}-bit fixed point in [-1, 1){_trained(config)}"


def _mixed(config: QuantizeConfig, quantized: Model) -> str:
    bits = sorted({tensor.bits for tensor in quantized.quantized.values()})
    return (
        f"quantize weights to {bits[0]} to {bits[-1]} bits by layer, {config.arithmetic} arithmetic{_trained(config)}"
    )


def _rate_distortion(config: QuantizeConfig, _quantized: Model) -> str:
    return f"find the smallest file that loses at most {config.max_validation_drop:.2%}"


def _static(config: QuantizeConfig, _quantized: Model) -> str:
    extras = [config.calibration]
    extras += ["equalised"] if config.equalize else []
    extras += ["learned rounding"] if config.rounding == "learned" else []
    extras += ["biases corrected"] if config.bias_correction else []
    extras += [f"{config.epochs} epochs of training"] if config.method == "qat" else []
    return f"quantize to {config.bits}-bit weights and 8-bit activations ({', '.join(extras)})"


def _weight_only(config: QuantizeConfig, _quantized: Model) -> str:
    return f"quantize weights to {config.bits} bits per {config.granularity}{_trained(config)}"


def _trained(config: QuantizeConfig) -> str:
    return f", {config.epochs} epochs of fine-tuning" if config.fine_tune else ""


TEXTS: dict[str, Callable[[QuantizeConfig, Model], str]] = {
    "codebook": _codebook,
    "dynamic": _dynamic,
    "fixed_point": _fixed_point,
    "mixed": _mixed,
    "qat": _static,
    "rate_distortion": _rate_distortion,
    "static": _static,
    "weight_only": _weight_only,
}
