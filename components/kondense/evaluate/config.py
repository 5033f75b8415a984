"""The parameters of the evaluate stage."""

import dataclasses

from kondense.config import Config, option
from kondense.errors import InputError


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Config):
    """Name, export and measurement of a candidate."""

    name: str = option("candidate", "name of the candidate in the report")
    batch_size: int = option(
        500,
        "most images at once in the measurement of accuracy; of large ones, as many as have 16 MiB of float32 pixels",
        interval="[1, 65536]",
    )
    latency_seconds: float = option(
        1.0, "seconds of timing per batch size, for all models together", interval="(0, 3600]"
    )
    further_latency_seconds: float = option(
        0.2,
        "seconds of timing per batch size for each further runtime (all threads, torch, GPU); 0: none",
        interval="[0, 3600]",
    )
    min_agreement: float = option(
        0.99,
        "minimum fraction of the test images to which torch and onnxruntime must assign the same class",
        interval="[0, 1]",
    )
    arithmetic: str = option(
        "auto",
        "arithmetic of layers with quantized inputs: integer, float, or auto for the faster one on this machine",
        choices=("auto", "integer", "float"),
    )
    uint8_input: bool = option(False, "export model.onnx for uint8 pixels, with the normalisation included")
    program: bool = option(
        False, "also write program.pt2 (torch.export) if a fresh process gets identical logits from it"
    )
    robustness_images: int = option(
        500, "number of test images for the robustness to noise, blur and low contrast; 0: none", interval="[0, inf)"
    )
    seed: int = option(0, "seed of the robustness images and of their noise", interval="[0, 2147483647]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip():
            raise InputError(f"name must not be empty, but got {self.name!r}.")
