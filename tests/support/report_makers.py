"""Evaluations as the evaluate stage writes them, with figures in the spirit of LeNet-5 on Fashion-MNIST."""

import hashlib
from pathlib import Path

import numpy as np
from kondense.artifacts.model import Model, save_model
from kondense.artifacts.report import EVALUATION, evaluation_bytes
from kondense.networks.build import NetworkSpec, build

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIFFICULTY = (0.14, 0.02, 0.15, 0.09, 0.15, 0.03, 0.27, 0.04, 0.02, 0.05)
VERSIONS = {"python": "3.11.7", "torch": "2.14.1", "torchvision": "0.29.1", "onnx": "1.23.2", "onnxruntime": "1.32.0"}

# Steps as (stage, summary); channels of the two convolutions and features of the hidden layer; bits; sparsity.
RECIPES = {
    "teacher": ([], (20, 50, 500), 32, 0.0),
    "quantized": ([("quantize", "quantize static int8")], (20, 50, 500), 8, 0.0),
    "pruned": ([("prune", "prune l1 50% of channels")], (16, 32, 256), 32, 0.0),
    "pruned-quantized": (
        [("prune", "prune l1 50% of channels"), ("quantize", "quantize static int8")],
        (16, 32, 256),
        8,
        0.0,
    ),
    "distilled": ([("distill", "distill into lenet5 at half width")], (10, 25, 250), 32, 0.0),
    "distilled-quantized": (
        [("distill", "distill into lenet5 at half width"), ("quantize", "quantize static int8")],
        (10, 25, 250),
        8,
        0.0,
    ),
    "pruned-distilled-quantized": (
        [("prune", "prune l1 50% of channels with the teacher's logits"), ("quantize", "quantize static int8")],
        (16, 32, 256),
        8,
        0.0,
    ),
    "sparse-packed": (
        [("prune", "prune magnitude 95% of weights with the teacher's logits"), ("quantize", "pack weights in 5 bits")],
        (20, 50, 500),
        5,
        0.95,
    ),
}
# name: validation and test accuracy, kz bytes, median ms at batch 1 and at batch 64.
FIGURES = {
    "teacher": (0.9112, 0.9084, 1_598_204, 0.1180, 4.91),
    "quantized": (0.9096, 0.9068, 318_440, 0.1312, 5.32),
    "pruned": (0.9082, 0.9051, 545_120, 0.0608, 2.41),
    "pruned-quantized": (0.9071, 0.9037, 104_210, 0.0723, 2.74),
    "distilled": (0.9051, 0.9022, 404_300, 0.0484, 1.62),
    "distilled-quantized": (0.9002, 0.8981, 79_020, 0.0571, 1.83),
    "pruned-distilled-quantized": (0.9089, 0.9062, 98_340, 0.0701, 2.70),
    "sparse-packed": (0.9101, 0.9070, 22_411, 0.1174, 4.88),
}


def make_evaluation(name, *, classes=CLASSES, figures=None, recipe=None, seed=0):
    """Return the content of one candidate's evaluation.json."""
    steps, widths, bits, sparsity = recipe or RECIPES[name]
    validation, test, kz, batch_1, batch_64 = figures or FIGURES[name]
    layers = make_layers(widths, bits, sparsity, len(classes))
    parameters = sum(layer["parameters"] for layer in layers)
    confusion = make_confusion(test, classes, seed=seed)
    correct = [row[index] / max(sum(row), 1) for index, row in enumerate(confusion)]
    lineage = make_lineage(steps)
    stored = round(parameters * (4 if bits == 32 else 1)) + 912
    return {
        "format_version": 1,
        "name": name,
        "steps": [summary for _, summary in steps],
        "network": "lenet5",
        "validation_accuracy": validation,
        "test_accuracy": float(np.trace(confusion) / np.sum(confusion)),
        "onnx_test_accuracy": test - (0.0004 if bits == 8 else 0.0),
        "onnx_agreement": 0.9994 if bits == 8 else 1.0,
        "teacher_agreement": None if name == "teacher" else min(max(0.96 + (test - 0.9) * 2, 0.0), 1.0),
        "per_class_accuracy": correct,
        "confusion": confusion,
        "parameters": parameters,
        "nonzero_parameters": sum(layer["nonzero"] for layer in layers),
        "macs": sum(layer["macs"] for layer in layers),
        "bytes": {"fp32": 4 * parameters, "stored": stored, "kz": kz, "onnx": stored + 13_200 * (bits == 8) + 1_870},
        "latency_ms": {
            "batch_1": {"median": batch_1, "p95": batch_1 * 1.12},
            "batch_64": {"median": batch_64, "p95": batch_64 * 1.07},
        },
        **make_timings(name, batch_1, batch_64),
        "bits_per_weight": 8 * kz / parameters,
        "arithmetic": make_arithmetic(bits),
        "kernels": {"QLinearConv": 2, "QGemm": 2} if bits == 8 else {"FusedConv": 2, "Gemm": 2},
        "runtimes": {
            "least": "onnxruntime 1.18",
            "faulty": "onnxruntime 1.21 to 1.24 on processors with AMX: conv1 (25 filters)" if bits == 8 else "",
            "checked": ["onnxruntime 1.18.1", "onnxruntime 1.32.0"],
        },
        "robustness": make_robustness(test),
        "program": {"bytes": 4 * parameters + 40_000, "lossless": True, "largest_difference": 0.0}
        if bits == 32
        else None,
        "throughput_images_per_s": 64_000 / batch_64,
        "peak_memory_bytes": 412_000_000 + stored,
        "layers": layers,
        "curves": [{"stage": r["stage"], "points": r["curves"]} for r in lineage if r["curves"]],
        "lineage": lineage,
        "dataset": {
            "name": "fashion-mnist",
            "classes": list(classes),
            "shape": [1, 28, 28],
            "splits": {"train": 55_000, "validation": 5_000, "test": int(np.sum(confusion))},
            "seed": 0,
            "source": "local files, idx format",
        },
        "environment": {
            "cpu": "AMD EPYC 7B13",
            "cpu_flags": ["avx2", "fma"],
            "cores": 2,
            "memory_bytes": 25_769_803_776,
            "gpu": None,
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "versions": dict(VERSIONS),
        },
    }


