r"""An affine map with no knowledge of the noise level: the linear denoiser of the theory.

F(x, c) = W x + b, or W = U V with `width` columns in U: the width is the rank. At a width of d
or more it is one full matrix. At one noise level, unpreconditioned, its loss is least at the
Wiener filter (arXiv 2410.24060, theorem 1), which gradient descent on the full matrix reaches
mode by mode (arXiv 2503.03206); of rank r the best one keeps the r largest modes. Over many noise
levels it is one affine map for all, as the noise code is not looked at.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn

from trainables.registry import is_int, require


class Linear(nn.Module):
    """F(x, c) = U V x + b of rank `width`, or W x + b from `width` = d on."""

    def __init__(self, width: int, dim: int) -> None:
        """Starts as the zero function.

        Of a product only U starts at zero: at U = V = 0 neither factor has a gradient, and
        gradient descent would never leave.
        """
        super().__init__()
        self.inner = nn.Linear(dim, width, bias=False) if width < dim else nn.Identity()
        self.output = nn.Linear(min(width, dim), dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, x: Float[Tensor, "n c h w"], c_noise: Float[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The backbone's output for scaled noisy images `x`; `c_noise` is not looked at."""
        return self.output(self.inner(x.flatten(1))).view_as(x)


def build(width: int, shape: tuple[int, int, int]) -> nn.Module:
    """An affine map of rank `width`, full from d = c h w on, for images of `shape` (c, h, w).

    Raises ValueError if `width` is not a whole number from 1.
    """
    require(is_int(width, 1), "linear", "width", width, "a whole number of at least 1")
    return Linear(width, math.prod(shape))
