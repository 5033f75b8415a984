"""What to tell about Katib's Experiments."""

from kondense.cluster.errors import ClusterError, Kind

EXPERIMENT = Kind(
    name="Experiment",
    group="kubeflow.org",
    version="v1beta1",
    plural="experiments",
    product="Katib",
    install="(0.19: kubectl apply -k manifests/kubeflow/katib)",
    quota="raise the ResourceQuota of the namespace, or lower parallel_trials, gpus, cpu or memory",
    next_steps=(
        ("Insufficient", "add nodes, lower gpus, cpu or memory, or set node_selector and tolerations to free nodes"),
        ("untolerated taint", "set tolerations to the taints of the GPU nodes"),
        (
            "didn't match Pod's node affinity",
            "set node_selector to labels of existing nodes: kubectl get nodes --show-labels",
        ),
        ('secret "', "create the Secret with the object store's accesskey and secretkey in the trials' namespace"),
        ("suggestion", "inspect the suggestion's pod: kubectl get pods -l katib.kubeflow.org/deployment"),
    ),
)


class SearchError(ClusterError):
    """The search ended without a result; the text gives the reason and the remedy."""
