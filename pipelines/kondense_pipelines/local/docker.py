"""The container function for kfp.local's DockerRunner.

kfp 2.17 starts containers with ``auto_remove`` and treats a container that no longer exists as a success, so a failed
step can count as successful (kubeflow/pipelines#13332). This function removes the container after it has read the exit
code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense.errors import InputError


def image_id(image: str) -> str:
    """Return the id of a local image, which identifies its code.

    Raises:
        InputError: there is no Docker Engine, or it has no such image.
    """
    import docker

    try:
        client = docker.from_env()
        try:
            return str(client.images.get(image).id)
        finally:
            client.close()
    except docker.errors.ImageNotFound:
        raise InputError(
            f"image {image!r} must be on this machine: build it, or set KONDENSE_STAGE_IMAGE to another one."
        ) from None
    except docker.errors.DockerException as error:
        raise InputError(f"--docker needs a running Docker Engine, but: {error}.") from None


def container_function(
    write_line: Callable[[str], None],
    exited: Callable[[int], None],
    mounts: Sequence[Path],
    settled: Callable[[int, Sequence[str], Mapping[str, str]], int],
    attempts: Callable[[Callable[[], int], Sequence[str]], int] = lambda once, command: once(),
) -> Callable[..., int]:
    """Return a replacement for ``kfp.local.docker_task_handler.run_docker_container``.

    Args:
        write_line: called with each line of output.
        exited: called with the exit code.
        mounts: further paths to mount, read-only, at the same path in the container.
        settled: called with the exit code, the command and the variables; returns the code that counts.
        attempts: called with what runs one container, and the command; calls it as often as necessary and returns the
            last exit code.
    """

    def run_docker_container(
        client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **arguments: Any
    ) -> int:
        arguments.pop("auto_remove", None)
        volumes = {**{str(path): {"bind": str(path), "mode": "ro"} for path in mounts}, **volumes}

        def once() -> int:
            container = client.containers.create(image=image, command=command, volumes=volumes, **arguments)
            try:
                container.start()
                for chunk in lines(container.logs(stream=True, follow=True)):
                    write_line(chunk)
                return int(container.wait()["StatusCode"])
            finally:
                container.remove(force=True)

        code = attempts(once, command)
        exited(code)
        return settled(code, command, dict(arguments.get("environment") or {}))

    return run_docker_container


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield complete lines of text from chunks of bytes."""
    rest = b""
    for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
