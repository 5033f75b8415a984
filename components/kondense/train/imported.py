"""Import a model that was trained elsewhere."""

import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from kondense.artifacts.model import Model, load_model
from kondense.errors import InputError
from kondense.networks.build import NetworkSpec, build
from kondense.store.open import open_store


def import_model(uri: str, network: NetworkSpec) -> Model:
    """Return the model at ``uri``.

    Args:
        uri: a model artifact's directory, or a file ``*.safetensors`` that holds the state dict of
            ``network``; a path, minio:// or s3://.
        network: the network of a state dict; an artifact has its own.

    Raises:
        InputError: there is neither, or the weights do not fit the network.
        ArtifactError: the artifact is damaged.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    if name.endswith(".safetensors"):
        module = build(network)
        try:
            module.load_state_dict(load(open_store(parent or ".").read(name)), strict=True)
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"{uri} must hold the state dict of {network.name}, but: {error}") from None
        return Model(module.eval(), network)
    store = open_store(uri)
    if not store.exists("model.json"):
        raise InputError(
            f"import_uri must be a model artifact (a directory with model.json) or a .safetensors file, but got {uri}."
        )
    with tempfile.TemporaryDirectory() as scratch:
        store.download_artifact(Path(scratch))
        return load_model(Path(scratch))
