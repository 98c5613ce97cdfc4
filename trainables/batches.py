"""What each step of a training sees: images, noise levels and noise, a function of the step alone.

Every worker draws the whole batch on the CPU and takes its slice: the numbers depend on neither
the number of workers nor the device.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from trainables import augmentation
from trainables.config import TrainConfig
from trainables.streams import stream

Batch = tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"], Float[Tensor, "b c h w"]]


class Batches:
    """The batches of one training, step by step."""

    def __init__(
        self,
        images: Float[Tensor, "n c h w"],
        config: TrainConfig,
        *,
        seed: int,
        draw: int,
        share: slice = slice(None),
        labels: Int64[Tensor, " n"] | None = None,
    ) -> None:
        """`images` in the training's type on its device; `share` is this worker's slice.

        `labels`: what the denoiser is told of each image, on the same device.

        With `noise_draws` m the m noises of every image are drawn here, once: n m (d + 1) numbers
        and some 25 microseconds a noise. Raises ValueError if a full batch is not all the images.
        """
        n = len(images)
        if config.sampling == "full" and config.batch != n:
            raise ValueError(
                f"`sampling` 'full' takes every image in every step: `batch` must be the {n} "
                f"training images, got {config.batch}."
            )
        self.images, self.config, self.share, self._labels = images, config, share, labels
        self.seed, self.draw = seed, draw
        self._table = None if config.noise_draws is None else self._fixed(config.noise_draws)

    def __call__(self, step: int) -> Batch:
        """Images, noise levels and noise of the step after `step` steps, on the images' device."""
        index = self._index(step)
        normals, eps = self._noise(step, index)
        device = self.images.device
        x = self._changed(step, self.images.index_select(0, index[self.share].to(device)))
        sigma = self.config.noise_levels(normals[self.share])
        return x, sigma.to(device), eps[self.share].to(device)

    def augment(self, step: int) -> Float[Tensor, "b 9"] | None:
        """What the denoiser is told of the augmentation of that step's images; None of none."""
        if not self.config.augment:
            return None
        label = augmentation.label_of(self._parameters(step))
        return label.to(self.images)

    def _changed(self, step: int, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The images of a step, mirrored and augmented."""
        if self.config.xflip:
            chosen = stream("augment", self.seed, step, "xflip")
            coins = torch.randint(2, (self.config.batch,), generator=chosen).bool()
            x = torch.where(coins[self.share].to(x.device).view(-1, 1, 1, 1), x.flip(3), x)
        if self.config.augment:
            x = augmentation.augmented(x, self._parameters(step).to(x.device))
        return x

    def _parameters(self, step: int) -> Float[Tensor, "b 8"]:
        chosen = stream("augment", self.seed, step)
        return augmentation.drawn(self.config.batch, self.config.augment, chosen)[self.share]

    def labels(self, step: int) -> Int64[Tensor, " b"] | None:
        """Labels of the images of that step; None where the denoiser is told nothing."""
        if self._labels is None:
            return None
        return self._labels[self._index(step)[self.share].to(self._labels.device)]

    def _index(self, step: int) -> Tensor:
        n = len(self.images)
        if self.config.sampling == "full":
            return torch.arange(n)
        chosen = stream("batch", self.seed, self.draw, step)
        return torch.randint(n, (self.config.batch,), generator=chosen)

    def _noise(self, step: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normals that make the levels, and the noise, of the whole batch."""
        noises = stream("noise", self.seed, step)
        n = self.config.batch
        if self._table is None:
            shape, dtype = self.images.shape[1:], self.images.dtype
            normals = torch.randn(n, dtype=dtype, generator=noises)
            return normals, torch.randn(n, *shape, dtype=dtype, generator=noises)
        normals, eps = self._table
        k = torch.randint(normals.shape[1], (n,), generator=noises)
        return normals[index, k], eps[index, k]

    def _fixed(self, draws: int) -> tuple[Tensor, Tensor]:
        """The only noises that exist: draw k of image i comes from a stream of its own.

        So the noises of an image are the same in a larger training set, and the first of more.
        """
        n, *shape = self.images.shape
        each = [
            torch.randn(
                1 + self.images[0].numel(),
                dtype=self.images.dtype,
                generator=stream("noise", self.seed, "fixed", i, k),
            )
            for i in range(n)
            for k in range(draws)
        ]
        table = torch.stack(each).view(n, draws, -1)
        return table[..., 0], table[..., 1:].reshape(n, draws, *shape)