def make_times(median):
    """Return one model's times around a median."""
    return {"median": median, "p95": median * 1.12, "low": median * 0.98, "high": median * 1.03, "runs": 400}


def make_timings(name, batch_1, batch_64):
    """Return the ways that a candidate was run, against a teacher of the usual times."""
    teacher = {1: FIGURES["teacher"][3], 64: FIGURES["teacher"][4]}
    rows = []
    for batch, median in ((1, batch_1), (64, batch_64)):
        for runtime, threads, factor in (("onnxruntime", 1, 1.0), ("onnxruntime", 2, 0.6), ("torch", 1, 5.0)):
            ratio = teacher[batch] / median
            rows.append(
                {
                    "runtime": runtime,
                    "device": "cpu",
                    "threads": threads,
                    "batch": batch,
                    "candidate": make_times(factor * median),
                    "teacher": None if name == "teacher" else make_times(factor * teacher[batch]),
                    "ratio": None if name == "teacher" else make_ratio(ratio),
                    "warmup_turns": 36,
                    "settled": runtime == "onnxruntime",
                }
            )
    ratios = {f"batch_{row['batch']}": row["ratio"] for row in rows if row["threads"] == 1 and row["ratio"]}
    return {"timings": rows, "latency_ratio": ratios or None}


def make_ratio(value):
    """Return a ratio with its interval."""
    return {"value": value, "low": value * 0.97, "high": value * 1.02}


def make_arithmetic(bits):
    """Return which arithmetic was chosen and why."""
    if bits != 8:
        reason = "it is not quantized" if bits == 32 else "its weights alone are quantized"
        return {"chosen": "float", "reason": reason, "integer_speedup": None}
    speedup = {"batch_1": make_ratio(1.1), "batch_64": make_ratio(1.2)}
    reason = "int8 runs at 1.10× (1.07 to 1.12) the speed of the same weights in float at batch 1"
    return {"chosen": "integer", "reason": reason, "integer_speedup": speedup}


def make_robustness(test):
    """Return accuracies on spoiled images that fall with the strength."""
    strengths = {"noise": [0.05, 0.1, 0.2], "blur": [0.02, 0.04, 0.06], "contrast": [0.4, 0.6, 0.8]}
    corruptions = {
        kind: {"strengths": values, "accuracy": [test * (1 - 0.04 * (step + 1) ** 1.6) for step in range(3)]}
        for kind, values in strengths.items()
    }
    mean = float(np.mean([found["accuracy"] for found in corruptions.values()]))
    return {"images": 500, "seed": 0, "clean": test, "mean": mean, "corruptions": corruptions}


def make_evaluations(**options):
    """Return the evaluations of a whole run, the teacher's first."""
    return [make_evaluation(name, seed=seed, **options) for seed, name in enumerate(RECIPES)]


def make_layers(widths, bits, sparsity, classes):
    """Return the four layers of a LeNet-5 with these widths."""
    first, second, hidden = widths
    shapes = {
        "conv1": ("Conv2d", [first, 1, 5, 5], 24 * 24),
        "conv2": ("Conv2d", [second, first, 5, 5], 8 * 8),
        "fc1": ("Linear", [hidden, second * 16], 1),
        "fc2": ("Linear", [classes, hidden], 1),
    }
    spread = {"conv1": 0.55, "conv2": 0.9, "fc1": 1.015, "fc2": 0.8}
    layers = []
    for name, (kind, shape, positions) in shapes.items():
        weights = int(np.prod(shape))
        kept = round(weights * (1 - sparsity * spread[name]))
        layers.append(
            {
                "name": name,
                "type": kind,
                "shape": shape,
                "parameters": weights + shape[0],
                "nonzero": kept + shape[0],
                "sparsity": 1 - kept / weights,
                "bits": bits,
                "macs": weights * positions,
            }
        )
    return layers


