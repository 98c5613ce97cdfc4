"""TensorBoard: one run per trial with scalars against kimg, sample grids and hyper-parameters.

Derived from the pieces: a trial that goes on after a crash is written again from what is stored,
so nothing is doubled. TensorBoard is for looking; the cube is the data. Event files grow, objects
of an object store do not: there each run is written in a temporary folder and uploaded when its
trial, or the driver, ends.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from engine.grid import Cell, Trial, moment
from engine.job import Job, training_points
from engine.pieces import Piece
from trainables.datasets.data import Data

FOLDER = "tensorboard"
SHOWN_SIGMAS = (0.1, 0.47, 2.0)
"""Noise levels whose nearest neighbours on the grid get a curve."""
GRID = 16
"""Samples in an image grid, each beside its nearest training image."""
LEAST_PIXELS = 32
"""Smaller images are enlarged to this side: TensorBoard does not."""


class Board:
    """Writes the TensorBoard log of one run of a sweep."""

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.data = job, data
        self.files = job.store.files
        if self.files.is_local:
            self.folder = Path(self.files.path(FOLDER))
        else:
            self.folder = Path(tempfile.mkdtemp(prefix="diffphase-"))
            self.uploaded = {name.split("/")[1] for name in self.files.listing(FOLDER)}
        self.writers: dict[Trial, SummaryWriter] = {}
        self.left: dict[Trial, list[float]] = {}
        self.ready: dict[Trial, set[float]] = {}
        grid = np.array(job.sweep.sigmas)
        near = {int(np.argmin(np.abs(np.log(grid / sigma)))) for sigma in SHOWN_SIGMAS}
        self.sigmas = sorted(near)

    def begin(self, trial: Trial, complete: Sequence[float]) -> None:
        """Start a trial's run anew with the cells that are stored already."""
        shutil.rmtree(self.folder / trial.address, ignore_errors=True)
        if not self.files.is_local and trial.address in self.uploaded:
            for name in self.files.listing(f"{FOLDER}/{trial.address}"):
                self.files.delete(name)
        self.left[trial], self.ready[trial] = sorted(self.job.sweep.kimg), set()
        for kimg in complete:
            self.add(Cell(trial, kimg))

    def has(self, trial: Trial) -> bool:
        """Whether the trial's run was written, by this run or an earlier one."""
        here = (self.folder / trial.address).is_dir()
        return here or (not self.files.is_local and trial.address in self.uploaded)

    def add(self, cell: Cell) -> None:
        """Log a cell whose pieces are all stored, once those before it are logged.

        TensorBoard draws points in the order they were written; analyses end in any order.
        """
        left, ready = self.left[cell.trial], self.ready[cell.trial]
        ready.add(cell.kimg)
        while left and left[0] in ready:
            self._write(Cell(cell.trial, left.pop(0)), last=not left)

    def close(self) -> None:
        """Log what waited for a cell that never came, and flush."""
        for trial, ready in self.ready.items():
            for kimg in sorted(ready & set(self.left[trial])):
                self._write(Cell(trial, kimg), last=False)
        for trial in list(self.writers):
            self._end(trial)
        if not self.files.is_local:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.left.clear()
        self.ready.clear()

    def _write(self, cell: Cell, *, last: bool) -> None:
        """A cell's scalars and pictures; the last one of a trial closes its run."""
        if cell.trial not in self.writers:
            self.writers[cell.trial] = SummaryWriter(self.folder / cell.trial.address)
        writer = self.writers[cell.trial]
        pieces = {n: self.job.store.read_piece(cell, n) for n in self.job.sweep.analyses}
        found = {n: piece for n, piece in pieces.items() if piece is not None}
        scalars = self._scalars(cell, found)
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, self.step(cell.kimg))
        if "samples" in found and "memorization" in found:
            picture = self._pictures(cell.trial, found["samples"], found["memorization"])
            tag = "samples/beside nearest training image"
            writer.add_image(tag, picture, self.step(cell.kimg))
        if last:
            for summary in hparams(dict(cell.trial.coordinates), dict(scalars)):
                writer.file_writer.add_summary(summary)
            self._end(cell.trial)

    def _end(self, trial: Trial) -> None:
        self.writers.pop(trial).close()
        if not self.files.is_local:
            place = trial.address
            self.files.upload(str(self.folder / place), f"{FOLDER}/{place}")
            shutil.rmtree(self.folder / place)
            self.uploaded.add(place)

    def step(self, kimg: float) -> int:
        """TensorBoard's step: kimg where all are whole numbers, else images."""
        whole = all(float(k).is_integer() for k in self.job.sweep.kimg)
        return int(kimg) if whole else round(1000 * kimg)

    def _scalars(self, cell: Cell, pieces: Mapping[str, Piece]) -> dict[str, float]:
        record = self.job.store.trial_record(cell.trial)["snapshots"].get(moment(cell.kimg), {})
        scalars = {
            f"loss/{n}": record[n] for n in ("stream_loss", "heldout_stream_loss") if n in record
        }
        for name in ("memorized_fraction", "memorization_auc", "generalization_score"):
            if "memorization" in pieces:
                scalars[f"memorization/{name}"] = float(
                    pieces["memorization"].variables[name].values
                )
        wanted = {
            "linearity": ("linearity_cosine_centred",),
            "gaussian": ("denoiser_rmse",),
            "linear_fit": ("affine_r2",),
            "generalization": ("train_loss", "heldout_loss"),
        }
        for analysis, names in wanted.items():
            for name in names if analysis in pieces else ():
                values = self._at(pieces[analysis], name)
                scalars |= {
                    f"{name}/sigma={self.job.sweep.sigmas[i]:.3g}": v for i, v in values.items()
                }
        return {tag: value for tag, value in scalars.items() if np.isfinite(value)}

    def _at(self, piece: Piece, name: str) -> dict[int, float]:
        """A variable at the shown noise levels, held-out inputs, against the Gaussian denoiser."""
        variable = piece.variables[name]
        chosen = {"inputs": "heldout", "reference": "gaussian"}
        values = variable.values
        for axis, dim in reversed(list(enumerate(variable.dims))):
            if dim in chosen:
                values = np.take(values, piece.labels[dim].index(chosen[dim]), axis=axis)
        return {i: float(values[i]) for i in self.sigmas}

    def _pictures(self, trial: Trial, samples: Piece, memorization: Piece) -> np.ndarray:
        """A grid (c, h, w) in [0, 1] of pairs: a sample, its nearest training image."""
        shape = self.data.shape
        shown = samples.variables["samples"].values[:GRID].reshape(-1, *shape)
        train = training_points(self.data, trial.subset)
        nearest = train[memorization.variables["nearest_index"].values[: len(shown)].astype(int)]
        scale = max(1, -(-LEAST_PIXELS // max(shape[1:])))
        tiles = np.concatenate(
            [shown, np.zeros((len(shown), shape[0], shape[1], 1)), nearest], axis=3
        )
        tiles = np.pad(tiles, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=1.0)
        columns = max(1, int(np.sqrt(len(tiles))))
        rows = len(tiles) // columns
        grid = tiles[: rows * columns].reshape(rows, columns, *tiles.shape[1:])
        picture = grid.transpose(2, 0, 3, 1, 4).reshape(
            shape[0], rows * tiles.shape[2], columns * tiles.shape[3]
        )
        # A fixed range: stretching each image by itself would make faint ones look finished.
        return np.clip((picture + 1) / 2, 0, 1).repeat(scale, axis=1).repeat(scale, axis=2)
