"""One node of a TrainJob: the train stage in its processes, together with those of the other nodes.

Every node reads the data set; the first one writes checkpoints, and the model, to the object store. A node whose
container the runtime restarts goes on from the latest checkpoint, and so do the others, which have lost it.
"""

import os

from kondense import launch
from kondense.networks.allowed import allowing
from kondense.scratch import scratch_directory
from kondense.stages import STAGES
from kondense.store.open import open_store
from kondense.train_node.config import TrainNodeConfig, model_prefix
from kondense.training.checkpoint import checkpoints_at
from kondense.trial.reason import failure_key, keep_reason
from kondense.trial.stage import fetch


def run(config: TrainNodeConfig) -> dict[str, float]:
    """Train on this node and, if it is the first, keep the model.

    Returns:
        The metrics of ``train`` on the first node, none on the others.

    Raises:
        InputError: the training runtime sets no torchrun variables, or the data does not fit.
        ProcessLostError: a process, of this node or of another, was killed.
        StoreError: the object store could not be reached, after several attempts.
    """
    try:
        return _run(config)
    except launch.OthersLostError:
        raise  # the node that failed tells why; none does if it was killed
    except Exception as error:
        keep_reason(config.store_uri, config.job, error)
        raise


def _run(config: TrainNodeConfig) -> dict[str, float]:
    nodes = launch.Nodes.of(os.environ, run_id=config.job)
    training = config.training
    with (
        scratch_directory("node") as scratch,
        checkpoints_at(f"{config.store_uri}/checkpoints"),
        allowing(networks=[training.network]),
    ):
        dataset_dir = fetch(config.dataset_uri, scratch / "dataset", "dataset.json")
        model_dir = scratch / "model"
        paths = {"dataset_dir": dataset_dir, "model_dir": model_dir}
        metrics = dict(launch.run(STAGES["train"], training, paths, nodes=nodes))
        if nodes.rank == 0:
            store = open_store(config.store_uri)
            # A restarted job produces an equal model, but its lineage may name newer libraries.
            store.upload_directory(model_prefix(config.job), model_dir, replace=True)
            store.delete(failure_key(config.job))
    return metrics
