"""The figures that models and runs are compared by, under one set of names. Stdlib only.

KFP's page that compares runs has one row per name, in the order of the names, so they are few and the first ones count
most.
"""

from collections.abc import Mapping

from kondense.artifacts.report import Evaluation

COMPARED: Mapping[str, str] = {
    "accuracy_percent": "test accuracy, %",
    "accuracy_points_lost": "test accuracy that the teacher has more, percentage points",
    "bytes": "of weights.kz",
    "bytes_times_smaller": "the teacher as dense float32 over weights.kz",
    "latency_ms": "median at batch 1 in onnxruntime, milliseconds",
    "latency_times_faster": "the teacher's latency over the model's",
    "parameters": "number of parameters",
    "teacher_accuracy_percent": "the teacher's test accuracy, %",
}


def compared(model: Evaluation, teacher: Evaluation | None) -> dict[str, float]:
    """Return the figures of a model; those against the teacher only where the teacher was measured.

    Args:
        model: its evaluation; the teacher's own is compared with itself.
        teacher: the teacher's evaluation, None where it was not measured.
    """
    own_ms = model["latency_ms"]["batch_1"]["median"]
    found = {
        "accuracy_percent": 100 * model["test_accuracy"],
        "bytes": float(model["bytes"]["kz"]),
        "latency_ms": own_ms,
        "parameters": float(model["parameters"]),
    }
    if teacher:
        # Two measurements minutes apart on a shared machine differ by more than two models do; turns do not.
        times = model.get("teacher_latency_ms", teacher["latency_ms"])
        found |= {
            "accuracy_points_lost": 100 * (teacher["test_accuracy"] - model["test_accuracy"]),
            "bytes_times_smaller": teacher["bytes"]["fp32"] / model["bytes"]["kz"],
            "latency_times_faster": times["batch_1"]["median"] / own_ms,
            "teacher_accuracy_percent": 100 * teacher["test_accuracy"],
        }
    return found
