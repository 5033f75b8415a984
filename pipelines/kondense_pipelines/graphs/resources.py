"""Resources of the steps of a compiled pipeline on a cluster: GPUs, nodes, memory, the object store, retries.

One package is for one kind of node: without GPUs it runs anywhere; with them, the steps that train request them and
tolerate the taint of their nodes. Compile twice for both. The Jobs of a search's trials are created while the pipeline
runs, so their GPUs are parameters of the run form.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kondense.config import check_choice, parse
from kondense.data_prep.config import BUCKETS
from kondense.errors import InputError
from kondense.katib_search.config import QUANTITY, read_pairs, read_tolerations
from kondense.networks.allowed import VARIABLE, is_imported
from kondense.quantize.methods import METHODS as QUANTIZERS
from kondense.stages import STAGES
from kondense.store.endpoint import read_endpoint

# The components that use a GPU; the nodes of train_job have pods of their own.
TRAINING = tuple(name for name in STAGES.components() if STAGES[name].profiled and name != "train_job")
SHARED_MEMORY = "/dev/shm"
DATA_PREP = "data-prep"  # kfp's name of the component
KFP_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?")
OLDEST = (2, 14)  # the version of Kubeflow Pipelines that the packages require
CPU = re.compile(r"\d*\.?\d+m?")  # the quantities that KFP puts into a package: no others of Kubernetes'
MEMORY = re.compile(r"\d+([EPTGM]i?|Ki?)?")
TELLS_MORE = (2, 16)  # older servers refuse packages with choices of parameters and security contexts
GIBI, MARGIN = 2**30, 1.25  # of the memory that is requested over the estimate
USER = 10001  # of the stage image


@dataclasses.dataclass(frozen=True)
class Resources:
    """Compile options; quantities are Kubernetes', empty for the namespace's defaults.

    Attributes:
        gpus: accelerators of each step that trains; 0 for a package that runs on any node.
        accelerator: the resource's name.
        node_selector: labels of the nodes for the steps that train.
        tolerations: of those steps, as in a pod.
        shared_memory: size of their /dev/shm.
        cpu_request: request of each step that trains.
        cpu_limit: its limit.
        memory_request: likewise.
        memory_limit: likewise.
        retries: retries of every step; a step continues from its checkpoint.
        secret: Secret with the object store's ``accesskey`` and ``secretkey`` in the namespace of the runs.
        endpoint: of the object store.
        secure: whether it uses TLS.
        checkpoints: address of the steps' checkpoints.
        shards: address of the images of data sets that are kept as shards; empty: in the Dataset artifacts, which every
            step copies whole.
        allow_network: modules or factories of networks, joined by commas, that artifacts of the runs may name besides
            the network of the package (kondense.networks.allowed).
        kfp_version: of the server; a package for a server before 2.16 omits all that such a server refuses.
    """

    gpus: int = 0
    accelerator: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: Sequence[Mapping[str, str]] = ()
    shared_memory: str = "2Gi"
    cpu_request: str = "1"
    cpu_limit: str = ""
    memory_request: str = "2Gi"
    memory_limit: str = "8Gi"
    retries: int = 2
    secret: str = "mlpipeline-minio-artifact"
    endpoint: str = "minio.kubeflow:9000"
    secure: bool = False
    checkpoints: str = "minio://mlpipeline/kondense/checkpoints"
    shards: str = "minio://mlpipeline/kondense/shards"
    allow_network: str = ""
    kfp_version: str = "2.17"

    def __post_init__(self) -> None:
        for name, low, high in (("gpus", 0, 64), ("retries", 0, 100)):
            if not low <= (value := getattr(self, name)) <= high:
                raise InputError(f"{name} must be in [{low}, {high}], but got {value}.")
        match = KFP_VERSION.fullmatch(self.kfp_version)
        if not match or (int(match[1]), int(match[2])) < OLDEST:
            rule = f"a version such as 2.17, {'.'.join(map(str, OLDEST))} or newer"
            raise InputError(f"kfp_version must be {rule}, but got {self.kfp_version!r}.")
        self._follow_scheme()
        self._check_shards()
        for name in ("shared_memory", "cpu_request", "cpu_limit", "memory_request", "memory_limit"):
            if (text := getattr(self, name)) and not QUANTITY.fullmatch(text):
                raise InputError(f"{name} must be a Kubernetes quantity such as 4 or 8Gi, but got {text!r}.")
        for name in ("cpu_request", "cpu_limit"):
            if (text := getattr(self, name)) and not CPU.fullmatch(text):
                raise InputError(f"{name} must be a number of processors such as 4, 0.5 or 500m, but got {text!r}.")
        for name in ("memory_request", "memory_limit"):
            if (text := getattr(self, name)) and not MEMORY.fullmatch(text):
                raise InputError(f"{name} must be a whole number of bytes such as 8Gi or 512Mi, but got {text!r}.")

    def _check_shards(self) -> None:
        if self.shards and not self.shards.startswith(BUCKETS):
            raise InputError(f"shards must be s3://bucket/prefix or minio://bucket/prefix, but got {self.shards}.")

    def _follow_scheme(self) -> None:
        """Take https:// or http:// from the endpoint, as people write it; the steps get address and ``secure``."""
        scheme, address = read_endpoint("endpoint", self.endpoint.strip())
        if self.secure and scheme == "http":
            rule = "host:port, or https:// where secure is true"
            raise InputError(f"endpoint must be {rule}, but got {self.endpoint!r}.")
        object.__setattr__(self, "endpoint", address)
        object.__setattr__(self, "secure", self.secure or scheme == "https")

    @property
    def knows_literals(self) -> bool:
        """Whether the server knows a parameter's literals and a step's security context: since 2.16.

        Before, its strict reader refuses a package that holds either.
        """
        match = KFP_VERSION.match(self.kfp_version)
        return match is not None and (int(match[1]), int(match[2])) >= TELLS_MORE

    def allowing(self, networks: Iterable[str]) -> "Resources":
        """Return a copy that allows the networks of a package, which its artifacts will name."""
        names = [*filter(None, self.allow_network.split(",")), *filter(is_imported, networks)]
        return dataclasses.replace(self, allow_network=",".join(dict.fromkeys(names)))


