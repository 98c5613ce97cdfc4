r"""DiT, the diffusion transformer of Peebles & Xie 2023 (arXiv 2212.09748), from the paper.

The image is cut into patches, each a token with a fixed position code. A block is
:math:`h + \alpha_1\,attention(\tilde h)`, then :math:`h + \alpha_2\,mlp(\tilde h)`, where
:math:`\tilde h = (1 + \gamma)\,norm(h) + \beta` and :math:`\alpha, \beta, \gamma` are linear in
silu of the noise embedding, starting from zero: every block starts as the identity ("adaLN-Zero").
The time step's place is taken by the noise code, in the features that the other backbones use.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.architectures.blocks import Checkpointed
from trainables.architectures.embedding import features
from trainables.architectures.labelled import Labelled
from trainables.registry import is_int, require

FREQUENCIES = 128  # half the features of the noise code

Tokens = Float[Tensor, "n _tokens width"]


def position_code(rows: int, columns: int, width: int) -> Float[Tensor, "tokens width"]:
    r"""Sines and cosines of the row's number in half the features, of the column's in the rest.

    At the frequencies :math:`10^{-4 k / (width/4)}`, k < width/4, in radians per token.
    """
    frequencies = 1e-4 ** (torch.arange(width // 4) / (width // 4))
    codes = []
    for size in (rows, columns):
        angles = torch.outer(torch.arange(size), frequencies)
        codes.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    row, column = codes[0].repeat_interleave(columns, 0), codes[1].repeat(rows, 1)
    return torch.cat([row, column], dim=1)


def start(layer: nn.Linear, *, zero: bool = False) -> nn.Linear:
    """`layer` with Xavier-uniform or zero weights and zero biases."""
    nn.init.zeros_(layer.weight) if zero else nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulate(norm: nn.Module, h: Tokens, gamma: Tokens, beta: Tokens) -> Tokens:
    """(1 + gamma) norm(h) + beta."""
    return torch.addcmul(beta, norm(h), 1 + gamma)


class Block(nn.Module):
    """Attention, then a perceptron of one hidden layer, each scaled, shifted and gated."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        """`width` numbers per token, in `heads`; `hidden` units of the perceptron."""
        super().__init__()
        self.heads = heads
        self.modulation = start(nn.Linear(width, 6 * width), zero=True)
        self.norm0 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv = start(nn.Linear(width, 3 * width))
        self.out = start(nn.Linear(width, width))
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.up = start(nn.Linear(width, hidden))
        self.down = start(nn.Linear(hidden, width))

    def forward(self, h: Tokens, e: Float[Tensor, "n width"]) -> Tokens:
        """The block's output; `e` is silu of the embedding."""
        beta0, gamma0, alpha0, beta1, gamma1, alpha1 = self.modulation(e)[:, None].chunk(6, dim=2)
        h = h + alpha0 * self.attend(modulate(self.norm0, h, gamma0, beta0))
        hidden = F.gelu(self.up(modulate(self.norm1, h, gamma1, beta1)), approximate="tanh")
        return h + alpha1 * self.down(hidden)

    def attend(self, h: Tokens) -> Tokens:
        """softmax(q k / sqrt(size of a head)) v over the tokens, head by head, then linear."""
        n, tokens, width = h.shape
        q, k, v = self.qkv(h).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, width))


class DiT(Checkpointed, Labelled):
    """Patches, blocks, patches."""

    def __init__(
        self,
        width: int,
        shape: tuple[int, int, int],
        depth: int,
        patch: int,
        heads: int,
        ratio: int,
    ) -> None:
        """See `build`; `ratio`: hidden units of a perceptron in units of the width."""
        super().__init__(width)
        c, h, w = shape
        self.patch, self.grid = patch, (h // patch, w // patch)
        self.input = start(nn.Linear(c * patch**2, width))
        # No part of the weights: it is known from the options.
        self.register_buffer("position", position_code(*self.grid, width), persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        for layer in (self.embed[0], self.embed[2]):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.blocks = nn.ModuleList(Block(width, heads, ratio * width) for _ in range(depth))
        self.modulation = start(nn.Linear(width, 2 * width), zero=True)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.output = start(nn.Linear(width, c * patch**2), zero=True)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        c_noise: Float[Tensor, " n"],
        label: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The backbone's output for scaled noisy images `x` at noise codes `c_noise`."""
        e = F.silu(self.told(self.embed(features(c_noise, FREQUENCIES)), label))
        patches = F.unfold(x, self.patch, stride=self.patch).mT
        h = self.input(patches) + self.position
        for block in self.blocks:
            h = self.through(block, h, e)
        beta, gamma = self.modulation(e)[:, None].chunk(2, dim=2)
        patches = self.output(modulate(self.norm, h, gamma, beta)).mT
        return F.fold(patches, x.shape[2:], self.patch, stride=self.patch)


def build(
    width: int,
    shape: tuple[int, int, int],
    *,
    depth: int = 12,
    patch: int = 2,
    heads: int | None = None,
    ratio: int = 4,
) -> nn.Module:
    """DiT (Peebles & Xie 2023) for images of `shape` (c, h, w).

    `width`: numbers per token, a multiple of 4. `depth`: blocks. `patch`: side of a patch in
    pixels. `heads` of attention; None = one per 64 numbers of a token. `ratio`: hidden units of
    the perceptrons in units of the width. The paper's S, B, L and XL have width 384, 768, 1024
    and 1152, depth 12, 12, 24 and 28, and 6, 12, 16 and 16 heads. Raises ValueError naming the
    option, its value and what is allowed.
    """
    owner, (_, h, w) = "dit", shape
    fours = is_int(width, 4) and width % 4 == 0
    require(fours, owner, "width", width, "a multiple of 4")
    for option, value in (("depth", depth), ("patch", patch), ("ratio", ratio)):
        require(is_int(value, 1), owner, option, value, "a whole number of at least 1")
    fits = h % patch == 0 and w % patch == 0
    require(fits, owner, "patch", patch, f"a divisor of the sides of {h} x {w} pixels")
    if heads is None:
        heads = next(n for n in range(max(1, width // 64), 0, -1) if width % n == 0)
    divides = is_int(heads, 1) and width % heads == 0
    require(divides, owner, "heads", heads, f"a divisor of the width {width}")
    return DiT(width, tuple(shape), depth, patch, heads, ratio)
