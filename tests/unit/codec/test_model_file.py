"""weights.kz of a whole model."""

import dataclasses

from kondense.artifacts.images import Images
from kondense.codec.model_file import pack_model, unpack_model

from tests.support.quantize_makers import make_dataset, make_model


def test_the_file_is_as_small_whatever_the_model_knows_of_its_images() -> None:
    dataset = make_dataset(size=16)
    model = make_model("lenet300", dataset, steps=1)
    packed = pack_model(model)
    assert pack_model(dataclasses.replace(model, images=Images.of(dataset))) == packed
    assert unpack_model(packed).network == model.network
