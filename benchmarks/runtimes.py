"""Which kind of exported file loads in which runtime, and whether it computes the same.

``python -m benchmarks.runtimes`` makes the files of LeNet-5 and ResNet-8, then installs one runtime after the other in
a temporary environment, from PyPI or npm, runs the files there, and deletes it again. It prints the table of
docs/runtimes.md. Needs a package index, and node for onnxruntime-web; a runtime that cannot be installed says so.

Judged against onnxruntime of this environment, on 64 images in batches of 1 and 63: the share of images with the same
class, and the largest difference relative to the largest logit.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from kondense.artifacts.images import Images
from kondense.artifacts.model import Model
from kondense.export.onnx import export_onnx
from kondense.measuring.processor import CPUINFO, read_cpu
from kondense.networks.build import NetworkSpec, build
from kondense.quantize import dynamic, weight_only
from kondense.quantize.static import static
from numpy.typing import NDArray

ROOT = Path(__file__).parent
IMAGES = 64
EXACT = 1e-5
REASON = 60  # characters of an error
NETWORKS = ("lenet5", "resnet8")
PIP = {  # name -> packages; the first is the runtime
    **{
        f"onnxruntime {version}": (f"onnxruntime=={version}", numpy)
        for version, numpy in {
            "1.17.3": "numpy<2",
            "1.18.1": "numpy<2",
            **dict.fromkeys(("1.19.2", "1.20.1", "1.22.1", "1.24.1", "1.25.1", "1.32.0"), "numpy"),
        }.items()
    },
    "OpenVINO 2026.4.1": ("openvino==2026.4.1", "numpy"),
    "tract 0.23.9": ("tract==0.23.9", "numpy"),
    "OpenCV 5.0.0": ("opencv-python-headless==5.0.0.93", "numpy"),
    "OpenCV-classic 5.0.0": ("opencv-python-headless==5.0.0.93", "numpy"),
}
WEB = "onnxruntime-web 1.30.0"
Array = NDArray[np.float32]


def files(directory: Path) -> dict[str, str]:
    """Write the files and the images; return the kind of each file by name."""
    images = Images(tuple("abcdefghij"), (1, 28, 28), (0.5,), (0.25,))
    batch = torch.rand(IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 4 - 2
    np.save(directory / "float32.npy", batch.numpy())
    np.save(directory / "uint8.npy", ((batch + 2) / 4 * 255).round().to(torch.uint8).numpy())
    kinds = {}
    for name in NETWORKS:
        spec = NetworkSpec(name, {"classes": 10, "channels": 1, "image_size": 28})
        model = Model(build(spec).eval(), spec, images=images)
        forms: dict[str, Callable[[], Model]] = {
            "fp32": lambda model=model: model,
            "uint8 input": lambda model=model: model,
            "static": lambda model=model: static.quantize(model, [batch]),
            "dynamic": lambda model=model: dynamic.quantize(model),
            "8 bits": lambda model=model: weight_only.quantize(model, bits=8),
            "4 bits": lambda model=model: weight_only.quantize(model, bits=4),
        }
        for kind, make in forms.items():
            file = f"{name}-{kind.replace(' ', '-')}.onnx"
            (directory / file).write_bytes(export_onnx(make(), images, uint8_input=kind == "uint8 input"))
            kinds[file] = kind
    return kinds


def run_here(python: str, runtime: str, directory: Path) -> dict[str, str]:
    """Run the files in the environment of ``python``; return the errors by file. Logits lie beside the files."""
    command = [python, str(ROOT / "runtime_child.py"), runtime, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    return _errors(done)


def run_web(directory: Path, scratch: Path) -> dict[str, str]:
    """Run the files in onnxruntime-web on node."""
    package, version = WEB.split()
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(scratch), f"{package}@{version}"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    shutil.copy(ROOT / "runtime_child.mjs", scratch)
    command = ["node", str(scratch / "runtime_child.mjs"), str(directory)]
    return _errors(subprocess.run(command, capture_output=True, text=True, check=False, timeout=600))


def _errors(done: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1][:200])
    errors: dict[str, str] = json.loads(lines[-1])
    return errors


def judged(
    directory: Path, kinds: Mapping[str, str], errors: Mapping[str, str], expected: Mapping[str, Array]
) -> dict[str, str]:
    """Return a cell of the table by kind: the worst of the networks."""
    cells: dict[str, list[str]] = {}
    for file, kind in kinds.items():
        if file in errors:
            reason = errors[file].rpartition(".onnx")[2].strip(" :") or errors[file]
            cells.setdefault(kind, []).append(f"refused: {reason[:REASON].replace('|', ' ')}")
            continue
        logits = np.load(directory / f"{file}.npy")
        off = float(np.abs(logits - expected[file]).max() / np.abs(expected[file]).max())
        agreement = float((logits.argmax(1) == expected[file].argmax(1)).mean())
        cells.setdefault(kind, []).append("exact" if off < EXACT else f"{agreement:.2f} ({off:.1g})")
    return {kind: " / ".join(dict.fromkeys(texts)) for kind, texts in cells.items()}


def outputs(directory: Path, kinds: Mapping[str, str]) -> dict[str, Array]:
    """Return the logits that the last runtime left, by file, and remove them."""
    found = {file: np.load(directory / f"{file}.npy") for file in kinds if (directory / f"{file}.npy").exists()}
    for file in found:
        (directory / f"{file}.npy").unlink()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="runtimes whose names begin so, separated by commas")
    only = tuple(filter(None, parser.parse_args().only.split(",")))
    with tempfile.TemporaryDirectory(prefix="kondense-runtimes-") as scratch:
        directory = Path(scratch, "files")
        directory.mkdir()
        kinds = files(directory)
        errors = run_here(sys.executable, "onnxruntime", directory)
        assert not errors, errors
        expected = outputs(directory, kinds)
        heads = list(dict.fromkeys(kinds.values()))
        print(f"Processor: {', '.join(read_cpu(CPUINFO)[1])}\n\n| runtime | {' | '.join(heads)} |")
        print("|" + "---|" * (len(heads) + 1), flush=True)
        for name in (*PIP, WEB):
            if only and not name.startswith(only):
                continue
            place = Path(scratch, "environment")
            try:
                cells = judged(directory, kinds, _installed(name, directory, place), expected)
                print(f"| {name} | {' | '.join(cells[head] for head in heads)} |", flush=True)
            except (subprocess.SubprocessError, OSError, RuntimeError) as error:
                print(f"| {name} | not run: {str(error).splitlines()[0][:120]} |", flush=True)
            outputs(directory, kinds)
            shutil.rmtree(place, ignore_errors=True)


def _installed(name: str, directory: Path, place: Path) -> dict[str, str]:
    """Install the runtime ``name`` in ``place`` and run the files; return the errors by file."""
    if name == WEB:
        place.mkdir()
        return run_web(directory, place)
    venv.create(place, with_pip=False)
    python = str(place / "bin" / "python")
    # The runtimes import nothing but NumPy; their further requirements are for tools.
    command = ["python3", "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", *PIP[name]]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return run_here(python, name.split(maxsplit=1)[0].lower(), directory)


if __name__ == "__main__":
    main()