def read_resources(texts: Iterable[str]) -> Resources:
    """Read ``name=value`` texts; ``node_selector`` is key=value joined by commas, ``tolerations`` key:effect likewise.

    Raises:
        InputError: another form, an unknown name (the known ones are listed), or a value out of its range.
    """
    hints = typing.get_type_hints(Resources)
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--resource must be name=value, but got {text!r}.")
        check_choice("the name in --resource", name, tuple(hints))
        if name == "node_selector":
            values[name] = read_pairs(name, value)
        elif name == "tolerations":
            values[name] = read_tolerations(value)
        else:
            values[name] = parse(name, hints[name], value)
    return Resources(**values)


def with_memory(resources: Resources, texts: Iterable[str], needed: int) -> Resources:
    """Return resources with enough memory for an estimate; what the user gave stays, and so does what suffices.

    The request becomes at least 1.25 times the estimate, and the limit twice the request.

    Args:
        resources: as ``texts`` give them.
        texts: of the user, ``name=value``.
        needed: estimated bytes of the steps that train; 0 if there is no estimate.
    """
    from kubernetes.utils.quantity import parse_quantity

    def count(quantity: str) -> float:
        return float(parse_quantity(quantity)) if quantity else math.inf  # the namespace's

    given = {text.partition("=")[0] for text in texts}
    request, limit = resources.memory_request, resources.memory_limit
    if "memory_request" not in given and count(request) < MARGIN * needed:
        most = math.floor(count(limit) / GIBI) if "memory_limit" in given and limit else math.inf
        wanted = min(math.ceil(MARGIN * needed / GIBI), most)
        request = f"{wanted}Gi" if count(f"{wanted}Gi") > count(request) else request
    if "memory_limit" not in given and request and count(limit) < 2 * count(request):
        limit = f"{math.ceil(2 * count(request) / GIBI)}Gi"
    return dataclasses.replace(resources, memory_request=request, memory_limit=limit)


def equip(resources: Resources) -> None:
    """Set the resources of all tasks of the pipeline that is being built."""
    from kfp.dsl import pipeline_context

    pipeline = pipeline_context.Pipeline.get_default_pipeline()
    assert pipeline, "called within a pipeline function"
    for task in pipeline.tasks.values():
        if task.component_spec.implementation.graph:
            continue  # the tasks of a graph within have theirs already
        _equip_task(task, resources)
        if _trains(task):
            _equip_training(task, resources)


def _trains(task: Any) -> bool:
    """Return whether a task trains, or may: quantize does so with some methods, and the run form may choose one."""
    from kfp.dsl.pipeline_channel import PipelineChannel

    name, method = task.component_spec.name, task.inputs.get("method")
    if name != "quantize":
        return name in TRAINING
    chosen = isinstance(method, PipelineChannel)
    return chosen or task.inputs.get("fine_tune") is True or bool(QUANTIZERS[method].options.get("trains"))


def _equip_task(task: Any, resources: Resources) -> None:
    from kfp import kubernetes

    name = task.component_spec.name
    # Optional: without the Secret a step fails with a clear line, instead of a pod that Kubernetes never starts.
    keys = {"accesskey": "MINIO_ACCESS_KEY", "secretkey": "MINIO_SECRET_KEY"}
    kubernetes.use_secret_as_env(task, resources.secret, keys, optional=True)
    # Not by task.set_env_variable: kfp 2.17's setters read the source of the whole call stack, 50 ms a call.
    task.container_spec.env = {
        **(task.container_spec.env or {}),
        "MINIO_ENDPOINT": resources.endpoint,
        "MINIO_SECURE": str(resources.secure).lower(),
        "KONDENSE_CHECKPOINTS": resources.checkpoints,
        **({"KONDENSE_SHARDS": resources.shards} if resources.shards and name == DATA_PREP else {}),
        **({VARIABLE: resources.allow_network} if resources.allow_network else {}),
    }
    if resources.knows_literals:
        # The rest of the standard `restricted` is the server's: no privilege escalation, no capabilities, seccomp.
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    if resources.retries and name != "verdict":  # it fails on purpose
        task.set_retry(resources.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")


def _equip_training(task: Any, resources: Resources) -> None:
    from kfp import kubernetes
    from kfp.dsl.structures import ResourceSpec

    # Directly, as the environment above.
    task.container_spec.resources = ResourceSpec(
        cpu_request=resources.cpu_request or None,
        cpu_limit=resources.cpu_limit or None,
        memory_request=resources.memory_request or None,
        memory_limit=resources.memory_limit or None,
        accelerator_type=resources.accelerator if resources.gpus else None,
        accelerator_count=str(resources.gpus) if resources.gpus else None,
    )
    if resources.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", SHARED_MEMORY, "Memory", resources.shared_memory)
    for key, value in resources.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    tolerations = list(resources.tolerations)
    if resources.gpus:
        # The usual taint of GPU nodes; a toleration without a taint has no effect.
        tolerations.append({"key": resources.accelerator, "operator": "Exists", "effect": "NoSchedule"})
    for toleration in tolerations:
        kubernetes.add_toleration(task, **toleration)
