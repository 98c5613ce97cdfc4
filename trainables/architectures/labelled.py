"""A backbone that is told a label of the image beside the noise level.

Each label has an image of its own, learned from zero, that is added to the backbone's input. Where
the first layer is linear this is a learned vector per label in the first hidden layer, the usual
class embedding; it fits every backbone alike. The width's number of parameters leaves it out.
"""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from trainables.registry import is_int, require


class Labelled(nn.Module):
    r"""F(x, c, label) = F(x + e_label, c); at first e = 0, the backbone without labels."""

    def __init__(self, backbone: nn.Module, labels: int, shape: tuple[int, int, int]) -> None:
        """`labels` >= 1 is their number; `shape` (c, h, w) that of an image."""
        super().__init__()
        require(is_int(labels, 1), "Labelled", "labels", labels, "a whole number of at least 1")
        c, h, w = shape
        self.backbone = backbone
        self.table = nn.Embedding(labels, c * h * w)
        nn.init.zeros_(self.table.weight)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        c_noise: Float[Tensor, " n"],
        label: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The backbone's output; ValueError where no label is given."""
        if label is None:
            raise ValueError("This denoiser was trained with labels: it needs one per image.")
        return self.backbone(x + self.table(label).view_as(x), c_noise)
