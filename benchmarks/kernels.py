"""Oracles, moments and fits: their arithmetic against the machine's, and against the paper's way.

- *GEMM*: the rate of one large product of two matrices, same type and threads, timed beside each
  row; the share of it that the empirical denoiser (two products per block, softmax included) and
  the accumulation of a covariance reach.
- *distillation*: the affine fit of one noise level in closed form (cross-fitted, with its errors)
  against the recipe of arXiv 2410.24060: Adam, batches of 256, 100 epochs, zero start, inputs by
  sqrt(d), a rate tuned here over a grid, on 10,000 images (its CIFAR-10 set; FFHQ's are more).
  Ours sees few images twice; its design serves every denoiser of a training set, the fit is of
  one. Residuals on inputs that neither has seen: the ratio counts where ours is not the larger.
  At d = 3072 two epochs are timed and scaled, and the recipe's residual is not known.
  *With evaluations*: both with those of a DDPM++ of width 16 at the inputs that they see, seconds
  per image as timed here; the recipe draws its noise anew for every step.
"""

import argparse
import math
import os
import time

import torch

from analyses.affine import affine_fit, design, directions
from analyses.moments import ROWS, Moments, scatter
from analyses.oracles import EmpiricalDenoiser, GaussianDenoiser
from trainables.architectures import build

SHARE, FASTER = 0.7, 100.0
SIGMA = 0.5
EPOCHS, BATCH, SEEN = 100, 256, 10**4
RATES = (1e-2, 3e-2, 1e-1)


def seconds(call, at_least=0.5):
    """Seconds of a call, the best of several."""
    call()
    best, start = math.inf, time.perf_counter()
    while time.perf_counter() - start < at_least:
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best


def gemm(n):
    """FLOP/s of a product of two n x n matrices in float64."""
    a, b = torch.randn(2, n, n, dtype=torch.float64)
    return 2 * n**3 / seconds(lambda: a @ b, 2.0)


def smooth(n, d, seed=0):
    """Points whose spectrum falls as 1/k, in a turned basis made of a cheap orthogonal map."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    z /= torch.arange(1, d + 1, dtype=torch.float64).sqrt()
    signs = torch.randint(2, (d,), generator=torch.Generator().manual_seed(99)) * 2.0 - 1
    return torch.fft.irfft(torch.fft.rfft(z * signs, norm="ortho"), n=d, norm="ortho")


def rates(dims, quick):
    """Rows of the first table."""
    for d in dims:
        n, m = (512, 64) if quick else (8192, 512)
        peak = gemm(256 if quick else 2048)
        points, y = smooth(n, d), smooth(m, d, seed=1)
        oracle = EmpiricalDenoiser(points)
        flops = 4 * m * n * d
        yield (
            f"empirical denoiser, {m} inputs, {n} points",
            d,
            flops / seconds(lambda o=oracle, y=y: o(y, SIGMA)),
            peak,
        )
        mean, parts = points.mean(0), points.split(ROWS)
        spent = seconds(lambda mean=mean, parts=parts: scatter(parts, mean))
        yield f"covariance, {n} points", d, 2 * n * d * d / spent, peak


def bent(d):
    """A denoiser that is no affine map: a Wiener filter and a bounded part beside it."""
    linear = GaussianDenoiser(Moments.of_covariance(torch.zeros(d).double(), _spectrum(d)))
    turn = torch.randn(d, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    turn /= d**0.5

    def denoise(y):
        return linear(y, SIGMA) + 0.05 * torch.tanh(3 * y @ turn)

    return denoise


def _spectrum(d):
    points = smooth(2 * d, d, seed=7)
    return points.T @ points / len(points)


def recipe(y, out, epochs, rate):
    """W and b after the paper's way: `y` and `out` hold one fresh draw of the noise per epoch."""
    d = y.shape[-1]
    weight = torch.zeros(d, d, requires_grad=True)
    bias = torch.zeros(d, requires_grad=True)
    adam = torch.optim.Adam([weight, bias], lr=rate, fused=True)
    for epoch in range(epochs):
        rows, targets = y[epoch % len(y)], out[epoch % len(y)]
        for start in range(0, len(rows), BATCH):
            x = rows[start : start + BATCH]
            error = x @ weight.T / d**0.5 + bias - targets[start : start + BATCH]
            adam.zero_grad(set_to_none=True)
            error.square().mean().backward()
            adam.step()
    return weight.detach() / d**0.5, bias.detach()


