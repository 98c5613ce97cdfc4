r"""Outputs of a denoiser, for pictures and for pairs of cells.

:math:`D(x + \sigma\epsilon; \sigma)` on held-out images x and :math:`D(\sigma\epsilon; \sigma)` on
pure noise. A denoiser that has memorized retrieves training images from both, one near the
Gaussian gives what :math:`D_G` gives (arXiv:2410.24060, figures 5, 17 and 18). Clean images and
noise are the same for all cells.
"""

import torch
import xarray as xr
from torch import Tensor

from analyses.evaluations import Rows, Size, of_laws
from analyses.labels import Label, dataset, suffixed, tagged
from analyses.specimen import Specimen, Subset

__all__ = ["SHOWN", "measure", "reference", "rows"]

SHOWN = 8
"""Inputs that a cube holds; the stored piece holds them all, and pairs of cells use them all."""
DIMS = ("sigma", "input", "pixel")
LABELS = {
    "outputs": Label(
        "D at the first noisy version of the first held-out images, CHW order",
        DIMS,
        "pixel",
        SHOWN,
    ),
    "outputs_noise": Label("D at pure noise of level sigma, CHW order", DIMS, "pixel", SHOWN),
}
LAWS = {"outputs": "heldout", "outputs_noise": "noise"}


def rows(size: Size, *, stored: int = 64) -> Rows:
    """Evaluations: the first draw of held-out and of pure-noise inputs."""
    return of_laws(size, tuple(LAWS.values()))


def measure(specimen: Specimen, *, stored: int = 64) -> xr.Dataset:
    """Outputs "sigma input pixel" in float32 on `stored` inputs of either kind, or on all m.

    They are among the inputs of the other analyses: nothing is evaluated for them alone.
    """
    return dataset(specimen.sigmas, _outputs(specimen, stored), LABELS)


def reference(subset: Subset, *, stored: int = 64) -> xr.Dataset:
    """What D_G of the training points says at those inputs of them that a cube holds."""
    oracle = Specimen.of_oracle(subset, "gaussian")
    values = tagged(_outputs(oracle, min(stored, SHOWN)), "gaussian")
    return dataset(subset.sigmas, values, suffixed(LABELS, "gaussian", "of the gaussian oracle"))


def _outputs(specimen: Specimen, stored: int) -> dict[str, Tensor]:
    if stored < 1:
        raise ValueError(f"outputs: `stored` must be at least 1, got {stored}.")
    return {
        name: torch.stack(
            [specimen.evaluate(law, s)[2][0, :stored] for s in specimen.sigmas]
        ).float()
        for name, law in LAWS.items()
    }
