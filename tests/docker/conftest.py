"""The two images, built from this working tree on the Docker Engine of this machine.

BASE_IMAGE names the base, as for `make images`. Where none can be pulled, a Debian base is made by debootstrap (as
root). BUILD_OPTIONS is passed on to `docker build`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

docker = pytest.importorskip("docker")

ROOT = Path(__file__).parents[2]
TAG = "test"
PULLED = "python:3.11-slim-bookworm"
MADE = "kondense/debian:bookworm"
TIMEOUT_S = 1800


def call(*command: str, **environment: str) -> str:
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-1500:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    try:
        client = docker.from_env(timeout=TIMEOUT_S)
        client.ping()
    except docker.errors.DockerException as error:
        pytest.fail(f"these tests need a Docker Engine that answers (DOCKER_HOST): {error}", pytrace=False)
    yield client
    client.close()


@pytest.fixture(scope="session")
def base_image(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    if named := os.environ.get("BASE_IMAGE"):
        return named
    for image in (PULLED, MADE):
        try:
            engine.images.get(image)
        except docker.errors.ImageNotFound:
            continue
        return image
    try:
        engine.images.pull(PULLED)
    except docker.errors.APIError:
        if not shutil.which("debootstrap"):
            pytest.fail(f"{PULLED} cannot be pulled: name a base by BASE_IMAGE, or install debootstrap.", pytrace=False)
        directory = tmp_path_factory.mktemp("debian")
        call("debootstrap", "--variant=minbase", "bookworm", str(directory / "root"))
        archive = directory / "root.tar"
        call("tar", "--directory", str(directory / "root"), "--create", "--file", str(archive), ".")
        repository, _, tag = MADE.partition(":")
        engine.api.import_image(str(archive), repository=repository, tag=tag)
        return MADE
    return PULLED


def build(name: str, base_image: str) -> str:
    options = os.environ.get("BUILD_OPTIONS", "--network host")
    if bundle := os.environ.get("SSL_CERT_FILE"):
        options += f" --secret id=ca,src={bundle}"
    arguments = [f"TAG={TAG}", "REVISION=0123456789ab", f"BASE_IMAGE={base_image}", f"BUILD_OPTIONS={options}"]
    call("make", f"image-{name}", *arguments)
    return f"kondense/{name}-python:{TAG}"


@pytest.fixture(scope="session")
def suggestion_image(base_image: str) -> str:
    return build("suggestion", base_image)


@pytest.fixture(scope="session")
def stage_image(base_image: str) -> str:
    return build("stage", base_image)


# As the manifests run every container: no root, nothing writable but /tmp, no capability.
RESTRICTED = {
    "user": "10001:10001",
    "read_only": True,
    "tmpfs": {"/tmp": "size=512m,mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
