"""The container function, against a stand-in for the Docker Engine."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense_pipelines.local.docker import container_function, lines


class Container:
    """A container that prints and ends with a code; it remembers whether it was removed."""

    def __init__(self, code: int) -> None:
        self.code, self.removed = code, False

    def start(self) -> None:
        pass

    def logs(self, *, stream: bool, follow: bool) -> Iterator[bytes]:
        assert stream and follow
        yield b"epoch 1/2 train"
        yield b"_loss=0.5\nepoch 2/2"

    def wait(self) -> dict[str, int]:
        assert not self.removed
        return {"StatusCode": self.code}

    def remove(self, *, force: bool) -> None:
        self.removed = force


class Client:
    """The part of docker's client that is used."""

    def __init__(self, container: Container) -> None:
        self.containers = self
        self.container = container
        self.arguments: dict[str, Any] = {}

    def create(self, **arguments: Any) -> Container:
        self.arguments = arguments
        return self.container


def test_the_exit_code_of_a_failed_container_is_not_lost() -> None:
    client, seen, codes, settled = Client(Container(3)), [], [], []

    def settle(code: int, command: Sequence[str], variables: Mapping[str, str]) -> int:
        settled.append((code, command, variables))
        return code

    function = container_function(seen.append, codes.append, [Path("/data")], settle)
    arguments = {"volumes": {"/runs": {"bind": "/runs", "mode": "rw"}}, "auto_remove": True, "user": "1:1"}
    assert function(client=client, image="stage", command=["sh"], **arguments) == 3
    assert codes == [3] and settled == [(3, ["sh"], {})]
    assert client.container.removed
    assert seen == ["epoch 1/2 train_loss=0.5", "epoch 2/2"]
    assert "auto_remove" not in client.arguments and client.arguments["user"] == "1:1"
    assert client.arguments["volumes"] == {
        "/data": {"bind": "/data", "mode": "ro"},
        "/runs": {"bind": "/runs", "mode": "rw"},
    }


def test_lines_are_put_together_from_any_chunks() -> None:
    assert list(lines([b"a", b"b\nc\n\n", b"\xff"])) == ["ab", "c", "", "�"]
