"""The figures for the comparison of models and runs. Stdlib only.

KFP's page that compares runs has one row per name, in alphabetical order, so the names are few and the first ones
matter most.
"""

from collections.abc import Mapping

from kondense.artifacts.report import Evaluation

COMPARED: Mapping[str, str] = {
    "accuracy_percent": "test accuracy, %",
    "accuracy_points_lost": "drop of the test accuracy below the teacher's, percentage points",
    "bytes": "size of weights.kz",
    "bytes_times_smaller": "the teacher as dense float32 / weights.kz",
    "latency_ms": "median at batch 1 in onnxruntime, milliseconds",
    "latency_times_faster": "the teacher's latency / the model's",
    "parameters": "number of parameters",
    "teacher_accuracy_percent": "the teacher's test accuracy, %",
}


def compared(model: Evaluation, teacher: Evaluation | None) -> dict[str, float]:
    """Return the figures of a model, with those against the teacher if it was measured.

    Args:
        model: the model's evaluation.
        teacher: the teacher's evaluation, None if it was not measured.
    """
    latency_ms = model["latency_ms"]["batch_1"]["median"]
    figures = {
        "accuracy_percent": 100 * model["test_accuracy"],
        "bytes": float(model["bytes"]["kz"]),
        "latency_ms": latency_ms,
        "parameters": float(model["parameters"]),
    }
    if teacher:
        # On a shared machine, measurements minutes apart differ more than models do; measurements in turns do not.
        times = model.get("teacher_latency_ms", teacher["latency_ms"])
        figures |= {
            "accuracy_points_lost": 100 * (teacher["test_accuracy"] - model["test_accuracy"]),
            "bytes_times_smaller": teacher["bytes"]["fp32"] / model["bytes"]["kz"],
            "latency_times_faster": times["batch_1"]["median"] / latency_ms,
            "teacher_accuracy_percent": 100 * teacher["test_accuracy"],
        }
    return figures
