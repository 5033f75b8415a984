"""Latency, memory and environment: what is measured, never how long it took."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from kondense.measuring import latency, memory
from kondense.measuring.environment import describe_environment
from kondense.measuring.latency import Latency, measure_latency, open_session, predict_onnx, takes_pixels
from kondense.measuring.memory import peak_memory_bytes
from kondense.measuring.processor import read_cpu
from onnx import TensorProto, helper, numpy_helper


def linear(columns: int, *, pixels: bool = False) -> bytes:
    """Return an ONNX model that multiplies images [N, 4], floats or pixels, by a [4, columns] matrix of ones."""
    weight = numpy_helper.from_array(np.ones((4, columns), np.float32), "weight")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["values", "weight"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8 if pixels else TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", columns])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_median_and_percentile() -> None:
    times = Latency(np.arange(1.0, 102.0)).describe()
    assert times == {"median": 51.0, "p95": 96.0}


def test_real_sessions_have_one_thread_and_positive_times() -> None:
    session = open_session(linear(3))
    assert session.get_session_options().intra_op_num_threads == 1
    times = measure_latency({"only": session}, np.ones((2, 4), np.float32), seconds=0.01)
    assert 0 < times["only"].median_ms <= times["only"].p95_ms


@pytest.mark.parametrize(("flags", "asked"), [("avx2", "1"), ("avx2 avx512f avx512_vnni", "0"), ("avx2 avx_vnni", "0")])
def test_exact_products_are_asked_for_where_16_bits_would_saturate(
    flags: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(latency, "CPUINFO", cpuinfo)
    options = open_session(linear(3)).get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == asked


def test_predictions_keep_their_order_over_batches() -> None:
    images_NC = np.arange(28, dtype=np.float32).reshape(7, 4)
    logits_NK = predict_onnx(open_session(linear(2)), images_NC, batch_size=3)
    assert np.array_equal(logits_NK, np.repeat(images_NC.sum(1, keepdims=True), 2, axis=1))


def test_peak_memory_holds_the_weights() -> None:
    assert peak_memory_bytes(linear(1_000_000)) > 4 * 4_000_000


def test_a_model_that_takes_pixels_is_known_and_can_be_measured() -> None:
    content = linear(100_000, pixels=True)
    assert takes_pixels(open_session(content))
    assert not takes_pixels(open_session(linear(3)))
    assert peak_memory_bytes(content, batch=2) > 4 * 400_000


def test_a_model_that_does_not_load_is_an_error() -> None:
    with pytest.raises(ChildProcessError, match="exit code"):
        peak_memory_bytes(b"no model")


def test_a_model_whose_runs_are_long_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST_S", 0.001)
    monkeypatch.setattr(memory, "PATIENCE", 100.0)
    with pytest.raises(ChildProcessError, match="within 0 s"):
        peak_memory_bytes(linear(3))
    assert peak_memory_bytes(linear(3), run_s=1.0) > 0


def test_environment_names_the_machine() -> None:
    found = describe_environment()
    assert set(found) == {"cpu", "cpu_flags", "cores", "memory_bytes", "gpu", "providers", "platform", "versions"}
    assert "CPUExecutionProvider" in found["providers"]
    assert found["cpu"] and found["cores"] >= 1 and found["memory_bytes"] > 2**28
    assert {"python", "torch", "onnxruntime"} <= set(found["versions"])


def test_processor_flags_that_matter(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: sse avx2 avx512f avx512_vnni amx_int8\n\nflags : none\n")
    assert read_cpu(cpuinfo) == ("Some CPU", ["avx2", "avx512", "vnni", "amx"])
    assert read_cpu(tmp_path / "absent")[1] == []


def test_measuring_memory_loads_no_torch() -> None:
    code = "import sys, kondense.measuring.memory; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


SESSIONS = """
import sys
import numpy as np
from kondense.measuring.latency import open_session, shrink
from kondense.usage import resident_bytes
content, images = sys.stdin.buffer.read(), np.zeros((2000, 4), np.float32)
before = resident_bytes()
for shared in (True, True, True, False):
    session = open_session(content, shared=shared)
    assert not session.run(None, {"images": images})[0].any()
    print(resident_bytes() - before)
    if shared:
        kept = session
shrink(kept, images[:1])
print(resident_bytes() - before)
"""


PLANNED = """
import sys
import numpy as np
from kondense.measuring.latency import open_session
from kondense.usage import resident_bytes
content, images = sys.stdin.buffer.read(), np.zeros((2000, 4), np.float32)
session = open_session(content, shared=True, planned=sys.argv[1] == "True")
before = resident_bytes()
for _ in range(3):
    session.run(None, {"images": images})
print(resident_bytes() - before)
"""


def test_a_session_that_plans_nothing_needs_the_memory_of_its_first_run() -> None:
    model = onnx.load_model_from_string(linear(5000))
    model.graph.node[1].output[0] = "wide"
    for number in range(3):
        model.graph.node.append(helper.make_node("Softmax", ["wide"], [f"softmax_{number}"], axis=1))
    model.graph.node.append(helper.make_node("Sum", [f"softmax_{number}" for number in range(3)], ["size"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["size"], ["logits"]))
    model.graph.output[0].type.tensor_type.shape.ClearField("dim")
    planned, not_planned = (
        int(
            subprocess.run(
                [sys.executable, "-c", PLANNED, str(plans)],
                input=model.SerializeToString(),
                capture_output=True,
                check=True,
            ).stdout
        )
        for plans in (True, False)
    )
    assert planned > 1.3 * not_planned


def test_sessions_that_share_need_the_memory_of_one_and_return_it() -> None:
    model = onnx.load_model_from_string(linear(5000))  # 40 MB for 2,000 images, twice with the comparison
    model.graph.node[1].output[0] = "wide"
    model.graph.node.append(helper.make_node("Abs", ["wide"], ["size"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["size"], ["logits"]))
    model.graph.output[0].type.tensor_type.shape.ClearField("dim")
    done = subprocess.run(
        [sys.executable, "-c", SESSIONS], input=model.SerializeToString(), capture_output=True, check=True
    )
    first, second, third, own, left = map(int, done.stdout.split())
    assert first > 40e6
    assert max(second, third) < 1.3 * first
    assert own - third > 0.7 * first
    assert own - left > 0.4 * first
