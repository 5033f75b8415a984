"""The stubs are Katib's own, and come without the package around them."""

import subprocess
import sys

import pytest

ALONE = """
import sys
from kondense.suggestion import server
from kondense.katib.api import messages
loaded = {"kubernetes", "kubeflow.katib", "kubeflow.training", "torch", "scipy", "kfp", "yaml"} & set(sys.modules)
assert not loaded, loaded
assert messages.DESCRIPTOR.package == "api.v1.beta1"
"""
BESIDE_THE_SDK = """
from kondense.katib.api import messages
import kubeflow.katib
from kubeflow.katib import katib_api_pb2
assert katib_api_pb2.GetSuggestionsRequest is messages.GetSuggestionsRequest
assert hasattr(kubeflow.katib, "KatibClient")
"""


@pytest.mark.parametrize("code", [ALONE, BESIDE_THE_SDK], ids=["alone", "beside the SDK"])
def test_what_an_import_loads(code):
    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], check=True)
