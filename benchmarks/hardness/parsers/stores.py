"""Stores: manifests, champions, checkpoints, tickets, listings."""

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from benchmarks.hardness.parsers.parser import Parser, as_json, written


def _manifests(scratch: Path) -> list[bytes]:
    directory = scratch / "s/m"
    (directory / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (directory / name).write_bytes(b"x")
    files = dict.fromkeys(("a", "deep/b"), hashlib.sha256(b"x").hexdigest())
    return as_json({"format_version": 1, "created": "2024-01-01T00:00:00.000+00:00", "files": files})


def _read_manifest(path: Path) -> object:
    from kondense.store.local import LocalStore

    return LocalStore(path.parents[1]).download_directory("m", path.parents[2] / "pulled")


def _champions(_: Path) -> list[bytes]:
    return as_json(
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

    position = {"format_version": 2, "epoch": 1, "step": 0, "best": float("nan"), "begun": {"3": 0}}
    position["curve"] = [{"epoch": 1.0, "train_loss": 0.5, "validation_accuracy": 0.9, "learning_rate": 0.1}]
    return [save({"w": torch.ones(3), "g": torch.ones(2, dtype=torch.uint8)}, {"position": json.dumps(position)})]


def _read_checkpoint(content: bytes, scratch: Path) -> object:
    from kondense.store.local import LocalStore
    from kondense.training.checkpoint import Checkpoint

    path = scratch / "c/000001-00000000"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(hashlib.sha256(content).digest() + content)
    return Checkpoint(LocalStore(scratch), "c").load(epochs=2)


def _tickets(_: Path) -> list[bytes]:
    return as_json({"00000001-0123456789abcdef": "etag 1", "choosing-0123456789abcdef": "etag 2"})


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
            headers = {"content-type": "application/xml", "content-length": str(len(content)), "etag": '"x"'}
            return urllib3.HTTPResponse(body, headers, status, preload_content=options.get("preload_content", True))

    connection = Connection("127.0.0.1:9", "key", "secret", secure=False, region="us-east-1")
    store = ObjectStore("minio://bucket", bucket="bucket", connection=connection, delays_s=())
    store.client._http = Answers()
    return [store.list(), store.exists("a/b")]


PARSERS = (
    Parser("manifest.json", "json", _manifests, written("s/m/manifest.json", _read_manifest)),
    Parser("champion.json", "json", _champions, written("s/models/m/champion.json", _read_champion), 2),
    Parser("checkpoint of a run", "safetensors", _checkpoints, _read_checkpoint, 2),
    Parser("tickets", "json", _tickets, _read_tickets, 2),
    Parser("listing of a store", "text", _listings, _read_listing, 0.5),
)
