"""Means over positions, which the exporter writes as ReduceMean."""

import onnx
import pytest
import torch
from kondense.export.means import pool_globally
from kondense.export.onnx import translate_module
from kondense.export.verification import run
from torch import Tensor, nn


class Mean(nn.Module):
    """The mean over ``axes``."""

    def __init__(self, axes: tuple[int, ...], *, keep: bool) -> None:
        super().__init__()
        self.axes, self.keep = axes, keep

    def forward(self, values: Tensor) -> Tensor:
        return values.exp().mean(self.axes, keepdim=self.keep)


@pytest.mark.parametrize(
    ("module", "shape", "operator"),
    [
        (Mean((2, 3), keep=True), (2, 3, 5, 7), "GlobalAveragePool"),
        (Mean((-1, -2), keep=True), (2, 3, 5, 7), "GlobalAveragePool"),
        (nn.AdaptiveAvgPool2d(1), (2, 3, 5, 7), "GlobalAveragePool"),
        (Mean((2, 3), keep=False), (2, 3, 5, 7), "ReduceMean"),
        (Mean((1, 2), keep=True), (2, 3, 5, 7), "ReduceMean"),
        (Mean((2, 3), keep=True), (2, 3, 5, 7, 2), "ReduceMean"),
        (Mean((-1, -2), keep=True), (2, 3, 5), "ReduceMean"),
    ],
)
def test_only_means_of_images_over_all_positions_become_pools(
    module: nn.Module, shape: tuple[int, ...], operator: str
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    proto = translate_module(module.eval(), values)
    assert proto is not None
    pool_globally(proto)
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in proto.graph.node][-1] == operator
    torch.testing.assert_close(run(proto, values), module(values), rtol=1e-6, atol=1e-6)
