"""Networks of timm and of other distributions."""

import sys
from pathlib import Path

import pytest
from kondense.errors import InputError
from kondense.networks.allowed import check_allowed, is_imported
from kondense.networks.build import NetworkSpec, build, check_network

from tests.support.distribution import make_distribution, run_python


def test_a_network_of_timm_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="network 'timm:resnet18' needs timm: pip install timm"):
        check_network("timm:resnet18")
    assert not is_imported("timm:resnet18")
    check_allowed("timm:resnet18")


def test_networks_of_timm() -> None:
    pytest.importorskip("timm")
    module = build(NetworkSpec("timm:resnet18", {"classes": 7, "channels": 1, "image_size": 28}))
    assert module.get_parameter("fc.weight").shape == (7, 512)
    for name in ("hf-hub:timm/resnet18", "no_such_network"):
        with pytest.raises(InputError, match="timm's network must be one of"):
            check_network(f"timm:{name}")


def test_networks_registered_by_entry_points(tmp_path: Path) -> None:
    theirs = """
        from torch import nn

        def tiny(classes: int, channels: int, image_size: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
        """
    points = {"tiny": "theirs:tiny", "failing": "absent:net"}
    make_distribution(tmp_path, {"theirs.py": theirs}, {"kondense.networks": points})
    program = """
        import sys
        from kondense.errors import InputError
        from kondense.networks.allowed import check_allowed
        from kondense.networks.names import check_form
        check_form("tiny")
        check_allowed("tiny")
        assert "torch" not in sys.modules
        from kondense.networks.build import NetworkSpec, build, check_network
        print(build(NetworkSpec("tiny", {"classes": 3, "channels": 1, "image_size": 4}))[1].weight.shape)
        for name in ("failing", "other"):
            try:
                check_network(name)
            except InputError as error:
                print(error)
        """
    first, second, third = run_python(program, tmp_path)
    assert first == "torch.Size([3, 16])"
    assert second.startswith("kondense.networks: failing = absent:net cannot be used: ModuleNotFoundError")
    assert "failing, tiny, torchvision:NAME" in third
