"""The container function for kfp.local's DockerRunner.

kfp 2.17 starts containers with ``auto_remove`` and takes a container that has already gone for a
success, so a failed step can pass as a good one (kubeflow/pipelines#13332). This one removes the
container itself, after it has asked for the exit code.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense.errors import InputError


def image_id(image: str) -> str:
    """Return the id of a local image, which names the code that is in it.

    Raises:
        ValueError: there is no Docker Engine, or it has no such image.
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
            f"image {image!r} must be on this machine: build it, or set KONDENSE_STAGE_IMAGE to one that is."
        ) from None
    except docker.errors.DockerException as error:
        raise InputError(f"--docker needs a Docker Engine that answers, but: {error}.") from None


def container_function(
    write_line: Callable[[str], None], exited: Callable[[int], None], mounts: Sequence[Path]
) -> Callable[..., int]:
    """Return a replacement for ``kfp.local.docker_task_handler.run_docker_container``.

    Args:
        write_line: takes each line of output.
        exited: takes the exit code.
        mounts: further paths that the container sees, read-only and at the same place.
    """

    def run_docker_container(
        client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **arguments: Any
    ) -> int:
        arguments.pop("auto_remove", None)
        further = {str(path): {"bind": str(path), "mode": "ro"} for path in mounts}
        container = client.containers.create(image=image, command=command, volumes={**further, **volumes}, **arguments)
        try:
            container.start()
            for chunk in lines(container.logs(stream=True, follow=True)):
                write_line(chunk)
            code = int(container.wait()["StatusCode"])
        finally:
            container.remove(force=True)
        exited(code)
        return code

    return run_docker_container


def lines(chunks: Any) -> Any:
    """Yield whole lines of text from chunks of bytes."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
