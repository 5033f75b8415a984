"""Names that were replaced before the first release: a request that uses one is refused with the new one named.

Stdlib only.
"""

from collections.abc import Iterable, Mapping

from kondense.errors import InputError


def _field(name: str, *stages: str) -> str:
    return " or ".join(f"{stage}.{name}" for stage in stages)


# By where the name is used: a Config's class (its fields, as flags, --set, run form and API give them), the steps of a
# pipeline, and the parameters of a pipeline's run form.
STEP, FORM = "step", "run form"
RENAMED: Mapping[str, Mapping[str, str]] = {
    "PruneConfig": {"max_accuracy_drop": "max_validation_drop"},
    "QuantizeConfig": {"max_accuracy_drop": "max_validation_drop"},
    "ReportConfig": {"max_accuracy_drop": "max_validation_drop"},
    "PublishConfig": {"max_accuracy_drop": "max_test_drop"},
    "TrialConfig": {
        "network": "train.network",
        "width": "train.width",
        "epochs": _field("epochs", "train", "prune", "distill"),
        "max_epochs": _field("max_epochs", "train", "prune", "distill"),
        "tune_epochs": _field("epochs", "prune", "distill"),
        "lr": _field("learning_rate", "train", "prune", "distill"),
        "momentum": _field("momentum", "train", "prune", "distill"),
        "weight_decay": _field("weight_decay", "train", "prune", "distill"),
        "batch_size": _field("batch_size", "train", "prune", "distill"),
        "schedule": _field("schedule", "train", "prune", "distill"),
        "warmup_epochs": _field("warmup_epochs", "train", "prune", "distill"),
        "label_smoothing": _field("label_smoothing", "train", "prune", "distill"),
        "augment": _field("augment", "train", "prune", "distill"),
        "averaging": _field("averaging", "train", "prune", "distill"),
        "prune_method": "prune.method",
        "sparsity": "prune.sparsity",
        "layers": "prune.layers",
        "pruning_schedule": "prune.pruning_schedule",
        "pruning_steps": "prune.steps",
        "quantize_method": "quantize.method",
        "bits": "quantize.bits",
        "student_width": "distill.width",
        "temperature": _field("temperature", "prune", "distill"),
        "alpha": _field("alpha", "prune", "distill"),
    },
    STEP: {"sparsify": "prune_weights", "pack": "pack_weights", "search": "katib_search"},
    FORM: {"report_max_accuracy_drop": "report_max_drop"},
}


def refuse_old(scope: str, names: Iterable[str]) -> None:
    """Raise InputError, naming the new name, if one of ``names`` is an old name in ``scope`` (a key of ``RENAMED``)."""
    for name in names:
        if new := RENAMED.get(scope, {}).get(name):
            raise InputError(f"{name} has been renamed: use {new}.")


def flag_names(arguments: Iterable[str]) -> list[str]:
    """Return the parameters that command-line arguments set: ``--batch-size=64`` -> ``batch_size``."""
    return [text[2:].partition("=")[0].replace("-", "_") for text in arguments if text.startswith("--")]
