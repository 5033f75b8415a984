"""SiLU as the product that it is, so that its sigmoid has an output that can be quantized."""

from torch import Tensor, nn


class SigmoidProduct(nn.Module):
    """An ``nn.SiLU`` whose sigmoid is a module."""

    def __init__(self, _silu: nn.Module | None = None) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, values: Tensor) -> Tensor:
        """Return the values times their sigmoids."""
        return values * self.sigmoid(values)


def is_silu(module: nn.Module) -> bool:
    """Return whether a module is a SiLU that a SigmoidProduct can stand for."""
    return type(module) is nn.SiLU
