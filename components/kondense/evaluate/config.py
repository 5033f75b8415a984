"""The parameters of the evaluate stage."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Config):
    """What a candidate is called, how it is exported, and how long it is measured."""

    name: str = option("candidate", "what the report calls this candidate")
    batch_size: int = option(500, "images at a time while accuracy is measured", interval="[1, 65536]")
    latency_seconds: float = option(1.0, "seconds of timing per batch size, all models together", interval="(0, 3600]")
    further_latency_seconds: float = option(
        0.2, "seconds per batch size of each further way to run: all threads, torch, GPU; 0: none", interval="[0, 3600]"
    )
    min_agreement: float = option(
        0.99,
        "least fraction of the test images that torch and onnxruntime must put into the same class",
        interval="[0, 1]",
    )

    arithmetic: str = option(
        "auto",
        "how layers with quantized inputs compute: integer, float, or what was measured to be faster here",
        choices=("auto", "integer", "float"),
    )
    uint8_input: bool = option(False, "let model.onnx take uint8 pixels and normalise them itself")
    program: bool = option(
        False, "also keep program.pt2, the torch.export form, where a fresh process gets the very same logits from it"
    )
    robustness_images: int = option(
        500, "test images that noise, blur and low contrast are tried on; 0: none", interval="[0, inf)"
    )
    seed: int = option(0, "seed of the choice of these images and of the noise", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip():
            raise InputError(f"name must not be empty, but got {self.name!r}.")