def adam(d, quick, denoise, test, truth):
    """Seconds and residual of the recipe at its best rate; two epochs scaled where d is large."""
    x = smooth(256 if quick else SEEN, d, seed=4)
    y = x + SIGMA * torch.randn(2, len(x), d, dtype=torch.float64)
    yf, outf = y.float(), torch.stack([denoise(draw) for draw in y]).float()
    if d > 1024 or quick:
        start = time.perf_counter()
        recipe(yf, outf, 2, RATES[0])
        return (time.perf_counter() - start) * EPOCHS / 2, math.nan
    found = []
    for rate in RATES:
        start = time.perf_counter()
        weight, bias = recipe(yf, outf, EPOCHS, rate)
        spent = time.perf_counter() - start
        theirs = (test.float() @ weight.T + bias - truth).square().mean().sqrt()
        found.append((float(theirs), spent))
    theirs, spent = min(found)
    return spent, theirs


def closed(d, images, denoise, test, truth):
    """Seconds of design and fit, and the residual, of `images` images seen twice."""
    x = smooth(images, d, seed=2)
    y = x + SIGMA * torch.randn(2, images, d, dtype=torch.float64)
    out = torch.stack([denoise(draw) for draw in y])
    law = Moments.of_covariance(torch.zeros(d).double(), _spectrum(d)) if d > 1024 else None
    basis = directions(law, 2 * images) if law else None
    start = time.perf_counter()
    inputs = design(y, images, basis)
    middle = time.perf_counter()
    fit = affine_fit(inputs, y, out)
    spent = middle - start, time.perf_counter() - middle
    return spent, float((fit.weight(test) + fit.bias - truth).square().mean().sqrt())


def an_evaluation(d):
    """Seconds of an image through a DDPM++ of width 16, in batches of 64."""
    shape = {784: (1, 28, 28), 3072: (3, 32, 32)}.get(d, (1, 8, 8))
    backbone = build("ddpmpp", 16, shape, attention=[]).eval()
    x, noise = torch.randn(64, *shape), torch.zeros(64)
    with torch.no_grad():
        return seconds(lambda: backbone(x, noise), 2.0) / 64


def distilled(d, sizes, quick):
    """Rows of the second table: one per number of images."""
    denoise = bent(d)
    fresh = smooth(512, d, seed=3)
    test = fresh + SIGMA * torch.randn(512, d, dtype=torch.float64)
    truth = denoise(test)
    theirs, other = adam(d, quick, denoise, test, truth)
    each = an_evaluation(d)
    for images in sizes:
        (once, again), error = closed(d, images, denoise, test, truth)
        ours, seen = once + again, 2 * images
        whole = (theirs + EPOCHS * SEEN * each) / (ours + seen * each)
        yield (d, seen, once, again, error, theirs, other, theirs / ours, whole)


def main():
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="does it run at all?")
    quick = parser.parse_args().quick
    threads = torch.get_num_threads()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {threads} threads, float64\n")
    print("| | d | GFLOP/s | GEMM | share |", "|---|---|---|---|---|", sep="\n")
    worst = 1.0
    for name, d, rate, peak in rates((64,) if quick else (784, 3072), quick):
        worst = min(worst, rate / peak)
        print(
            f"| {name} | {d} | {rate / 1e9:.1f} | {peak / 1e9:.1f} | {rate / peak:.0%} |",
            flush=True,
        )
    print(f"\ntarget {SHARE:.0%}: {'kept' if worst >= SHARE else 'MISSED'}\n")
    print(
        "| d | inputs | design, s | fit, s | residual | recipe, s | residual | ratio"
        " | with evaluations |",
        "|---|---|---|---|---|---|---|---|---|",
        sep="\n",
    )
    best = {}
    for d in (64,) if quick else (784, 3072):
        for row in distilled(d, (128,) if quick else (1024, 2048, 4096), quick):
            _, seen, once, again, error, theirs, other, *ratios = row
            # Where the recipe's residual is not known the row of the most inputs counts.
            if math.isnan(other) or error <= other:
                best.setdefault(d, ratios)
                best[d] = ratios if math.isnan(other) else [*map(max, best[d], ratios)]
            print(
                f"| {d} | {seen} | {once:.2f} | {again:.2f} | {error:.4f} | {theirs:.0f} |"
                f" {other:.4f} | {ratios[0]:.0f} | {ratios[1]:.0f} |",
                flush=True,
            )
    for i, what in enumerate(("arithmetic alone", "with evaluations")):
        found = {d: round(ratios[i]) for d, ratios in best.items()}
        kept = all(ratio >= FASTER for ratio in found.values())
        print(f"\ntarget {FASTER:.0f} times, {what}: {'kept' if kept else 'MISSED'} {found}")


if __name__ == "__main__":
    main()
