r"""The denoising loss on training and on held-out images at fixed noise levels, and their gap.

:math:`E|D(x+\sigma\epsilon)-x|^2/d`, unweighted, with the same noise on both sides (arXiv:
2310.02557, 2505.17638). Training points repeat to as many inputs as there are held-out images.
"""

import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.estimates import named_mean
from analyses.evaluations import Rows, Size, of_laws
from analyses.labels import Label, dataset, stack
from analyses.specimen import Specimen, Subset

__all__ = ["loss", "measure", "reference", "rows"]

ORACLES = ("gaussian", "gaussian_pool", "kappa", "empirical")
LABELS = {
    "train_loss": Label("denoising error per pixel on training points", ("sigma",), "pixel2"),
    "heldout_loss": Label("denoising error per pixel on held-out images", ("sigma",), "pixel2"),
    "generalization_gap": Label(
        "held-out minus training denoising error, same noise", ("sigma",), "pixel2"
    ),
}


def loss(out: Float[Tensor, "n d"], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """|D(y) - x|^2 / d by row."""
    return (out - x).square().mean(1)


def rows(size: Size) -> Rows:
    """Evaluations: the first draw of both laws."""
    return of_laws(size, ("train", "heldout"))


def measure(specimen: Specimen) -> xr.Dataset:
    """Training loss, held-out loss and their paired difference."""
    cells = []
    for sigma in specimen.sigmas:
        losses = {}
        for law in ("train", "heldout"):
            x, _, out = specimen.evaluate(law, sigma)
            losses[law] = loss(out[0], x)
        train, heldout = losses["train"], losses["heldout"]
        points = specimen.n_points("train")
        cells.append(
            named_mean("train_loss", train, points)
            | named_mean("heldout_loss", heldout, len(heldout))
            | named_mean("generalization_gap", heldout - train, points)
        )
    return dataset(specimen.sigmas, stack(cells), LABELS)


def reference(subset: Subset) -> xr.Dataset:
    """Held-out loss of the oracles on the same inputs."""
    cells = []
    for sigma in subset.sigmas:
        x, _ = subset.inputs("heldout", sigma)
        cell = {}
        for name in ORACLES:
            out = subset.reference(name, "heldout", sigma)[0]
            cell |= named_mean(f"heldout_loss_{name}", loss(out, x), len(x))
        cells.append(cell)
    labels = {
        f"heldout_loss_{name}": Label(
            f"denoising error per pixel on held-out images of the {name} oracle",
            ("sigma",),
            "pixel2",
        )
        for name in ORACLES
    }
    return dataset(subset.sigmas, stack(cells), labels)
