"""The parameters of the train_job stage: those of train, and the TrainJob."""

import dataclasses
import re

from kondense.config import option
from kondense.errors import InputError
from kondense.train.config import TrainConfig

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?)?")
RUNTIME_KINDS = ("ClusterTrainingRuntime", "TrainingRuntime")


@dataclasses.dataclass(frozen=True)
class TrainJobConfig(TrainConfig):
    """The training, and the nodes that share it."""

    devices: int = option(
        0,
        "processes of each node that train together, each on an accelerator of its own; 0: as many as `gpus`, at"
        " least 1",
        interval="[0, 1024]",
    )
    nodes: int = option(2, "nodes that train together, each a pod", interval="[1, 1000]")
    gpus: int = option(0, "accelerators of each node, 0 for none", interval="[0, 64]")
    accelerator: str = option("nvidia.com/gpu", "resource name of the accelerators")
    cpu: str = option("", "CPU limit of each node, such as 4; empty: as in the runtime")
    memory: str = option("", "memory limit of each node, such as 16Gi; empty: as in the runtime")
    runtime: str = option("torch-distributed", "training runtime of Kubeflow Trainer, one whose policy is torch")
    runtime_kind: str = option(
        "ClusterTrainingRuntime", "kind of the runtime; a TrainingRuntime is of the namespace", choices=RUNTIME_KINDS
    )
    job_name: str = option("kondense-train", "beginning of the TrainJob's name, of which a run has one only")
    run_id: str = option("", "id of the pipeline run, a part of the TrainJob's name")
    namespace: str = option("", "namespace of the TrainJob; empty: that of this step")
    dataset_uri: str = option("", "address of the nodes' data set; empty: that of this step's data set")
    store_uri: str = option(
        "minio://mlpipeline/kondense/train-jobs", "address of the nodes' checkpoints and of the model"
    )
    image: str = option("", "image of the nodes; empty: that of this step")
    secret: str = option(
        "mlpipeline-minio-artifact", "Secret with the object store's accesskey and secretkey; empty: none"
    )
    patience_minutes: float = option(
        15.0, "minutes after which nodes that have not all started end the step; 0: no limit", interval="[0, inf)"
    )
    poll_seconds: float = option(
        10.0, "seconds between two requests for the TrainJob's status", interval="[0.01, 3600]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cpu", "memory"):
            text = getattr(self, name)
            if text and not QUANTITY.fullmatch(text):
                raise InputError(f"{name} must be a Kubernetes quantity such as 4 or 8Gi, but got {text!r}.")
        for name in ("runtime", "store_uri"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} must not be empty, but got {getattr(self, name)!r}.")
        if self.nodes > 1 and not super().trains:
            raise InputError(
                f"fine_tune or replace_head must be true on several nodes, where imported weights are trained, but"
                f" import_uri is {self.import_uri!r} with network {self.network!r}; the step train imports without."
            )
        if self.compile and self.processes > 1:
            raise InputError(f"compile must be false with {self.processes} processes, but got true.")
        if self.gpus and self.device != "cpu" and self.devices > self.gpus:
            raise InputError(f"devices must be at most the {self.gpus} gpus of a node, but got {self.devices}.")
        if self.batch_size < self.processes:
            raise InputError(
                f"batch_size must be at least the {self.processes} processes of {self.nodes} nodes, but got"
                f" {self.batch_size}."
            )

    @property
    def trains(self) -> bool:
        """Whether this step's own process trains; the nodes do."""
        return False

    @property
    def per_node(self) -> int:
        """The number of processes of each node."""
        return self.devices or max(1, self.gpus)

    @property
    def processes(self) -> int:
        """The number of processes of all nodes."""
        return self.nodes * self.per_node

    @property
    def train(self) -> TrainConfig:
        """The parameters of the training on each node."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(TrainConfig)}
        return TrainConfig(**values | {"devices": self.per_node})
