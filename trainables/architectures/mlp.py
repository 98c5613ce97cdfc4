"""A residual multilayer perceptron on flattened images: the backbone for small images.

Capacity must not be confounded with rank: the output is a linear image of `width` numbers, so a
width below the dimension d = c h w would confine it to a subspace, and is refused.
"""

import math

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.architectures.embedding import features
from trainables.architectures.labelled import Labelled
from trainables.registry import is_int, require

FREQUENCIES = 16


class MLP(Labelled):
    r"""F(x, c) = out(silu(h_L)), h_0 = in(x) + embed(c), h_l = h_{l-1} + block_l(h_{l-1}).

    A label's vector is part of embed(c).
    """

    def __init__(self, width: int, dim: int, depth: int) -> None:
        """`width` >= `dim` units in each of 1 + 2 `depth` hidden layers."""
        super().__init__(width)
        self.input = nn.Linear(dim, width)
        self.embed = nn.Linear(2 * FREQUENCIES, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.output = nn.Linear(width, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        c_noise: Float[Tensor, " n"],
        label: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The backbone's output for scaled noisy images `x` at noise codes `c_noise`."""
        embedding = self.told(self.embed(features(c_noise, FREQUENCIES)), label)
        h = self.input(x.flatten(1)) + embedding
        for block in self.blocks:
            h = block(h)
        return self.output(F.silu(h)).view_as(x)


class Block(nn.Module):
    """h + linear(silu(linear(h)))."""

    def __init__(self, width: int) -> None:
        """Two layers of `width` x `width`."""
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, h: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """One residual step."""
        return h + self.second(F.silu(self.first(h)))


def build(width: int, shape: tuple[int, int, int], *, depth: int = 3) -> nn.Module:
    """An MLP of `depth` residual blocks for images of `shape` (c, h, w).

    Raises ValueError if `width` is below c h w or `depth` is not a whole number from 1.
    """
    dim = math.prod(shape)
    require(is_int(depth, 1), "mlp", "depth", depth, "a whole number of at least 1")
    allowed = f"a whole number of at least d = {dim} (the output would lie in a subspace)"
    require(is_int(width, dim), "mlp", "width", width, allowed)
    return MLP(width, dim, depth)
