"""The parameters of the evaluate stage."""

import dataclasses

from components.config import Config, option


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Config):
    """What a candidate is called and how long it is measured."""

    name: str = option("candidate", "what the report calls this candidate")
    batch_size: int = option(500, "images at a time while accuracy is measured", interval="[1, 65536]")
    latency_seconds: float = option(1.0, "seconds of timing per batch size, all models together", interval="(0, 3600]")
    min_agreement: float = option(
        0.99,
        "least fraction of the test images that torch and onnxruntime must put into the same class",
        interval="[0, 1]",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip():
            raise ValueError(f"name must not be empty, but got {self.name!r}.")