def make_confusion(accuracy, classes, *, seed, per_class=1000):
    """Return a confusion matrix [K][K] of that accuracy: harder classes err more, and into classes like them."""
    rng = np.random.default_rng(seed)
    count = len(classes)
    difficulty = np.resize(np.array(DIFFICULTY), count) * rng.uniform(0.9, 1.1, count)
    errors = np.round(difficulty / difficulty.sum() * (1 - accuracy) * per_class * count).astype(int)
    near = np.exp(-np.abs(np.arange(count)[:, None] - np.arange(count)[None]) % 2 * 2.0) * difficulty[None]
    confusion = np.zeros((count, count), dtype=int)
    for row in range(count):
        share = np.where(np.arange(count) == row, 0, near[row])
        confusion[row] = rng.multinomial(min(errors[row], per_class), share / share.sum())
        confusion[row, row] = per_class - confusion[row].sum()
    return confusion.tolist()


def make_curve(epochs, start, end, loss):
    """Return ``epochs`` points from one accuracy to another; deterministic."""
    shares = [1 - 0.45**epoch for epoch in range(1, epochs + 1)]
    return [
        {
            "epoch": epoch,
            "train_loss": loss * (0.35 + 0.65 * 0.6**epoch),
            "validation_accuracy": start + (end - start) * share,
            "learning_rate": 0.05 * (1 - (epoch - 1) / epochs),
            "seconds": 12.4,
        }
        for epoch, share in enumerate(shares, start=1)
    ]


def make_lineage(steps):
    """Return the lineage records of train and then of ``steps``."""
    records = [make_record("train", "train lenet5 8 epochs", make_curve(8, 0.82, 0.9116, 0.9))]
    for stage, summary in steps:
        end = 0.909 - 0.0011 * (len(summary) % 7)
        curve = [] if stage == "quantize" else make_curve(5, end - 0.035, end, 0.62)
        records.append(make_record(stage, summary, curve) | {"details": make_details(stage, summary)})
    return records


def make_details(stage, summary):
    """Return what methods keep of their search: sensitivity, tickets, a greedy way."""
    layers = {"conv1": 0.9, "conv2": 0.5, "fc1": 0.1, "fc2": 0.3}
    if stage == "quantize":
        points = {
            layer: [[bits, 0.91 - cost * 4.0**-bits * 3] for bits in (2, 3, 4, 6, 8)] for layer, cost in layers.items()
        }
        return {"sensitivity": {"of": "bits", "rows": [{"layer": layer, "points": points[layer]} for layer in layers]}}
    if "magnitude" in summary:
        shares = (0.5, 0.75, 0.875, 0.94, 0.97)
        return {
            "tickets": [{"sparsity": s, "ticket": 0.915 - 0.02 * s**8, "control": 0.91 - 0.06 * s**8} for s in shares]
        }
    if "channels" in summary:
        rows = [
            {"layer": layer, "points": [[share, 0.911 - cost * share**4] for share in (0.25, 0.5, 0.75, 0.9)]}
            for layer, cost in layers.items()
        ]
        steps = [
            {
                "layer": "conv2",
                "channels": 48 - 4 * step,
                "validation_accuracy": 0.911 - 0.0004 * step**2,
                "macs": 2_293_000 - 180_000 * step,
                "latency_ms": 0.118 - 0.01 * step,
            }
            for step in range(8)
        ]
        return {"sensitivity": {"of": "sparsity", "rows": rows}, "trajectory": steps}
    return {}


def make_record(stage, summary, curve):
    """Return one lineage record."""
    digest = hashlib.sha256(summary.encode()).hexdigest()
    return {
        "stage": stage,
        "summary": summary,
        "config": {
            "epochs": len(curve) or 1,
            "batch_size": 128,
            "learning_rate": 0.05,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": "cosine",
            "compile": False,
            "import_uri": "",
            "seed": 0,
        },
        "inputs": {"dataset": "5f" * 32, "model": digest},
        "metrics": {"validation_accuracy": curve[-1]["validation_accuracy"]} if curve else {},
        "curves": curve,
        "details": {},
        "versions": dict(VERSIONS),
        "revision": "v0.1.0-5-g0506b60c7a12",
    }


def write_candidates(directory: Path, evaluations) -> list[Path]:
    """Write each evaluation into a Model artifact; a tiny network of its own stands in for the weights."""
    found = []
    for seed, evaluation in enumerate(evaluations):
        candidate = directory / str(seed)
        spec = NetworkSpec("lenet300", {"classes": 2, "channels": 1, "image_size": 4, "width": 0.05})
        model = Model(module=build(spec, seed=seed), network=spec, lineage=tuple(evaluation["lineage"]))
        save_model(candidate, model, {EVALUATION: evaluation_bytes(evaluation)})
        found.append(candidate)
    return found
