"""Import a model that was trained elsewhere."""

import dataclasses

from torch import Tensor

from kondense.artifacts.model import Model, load_model
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.networks.build import NetworkSpec, build
from kondense.networks.names import weights_of, without_weights
from kondense.preprocessing import Preprocessing
from kondense.scratch import scratch_directory
from kondense.store.open import open_store
from kondense.store.store import NotFoundError
from kondense.train.published import published_weights
from kondense.train.state_dicts import check_fit, fill, fit_of, is_weights, read_weights, weights_for


@dataclasses.dataclass(frozen=True)
class Imported:
    """An imported model, and what the images went through that it was trained with, as far as it is known."""

    model: Model
    preprocessing: Preprocessing | None = None


def import_model(uri: str, network: NetworkSpec, *, replace_head: bool = False, seed: int = 0) -> Imported:
    """Return the model at ``uri``, or with the published weights that the network's name asks for.

    Args:
        uri: a model artifact's directory, or a file ``*.safetensors``, ``*.pt``, ``*.pth`` or ``*.ckpt`` that holds
            weights of ``network``; a path, minio:// or s3://. Empty: the published weights.
        network: the network of the weights; an artifact has its own.
        replace_head: give the network a new last layer for the classes of ``network``.
        seed: of the new layer's weights.

    Raises:
        InputError: there is neither, or the weights do not fit the network.
        ArtifactError: the artifact is damaged.
    """
    plain = NetworkSpec(without_weights(network.name), network.arguments)
    parent, _, name = uri.rstrip("/").rpartition("/")
    if weights_of(network.name):
        if uri:
            raise InputError(f"import_uri must be empty for a network with published weights, but got {uri!r}.")
        channels, size = network.arguments["channels"], network.arguments["image_size"]
        side = size if isinstance(size, int) else max(size)
        state, known = published_weights(network.name, channels, side)
        return Imported(_filled(network.name, state, plain, replace_head, seed), known)
    if is_weights(name):
        try:
            content = open_store(parent or ("/" if uri.startswith("/") else ".")).read(name)
        except NotFoundError:
            raise InputError(f"import_uri must name a file of weights, but there is no {uri}.") from None
        state = weights_for(uri, read_weights(uri, content), build(plain))
        return Imported(_filled(uri, state, plain, replace_head, seed))
    store = open_store(uri)
    if not store.exists("model.json"):
        raise InputError(
            "import_uri must be a model artifact (a directory with model.json) or weights in a .safetensors, .pt, .pth"
            f" or .ckpt file, but got {uri}."
        )
    with scratch_directory("import") as scratch:
        store.download_artifact(scratch)
        model = load_model(scratch)
    preprocessing = model.images.preprocessing if model.images else None
    if replace_head:
        own = {**model.network.arguments, "classes": network.arguments["classes"]}
        spec = NetworkSpec(model.network.name, own)
        model = _filled(uri, model.module.state_dict(), spec, replace_head, seed)
    return Imported(model, preprocessing)


def _filled(place: str, state: dict[str, Tensor], network: NetworkSpec, replace_head: bool, seed: int) -> Model:
    """Return the network with a state dict, except for its head if that is to be new."""
    module = build(network, seed=seed)
    head = head_names(network)
    if replace_head:
        if not head:
            raise InputError(f"replace_head needs a layer that depends on the classes, but {network.name} has none.")
        own = module.state_dict()
        state = {**{name: tensor for name, tensor in state.items() if name not in head}, **{n: own[n] for n in head}}
        LOG.info(f"new for {network.arguments['classes']} classes: {', '.join(sorted(head))}")
    fit = fit_of(state, module)
    if fit.unlike and set(fit.unlike) <= head and not (fit.missing or fit.unexpected):
        name = fit.unlike[0]
        given, own_shape = list(state[name].shape), list(module.state_dict()[name].shape)
        if way := _same_numbers(name, given, own_shape):
            raise InputError(
                f"{place} must hold the weights of {network.name}, but the last layer's {name} is {given} instead of"
                f" {own_shape}: {way}, or give it a new head with replace_head=true."
            )
        raise InputError(
            f"{place} must be for {network.arguments['classes']} classes, but {name} is {given}; give"
            " it a new head with replace_head=true."
        )
    if fit.missing and set(fit.missing) <= head and not (fit.unlike or fit.unexpected):
        raise InputError(
            f"{place} must hold the weights of {network.name}, but lacks its last layer ({', '.join(fit.missing)});"
            " give it a new one with replace_head=true."
        )
    check_fit(place, network.name, state, module)
    fill(module, state)
    return Model(module.eval(), network)


def _same_numbers(name: str, given: list[int], own: list[int]) -> str:
    """Return how weights of another shape become those of the network, in words; "" if they have other numbers."""
    if [size for size in given if size > 1] == [size for size in own if size > 1]:
        return f"another kind of layer made them, and {name}.reshape({', '.join(map(str, own))}) is what it takes"
    if len(given) > 1 and given[::-1] == own:
        return f"it is transposed, and {name}.T is what it takes"
    if len(given) > 1 and [given[1], given[0], *given[2:]] == own:
        return f"it is that of a transposed convolution, and {name}.transpose(0, 1) is what it takes"
    return ""


def head_names(network: NetworkSpec) -> set[str]:
    """Return the names of the tensors whose shapes depend on the number of classes."""
    classes = int(network.arguments["classes"])
    one, other = (
        build(NetworkSpec(network.name, {**network.arguments, "classes": count})).state_dict()
        for count in (classes, classes + 1)
    )
    return {name for name, tensor in one.items() if name not in other or other[name].shape != tensor.shape}
