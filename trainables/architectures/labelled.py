"""Backbones that can be told a label of the image beside the noise level.

Each label has a vector of its own, learned from zero, that is added to the embedding of the noise
level: the class embedding of Karras et al. 2022 (EDM, arXiv 2206.00364). The number of parameters
by width leaves it out.
"""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from trainables.registry import is_int, require


class Labelled(nn.Module):
    """A backbone whose embedding has `size` numbers; without `tell` it knows no labels."""

    def __init__(self, size: int) -> None:
        """No labels yet."""
        super().__init__()
        self.size = size
        self.table: nn.Embedding | None = None

    def tell(self, labels: int) -> None:
        """From now on one of `labels` >= 1 labels is given with every image."""
        require(is_int(labels, 1), "Labelled", "labels", labels, "a whole number of at least 1")
        self.table = nn.Embedding(labels, self.size)
        nn.init.zeros_(self.table.weight)

    def told(
        self, embedding: Float[Tensor, "n size"], label: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n size"]:
        """The embedding with the labels' vectors; ValueError for labels missing or unknown."""
        if (label is None) != (self.table is None):
            wants = "no labels" if self.table is None else "labels: it needs one per image"
            raise ValueError(f"This denoiser was trained with {wants}.")
        return embedding if self.table is None else embedding + self.table(label)


def tell(backbone: nn.Module, labels: int) -> None:
    """Make `backbone`, or the part of it that can be, one that is told labels; else ValueError."""
    part = next((part for part in backbone.modules() if isinstance(part, Labelled)), None)
    if part is None:
        raise ValueError(
            f"`labels`: a backbone of kind {type(backbone).__name__} cannot be told any; wanted "
            "'none'."
        )
    part.tell(labels)
