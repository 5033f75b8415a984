"""The parsers of Kondense that take what others have written, with valid samples of what they read."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[bytes, Path], object]
REPOSITORY = Path(__file__).resolve().parents[2]
MAX_PIXELS = 2**20
SIDE = 8
RECORD: dict[str, Any] = {
    "stage": "report", "summary": "report", "config": {}, "inputs": {}, "metrics": {}, "curves": [], "details": {},
    "versions": {},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
        name: in the table.
        kind: of the mutations, see ``mutators``.
        make: returns valid samples; it may write into the scratch directory that ``read`` gets too.
        read: reads one input.
        share: its part of all inputs, against that of the others.
        allowance: bytes that it may take beside those of the rule, as a parameter of its allows.
    """

    name: str
    kind: str
    make: Callable[[Path], Sequence[bytes]]
    read: Read
    share: float = 1.0
    allowance: int = 0


def _json(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def _written(name: str, read: Callable[[Path], object]) -> Read:
    """Return a reader of a file of this name in the scratch directory."""

    def run(content: bytes, scratch: Path) -> object:
        path = scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return read(path)

    return run


# JSON, YAML, texts


def _any_json(content: bytes, _: Path) -> object:
    from kondense.json_text import json_value

    return json_value(content, "file")


def _experiments(_: Path) -> list[bytes]:
    return [
        path.read_bytes()
        for path in sorted((REPOSITORY / "manifests/experiments").glob("*.yaml"))
        if "kustom" not in path.name
    ]


def _read_experiment(path: Path) -> object:
    from kondense.katib.spec import load
    from kondense.katib.template import render
    from kondense_pipelines.local_search.local_rules import broken

    experiment = load(path)
    if broken(experiment.document):
        return None
    values = {
        each["name"]: str(each["feasibleSpace"].get("min", "x")) for each in experiment.document["spec"]["parameters"]
    }
    return render(experiment, "t", values, environment={})


def _metric_lines(_: Path) -> list[bytes]:
    text = "epoch 1 acc=0.5 loss=1e-3\n2024-01-01T00:00:00Z acc=0.91\nacc = nan\n{'x': 1} acc=-1.5E+3\n"
    report = '{"timestamp": "2024-01-01T00:00:00.5Z", "acc": "0.5", "loss": "0.1"}\n{"acc": "0.7"}\n'
    return [text.encode(), report.encode()]


def _read_metrics(content: bytes, _: Path) -> None:
    from kondense.katib.metrics import collect, picked
    from kondense.katib.spec import DEFAULT_FILTER, Collector, Objective

    objective = Objective("acc", ("loss",), {"acc": "max", "loss": "latest"})
    lines = content.decode(errors="replace").splitlines()
    for collector in (Collector("StdOut", (DEFAULT_FILTER,), "", "TEXT"), Collector("File", (), "/f", "JSON")):
        picked(collect(lines, collector, objective), objective)


def _parameters(_: Path) -> list[bytes]:
    return _json(
        {"train.epochs": "3", "train.learning_rate": "0.1", "prune.sparsity": "0.5", "train.optimizer": "sgd"},
        {"recipe": "prune:l1:0.5 > quantize:static", "settings": '{"eta": "3"}', "tolerations": "gpu=a100:NoSchedule"},
        {"store": "/tmp/kondense-none", "endpoint": "https://127.0.0.1:9000", "mean": "0.5,0.4", "source": "photos"},
    )


def _read_parameters(content: bytes, _: Path) -> None:
    from kondense.data_prep.config import DataPrepConfig
    from kondense.json_text import json_object
    from kondense.katib_search.config import read_pairs, read_tolerations
    from kondense.preprocessing import normalization_of
    from kondense.recipes import parse_recipe
    from kondense.store.connection import connection_from_environment
    from kondense.store.open import open_store
    from kondense.trial.config import TrialConfig

    readers: dict[str, Callable[[str], object]] = {
        "recipe": parse_recipe,
        "settings": lambda text: read_pairs("settings", text),
        "tolerations": read_tolerations,
        "mean": lambda text: normalization_of("dataset", text, "0.2,0.3"),
        "source": lambda text: DataPrepConfig.from_strings({"dataset_name": "folder", "source": text}),
        "store": lambda text: open_store(f"file://{text}"),
        "endpoint": lambda text: connection_from_environment(
            {"MINIO_ENDPOINT": text, "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b"}
        ),
    }
    refused = None
    for name, value in json_object(content, "parameters").items():
        text = value if isinstance(value, str) else json.dumps(value)
        try:
            if name in readers:
                readers[name](text)
            else:
                TrialConfig.from_strings({"dataset_uri": "d", name: text})
        except ValueError as error:
            _check(error)
            refused = error
    if refused:
        raise refused


def _check(error: Exception) -> None:
    from kondense.errors import EXPECTED

    if not isinstance(error, EXPECTED):
        raise error


# Artifacts


def _model(scratch: Path) -> Any:
    import torch
    from kondense.artifacts.model import Images, Model, save_model
    from kondense.artifacts.quantized import ActivationQuantizer, QuantizedTensor, install_quantizers
    from kondense.artifacts.structure import apply_edits
    from kondense.networks.build import NetworkSpec, build

    spec = NetworkSpec("lenet300", {"classes": 3, "channels": 1, "image_size": SIDE, "width": 0.1})
    module = build(spec)
    apply_edits(module, {"fc2": {"out_features": 7}, "fc3": {"in_features": 7}})
    for tensor in module.state_dict().values():
        torch.nn.init.normal_(tensor)
    integers = torch.randint(-7, 8, module.fc1.weight.shape, dtype=torch.int8)
    quantized = QuantizedTensor(integers, torch.full((1,), 0.1), bits=4)
    module.fc1.weight.data = quantized.dequantize()
    activations = {"fc1": ActivationQuantizer(0.1, 3)}
    install_quantizers(module, activations)
    images = Images(("a", "b", "c"), (1, SIDE, SIDE), (0.5,), (0.2,), (9,), "bicubic")
    record = {"stage": "train", "summary": "train", "config": {}, "inputs": {}, "metrics": {"bytes": 1.0}, "curves": []}
    lineage = ({**record, "details": {}, "versions": {"torch": "2"}, "revision": ""},)
    model = Model(module.eval(), spec, {"fc1.weight": quantized}, activations, ("fc2.weight",), lineage, images)
    save_model(scratch / "model", model)
    return model


def _descriptions(scratch: Path) -> list[bytes]:
    _model(scratch)
    return [(scratch / "model/model.json").read_bytes()]


def _read_model(path: Path) -> object:
    import torch
    from kondense.artifacts.identity import directory_identity
    from kondense.artifacts.metadata import metadata_of
    from kondense.artifacts.model import load_model

    model = load_model(path.parent)
    metadata_of(path.parent)
    if model.images and math.prod(model.images.shape) <= SIDE**4:
        with contextlib.suppress(RuntimeError):  # images that the network was not made for, which its use will refuse
            model.module(torch.zeros(1, *model.images.shape))
    return directory_identity(path.parent)


def _weights(scratch: Path) -> list[bytes]:
    _model(scratch)
    return [(scratch / "model/weights.safetensors").read_bytes()]


def _read_weights(path: Path) -> object:
    from kondense.artifacts.model import load_model

    description = json.loads((path.parent / "model.json").read_bytes())
    description["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    (path.parent / "model.json").write_text(json.dumps(description))
    return load_model(path.parent)


def _packed(scratch: Path) -> list[bytes]:
    from kondense.codec.model_file import pack_model

    return [pack_model(_model(scratch))]


def _read_packed(content: bytes, _: Path) -> object:
    from kondense.codec import kz
    from kondense.codec.model_file import unpack_model

    start = kz.NUMBERS.size
    digest = hashlib.sha256(content[:start] + content[start + kz.DIGEST_BYTES :]).digest()
    return unpack_model(content[:start] + digest + content[start + kz.DIGEST_BYTES :], limit_bytes=2**24)


def _dataset(scratch: Path) -> Path:
    from kondense.data.dataset import save_dataset

    from tests.support.toy_training import toy_dataset

    save_dataset(scratch / "data", toy_dataset(train=6, size=SIDE))
    return scratch / "data"


def _dataset_descriptions(scratch: Path) -> list[bytes]:
    return [(_dataset(scratch) / "dataset.json").read_bytes()]


def _read_dataset(path: Path) -> object:
    from kondense.artifacts.metadata import metadata_of
    from kondense.data.dataset import load_dataset

    data = load_dataset(path.parent)
    data.normalise(data.test.images[:1])
    return metadata_of(path.parent)


def _splits(scratch: Path) -> list[bytes]:
    return [(_dataset(scratch) / "test.safetensors").read_bytes()]


def _read_split(path: Path) -> object:
    from kondense.data.dataset_files import load_split, read_description
    from kondense.data.shard_index import place_of

    description = read_description(path.parent / "dataset.json")
    return load_split(path, description, place_of(description.get("shards"), path.parent, ""))


def _failures(_: Path) -> list[bytes]:
    return _json({"format_version": 1, "name": "pruned", "step": "prune", "reason": "too small", "passed_on": True})


def _read_failure(path: Path) -> object:
    from kondense.artifacts.failed import read_failed
    from kondense.artifacts.metadata import metadata_of

    read_failed(path.parent)
    return metadata_of(path.parent)


# Reports


def _evaluations(_: Path) -> list[bytes]:
    from tests.support.report_makers import make_evaluations

    return _json(*make_evaluations()[:2])


def _read_evaluation(path: Path) -> object:
    from kondense.artifacts.report import read_evaluation
    from kondense.report.document import build_report
    from kondense.report.page import render

    from tests.support.report_makers import make_evaluations

    evaluation = read_evaluation(path.parent)
    teacher = make_evaluations()[0]
    others = [teacher, evaluation] if evaluation["name"] != teacher["name"] else [evaluation]
    report = build_report(
        others, ["0" * 64] * len(others), title="t", objective="bytes", max_validation_drop=0.01, record=RECORD
    )
    return render(report)


def _reports(_: Path) -> list[bytes]:
    from kondense.report.document import build_report

    from tests.support.report_makers import make_evaluations

    made = make_evaluations()[:3]
    return _json(
        build_report(made, ["0" * 64] * 3, title="t", objective="bytes", max_validation_drop=0.01, record=RECORD)
    )


def _read_report(path: Path) -> object:
    from kondense.artifacts.metadata import metadata_of
    from kondense.artifacts.report import read_report, shortcomings
    from kondense.report.page import render

    report = read_report(path.parent)
    shortcomings(report)
    metadata_of(path.parent)
    return render(report)


# Stores, checkpoints, searches


def _manifests(scratch: Path) -> list[bytes]:
    directory = scratch / "s/m"
    (directory / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (directory / name).write_bytes(b"x")
    files = dict.fromkeys(("a", "deep/b"), hashlib.sha256(b"x").hexdigest())
    return _json({"format_version": 1, "created": "2024-01-01T00:00:00.000+00:00", "files": files})


def _read_manifest(path: Path) -> object:
    from kondense.store.local import LocalStore

    return LocalStore(path.parents[1]).download_directory("m", path.parents[2] / "pulled")


def _champions(_: Path) -> list[bytes]:
    return _json(
        {
            "format_version": 1, "version": "0123456789ab", "previous": "", "promoted": "2024-01-01T00:00:00.000+00:00",
            "reason": "better", "test_digest": "0" * 64, "reference_accuracy": 0.9,
        }
    )  # fmt: skip


def _read_champion(path: Path) -> object:
    from kondense.publish.versions import read_champion, read_version
    from kondense.store.local import LocalStore
    from kondense.store.store import NotFoundError

    store = LocalStore(path.parents[2])
    champion = read_champion(store, path.parent.name)
    with contextlib.suppress(NotFoundError):
        return champion and read_version(store, path.parent.name, champion["version"])


def _checkpoints(_: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save

    position = {"format_version": 2, "epoch": 1, "step": 0, "best": float("nan"), "history": [{"epoch": 1}]}
    return [save({"w": torch.ones(3), "g": torch.ones(2, dtype=torch.uint8)}, {"position": json.dumps(position)})]


def _read_checkpoint(content: bytes, scratch: Path) -> object:
    from kondense.store.local import LocalStore
    from kondense.training.checkpoint import Checkpoint

    path = scratch / "c/000001-00000000"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(hashlib.sha256(content).digest() + content)
    return Checkpoint(LocalStore(scratch), "c").load(epochs=2)


def _search() -> Any:
    from kondense.katib.document import read_search
    from kondense.katib.spec import load

    return read_search(load(REPOSITORY / "manifests/experiments/random.yaml").document)


def _journals(scratch: Path) -> list[bytes]:
    from kondense.search.journal import Journal
    from kondense.search.run import Run

    with Journal(scratch / "made.jsonl", experiment="x") as journal:
        run = Run(_search(), journal)
        for trial in run.startable(3):
            run.record("started", name=trial.name)
            run.record("finished", name=trial.name, status="succeeded", reason="", value=0.5, metrics={"a": "0.5"})
    return [(scratch / "made.jsonl").read_bytes()]


def _read_journal(path: Path) -> object:
    from kondense.search.journal import Journal
    from kondense.search.run import Run

    with Journal(path, experiment="x") as journal:
        run = Run(_search(), journal)
        run.startable(2)
        run.outcome()
        return run.headline()


def _ledgers(_: Path) -> list[bytes]:
    from kondense.search.ledger import Ledger

    ledger = Ledger()
    for bracket in range(2):
        ledger.start_bracket()
        for number in range(3):
            ledger.add(bracket, {"x": str(number)})
        ledger.promote(bracket, 1, 1)
    return [ledger.text().encode()]


def _read_ledger(content: bytes, _: Path) -> None:
    from kondense.search.history import History
    from kondense.search.state import ExperimentState

    text = content.decode(errors="replace")
    ExperimentState(History((), text, "minimize", "x", 10, lambda: True)).ledger.text()


def _tickets(_: Path) -> list[bytes]:
    return _json({"00000001-0123456789abcdef": "etag 1", "choosing-0123456789abcdef": "etag 2"})


def _read_tickets(content: bytes, _: Path) -> None:
    from kondense.json_text import json_object
    from kondense.store import lease
    from kondense.store.store import StoreError

    class Posted:
        def __init__(self) -> None:
            self.marks = {name: str(mark) for name, mark in json_object(content, "tickets").items()}

        def post(self, ticket: str) -> None:
            self.marks[ticket] = "own"

        def posted(self) -> dict[str, str]:
            return dict(self.marks)

        def remove(self, ticket: str) -> None:
            self.marks.pop(ticket, None)

    with contextlib.suppress(StoreError), lease.hold(Posted(), "key", lease_s=30.0, wait_s=-1.0):
        pass  # or others hold it, which is right


def _listings(_: Path) -> list[bytes]:
    return [
        b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'
        b"<Prefix></Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Contents>"
        b"<Key>a/b</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag><Size>5</Size>"
        b"</Contents></ListBucketResult>",
        b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>',
    ]


def _read_listing(content: bytes, _: Path) -> object:
    import urllib3
    from kondense.store.bucket import ObjectStore
    from kondense.store.connection import Connection

    class Answers(urllib3.PoolManager):
        def urlopen(self, *_: Any, **options: Any) -> urllib3.HTTPResponse:
            status = 404 if b"<Error>" in content[:80] else 200
            body = io.BytesIO(content)
            headers = {"content-type": "application/xml", "content-length": str(len(content))}
            return urllib3.HTTPResponse(body, headers, status, preload_content=options.get("preload_content", True))

    connection = Connection("127.0.0.1:9", "key", "secret", secure=False, region="us-east-1")
    store = ObjectStore("minio://bucket", bucket="bucket", connection=connection, delays_s=())
    store.client._http = Answers()
    return [store.list(), store.exists("a/b")]


# Data


def _pictures(_: Path) -> list[bytes]:
    from PIL import Image

    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (9, 11), np.uint8))
    colour = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    clear = Image.fromarray(rng.integers(0, 256, (9, 11, 4), np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (9, 11), np.uint16))
    palette = colour.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (grey, "PNG", {}),
        (clear, "PNG", {}),
        (wide, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (colour, "JPEG", {"exif": exif}),
        (grey, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(90)]}),
        (colour, "BMP", {}),
        (grey, "PPM", {}),
        (colour, "PPM", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (wide, "TIFF", {}),
        (clear, "WEBP", {"lossless": True}),
        (colour, "WEBP", {}),
    ]
    contents = []
    for image, form, options in made:
        file = io.BytesIO()
        image.save(file, form, **options)
        contents.append(file.getvalue())
    return contents


def _read_picture(path: Path) -> None:
    from kondense.data.picture import Geometry, decode, facts

    facts(path, max_pixels=MAX_PIXELS)
    decode(path, Geometry((SIDE, SIDE), 3), max_pixels=MAX_PIXELS)


def _idx(compressed: bool) -> Callable[[Path], list[bytes]]:
    def make(_: Path) -> list[bytes]:
        array = np.arange(5 * SIDE * SIDE, dtype=np.uint8).reshape(5, SIDE, SIDE)
        content = bytes((0, 0, 8, 3)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        return [gzip.compress(content) if compressed else content]

    return make


def _read_idx(path: Path) -> object:
    from kondense.data.idx import read_idx

    return read_idx(path, 3)


def _compressed(read: Read) -> Read:
    """Return a reader of the compressed content, so that mutations get past the digest of gzip."""
    return lambda content, scratch: read(gzip.compress(content, 1), scratch)


def _batches(_: Path) -> list[bytes]:
    batch = {
        "data": np.zeros((2, 3072), np.uint8),
        "labels": [0, 1],
        "filenames": ["a.png", "b.png"],
        "batch_label": "one",
    }
    return [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]


def _read_batch(path: Path) -> object:
    from kondense.data.cifar import _batch

    return _batch(path, "labels")


def _checkpoint_files(_: Path) -> list[bytes]:
    import torch

    contents = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        file = io.BytesIO()
        torch.save({"state_dict": {"w": torch.ones(4, 3), "b": torch.zeros(3)}, "epoch": 3}, file, **options)
        contents.append(file.getvalue())
    return contents


def _read_checkpoint_file(content: bytes, _: Path) -> object:
    from kondense.train.state_dicts import read_weights, weights_for
    from torch import nn

    return weights_for("a.pt", read_weights("a.pt", content), nn.Linear(4, 3))


def _onnx_entries(_: Path) -> list[bytes]:
    metadata = {
        "format_version": 1, "classes": ["a", "b"], "shape": [1, SIDE, SIDE], "mean": [0.5], "std": [0.2],
        "network": "x", "input": "float32", "arithmetic": "float", "opset": 21, "digest": "0" * 64, "resize": [9],
        "interpolation": "bicubic",
    }  # fmt: skip
    return _json({name: json.dumps(value) for name, value in metadata.items()})


def _read_onnx_entries(content: bytes, _: Path) -> object:
    from kondense.export.metadata import parse_metadata
    from kondense.json_text import json_object

    entries = json_object(content, "entries")
    return parse_metadata({name: text if isinstance(text, str) else json.dumps(text) for name, text in entries.items()})


PARSERS = (
    Parser("JSON", "json", _onnx_entries, _any_json, 2),
    Parser("Experiment (YAML)", "text", _experiments, _written("experiment.yaml", _read_experiment), 0.2),
    Parser("metric lines", "text", _metric_lines, _read_metrics, 2),
    Parser("parameters and addresses", "json", _parameters, _read_parameters),
    Parser("model.json", "json", _descriptions, _written("model/model.json", _read_model), 0.6),
    Parser("weights.safetensors", "bytes", _weights, _written("model/weights.safetensors", _read_weights), 0.6),
    Parser("weights.kz", "bytes", _packed, _read_packed, 0.6, allowance=2**26),
    Parser("dataset.json", "json", _dataset_descriptions, _written("data/dataset.json", _read_dataset)),
    Parser("a split", "bytes", _splits, _written("data/test.safetensors", _read_split), 2),
    Parser("failed.json", "json", _failures, _written("f/failed.json", _read_failure), 2),
    Parser("evaluation.json", "json", _evaluations, _written("e/evaluation.json", _read_evaluation), 0.5),
    Parser("report.json", "json", _reports, _written("r/report.json", _read_report), 0.5),
    Parser("manifest.json", "json", _manifests, _written("s/m/manifest.json", _read_manifest)),
    Parser("champion.json", "json", _champions, _written("s/models/m/champion.json", _read_champion), 2),
    Parser("checkpoint of a run", "bytes", _checkpoints, _read_checkpoint, 2),
    Parser("journal of a search", "lines", _journals, _written("journal.jsonl", _read_journal), 0.3),
    Parser("ledger of a search", "text", _ledgers, _read_ledger, 2),
    Parser("tickets", "json", _tickets, _read_tickets, 2),
    Parser("listing of a store", "text", _listings, _read_listing, 0.5),
    Parser("pictures", "bytes", _pictures, _written("picture", _read_picture), 2, allowance=16 * MAX_PIXELS),
    Parser("idx", "bytes", _idx(False), _written("images", _read_idx), 2),
    Parser("idx.gz", "bytes", _idx(True), _written("images.gz", _read_idx)),
    Parser("idx in gzip", "bytes", _idx(False), _compressed(_written("images.gz", _read_idx))),
    Parser("CIFAR batch", "bytes", _batches, _written("batch", _read_batch), 2),
    Parser("weights of torch.save", "bytes", _checkpoint_files, _read_checkpoint_file, 1),
    Parser("metadata of ONNX files", "json", _onnx_entries, _read_onnx_entries, 2),
)
