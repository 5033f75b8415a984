"""Run every ONNX file of a directory in the runtime of this environment; part of ``benchmarks.runtimes``.

``python runtime_child.py RUNTIME DIRECTORY``: needs NumPy and the runtime alone.
"""

import json
import sys
from pathlib import Path

import numpy as np


def onnxruntime(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0]


def openvino(path):
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[0]


def tract(path):
    import tract

    reader = tract.onnx()
    model = (reader.model_for_path if hasattr(reader, "model_for_path") else reader.load)(str(path))
    model = model.into_model() if hasattr(model, "into_model") else model
    if hasattr(model, "into_optimized"):
        model = model.into_optimized()
    runnable = model.into_runnable()
    return lambda batch: runnable.run([batch])[0].to_numpy()


def opencv(path, engine="AUTO"):
    import cv2

    cv2.utils.logging.setLogLevel(0)
    net = cv2.dnn.readNetFromONNX(str(path), engine=getattr(cv2.dnn, f"ENGINE_{engine}"))
    if net.empty():  # what the new engine makes of a file that it cannot read
        raise RuntimeError("read as a network without layers")

    def run(batch):
        net.setInput(batch)
        return net.forward().copy()

    return run


def opencv_classic(path):
    return opencv(path, "CLASSIC")


RUNTIMES = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "tract": tract,
    "opencv": opencv,
    "opencv-classic": opencv_classic,
}


def main(runtime, directory):
    errors = {}
    for path in sorted(Path(directory).glob("*.onnx")):
        images = np.load(Path(directory, "uint8.npy" if "uint8" in path.name else "float32.npy"))
        try:
            run = RUNTIMES[runtime](path)
            np.save(f"{path}.npy", np.concatenate([run(images[:1]), run(images[1:])]))
        except Exception as error:  # whatever the runtime raises
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            errors[path.name] = lines[0]
    print(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
