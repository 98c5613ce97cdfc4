"""A synthetic cube with the shape and the story of a real one; its answers are set by hand.

Onset of memorization at width 256: tau = 46 + 2.1 n kimg; half as fast at 128; never at 64. The
distance to the Gaussian denoiser is lowest at 48 kimg, whatever n_train.
"""

import numpy as np
import xarray as xr

WIDTH, N_TRAIN, SIGMA = (64, 128, 256), (16, 32, 64, 128, 256), (0.05, 0.15, 0.47, 1.5, 5.0, 20.0)
KIMG = (16, 32, 48, 64, 96, 128, 192, 256, 384)
REFERENCES = ("gaussian", "gaussian_pool", "kappa", "empirical", "linear")
ACROSS = ("width", "n_train", "seed", "draw", "split")


def onset_kimg(width, n):
    """Kimg at which 5 % of the samples are copies."""
    return np.where(width >= 256, 46 + 2.1 * n, np.where(width >= 128, 92 + 4.2 * n, 1e9))


def cube(
    width=WIDTH,
    n_train=N_TRAIN,
    seed=(0,),
    draw=(0, 1),
    split=("a",),
    kimg=KIMG,
    sigma=SIGMA,
    samples=512,
    images=256,
    **extra,
):
    """The cube of a finished sweep; keyword `extra` adds further across axes."""
    rng = np.random.default_rng(7)
    axes = dict(width=width, n_train=n_train, seed=seed, draw=draw, split=split, **extra)
    sizes = {k: len(v) for k, v in axes.items()} | {"kimg": len(kimg)}
    coords = {
        k: ("split", np.array(v, object)) if k == "split" else (k, list(v))
        for k, v in axes.items()
    }
    coords |= {
        "kimg": ("kimg", list(kimg)),
        "sigma": ("sigma", list(sigma)),
        "inputs": ("inputs", np.array(["train", "heldout"], object)),
        "reference": ("reference", np.array(REFERENCES, object)),
    }
    cells = tuple(sizes)
    grid = {
        k: xr.DataArray(np.asarray(v, float), dims=k)
        for k, v in (("width", width), ("n_train", n_train), ("kimg", kimg), ("sigma", sigma))
    }
    out = xr.Dataset(
        coords=coords, attrs={"title": "synthetic", "backbone": "mlp", "dataset": "digits"}
    )

    def noise(dims, scale, **more):
        shape = [
            (sizes | more | {"sigma": len(sigma), "inputs": 2, "reference": len(REFERENCES)})[d]
            for d in dims
        ]
        return xr.DataArray(scale * rng.standard_normal(shape), dims=dims)

    across = tuple(d for d in cells if d != "kimg")
    tau = xr.DataArray(
        onset_kimg(grid["width"].values[:, None], grid["n_train"].values[None]),
        dims=("width", "n_train"),
    ) * np.exp(noise(across, 0.03))
    share = 1 / (1 + 19 * (grid["kimg"].clip(1) / tau) ** -3.0)
    share = share.where(grid["kimg"] > 0.5 * tau, 0.0).transpose(*cells)
    uniform = xr.DataArray(
        rng.random([sizes[d] for d in cells if d != "kimg"] + [samples]), dims=(*across, "sample")
    )
    spread = xr.DataArray(
        rng.random([sizes[d] for d in cells if d != "kimg"] + [samples]), dims=(*across, "sample")
    )
    ratio = xr.where(uniform < share, spread / 3.1, 0.34 + 0.66 * spread)
    out["nearest_ratio"] = ratio.transpose(*cells, "sample").astype("float32")
    hits = (out["nearest_ratio"] < 1 / 3).sum("sample")
    from analyses.statistics import wilson

    low, high = wilson(hits.values, samples)
    out["memorized_fraction"] = hits / samples
    out["memorized_fraction_low"] = (cells, low)
    out["memorized_fraction_high"] = (cells, high)

    # Distance to the Gaussian denoiser: down until 48 kimg, then up, more for small n.
    x = np.log(grid["kimg"].clip(1) / 48)
    capacity = (grid["width"] / 256) ** 0.5
    bump = np.exp(-(np.log(grid["sigma"] / 0.47) ** 2) / 4)
    drop = 0.1 + 0.11 * x**2 * xr.where(x < 0, 1.5, capacity * (64 / grid["n_train"]) ** 0.2)
    shift = xr.DataArray([0.0, 0.02, 0.01, 0.05, -0.03], dims="reference")
    rmse = (drop * bump + shift * (1 + x / 4)).clip(0.005)
    image = xr.DataArray(np.abs(1 + 0.2 * rng.standard_normal(images)), dims="image")
    image = image / image.mean()
    out["denoiser_rmse_image"] = (
        (rmse.isel(reference=0) * image + noise((*cells, "sigma", "image"), 0.004, image=images))
        .transpose(*cells, "sigma", "image")
        .astype("float32")
    )
    full = rmse + noise((*cells, "sigma", "inputs", "reference"), 1e-4)
    out["denoiser_rmse"] = full.transpose(*cells, "sigma", "reference", "inputs")
    out["denoiser_rmse"][dict(inputs=1, reference=0)] = out["denoiser_rmse_image"].mean("image")
    out["denoiser_rmse"].attrs["units"] = "pixel"

    bend = 0.04 * (1 + x.clip(-1)) * capacity * bump * (64 / grid["n_train"]) ** 0.25
    pairs = images // 2
    spread = noise((*across, "sigma", "pair"), 0.002, pair=pairs)
    cosine = 1 - bend + spread + noise((*cells, "sigma", "pair"), 1e-3, pair=pairs)
    out["linearity_cosine_centred_pair"] = cosine.transpose(*cells, "sigma", "pair").astype(
        "float32"
    )
    mean = cosine.mean("pair")
    both = xr.concat([mean - 0.005, mean], "inputs").transpose(*cells, "sigma", "inputs")
    out["linearity_cosine_centred"] = both
    out["linearity_cosine_centred_se"] = xr.full_like(both, 2e-4)
    floor = 1 - 0.25 * np.exp(-(np.log(grid["sigma"] / 0.3) ** 2) / 3) + 0 * both
    out["linearity_cosine_centred_gaussian"] = xr.ones_like(both)
    out["linearity_cosine_centred_empirical"] = floor.transpose(*both.dims)

    variance = xr.DataArray(1 + 0.1 * rng.random(images), dims="image")
    residual = 2 * bend * variance * image + noise((*cells, "sigma", "image"), 1e-3, image=images)
    out["affine_variance_image"] = (
        (0 * residual + variance).transpose(*cells, "sigma", "image").astype("float32")
    )
    out["affine_residual_image"] = residual.transpose(*cells, "sigma", "image").astype("float32")
    r2 = 1 - residual.sum("image") / variance.sum()
    out["affine_r2"] = xr.concat([r2, r2], "inputs").transpose(*cells, "sigma", "inputs")
    out["status"] = (cells, np.full([sizes[d] for d in cells], 2, np.int8))
    return out


def measured(**axes):
    """The same sweep with every analysis: what the criteria and the slices read.

    With t = kimg / onset_kimg (3 % scatter between trials), criteria pass their levels at
    t = 0.7 (PSNR gap), 1 (excess, AUC), 1.2 (twins) and 1.5 (flow). The quality is at twice its
    floor at 64 kimg, whatever n_train and width.
    """
    out = cube(**axes)
    cells = out["status"].dims
    rng = np.random.default_rng(8)
    trial = tuple(d for d in cells if d != "kimg")
    scatter = xr.DataArray(0.03 * rng.standard_normal([out.sizes[d] for d in trial]), dims=trial)
    width, n, kimg = (out[d].astype(float).drop_vars(d) for d in ("width", "n_train", "kimg"))
    tau = xr.apply_ufunc(onset_kimg, width, n)
    t = (kimg.clip(1) / (tau * np.exp(scatter))).transpose(*cells)
    out["memorized_excess"] = out["memorized_fraction"]
    out["memorization_auc"] = 0.05 + 0.1 * t.clip(max=5)
    out["memorization_auc_null"] = (cells, np.full(t.shape, 0.05))
    bump = np.exp(-(np.log(out["sigma"].drop_vars("sigma") / 0.47) ** 2) / 4)
    out["psnr_gap"] = (t / 0.7 * bump).transpose(*cells, "sigma")
    twins = t.isel(split=0) / 1.2
    out["twin_to_train_ratio"] = twins**0.5
    out["twin_reproducibility"] = 1 / (1 + twins**2)
    out["gaussian_empirical_ratio"] = (
        out["denoiser_rmse"].sel(reference="gaussian", drop=True) / 0.3
    )
    floor = out["linearity_cosine_centred_empirical"]
    out["linearity_cosine_centred_normalised"] = (out["linearity_cosine_centred"] - floor) / (
        1 - floor
    )
    far = xr.concat([2.0 * (t / 1.5) ** -0.3, 2.0 + 0 * t], "flow_reference")
    out["flow_distance"] = far.transpose(*cells, "flow_reference")
    out["sliced_wasserstein"] = (0.02 * (1 + (64 / kimg.clip(1)) ** 2) + 0 * t).transpose(*cells)
    out["sliced_wasserstein_floor"] = (trial, np.full([out.sizes[d] for d in trial], 0.02))
    parameters, seen = width**2, 1000 * kimg
    return out.assign_coords(
        flow_reference=np.array(["empirical", "gaussian"], object),
        n_params=parameters,
        epochs=seen / n,
        flops=3 * parameters * seen,
    )


def lose(cube, **where):
    """The same cube with one cell missing: NaN everywhere, status failed."""
    cells = [d for d in cube["status"].dims]
    lost = xr.zeros_like(cube["status"], dtype=bool)
    lost.loc[where] = True
    out = cube.copy()
    for name, value in cube.data_vars.items():
        # What compares the two splits is lost with either.
        if name != "status" and {*cells} - {"split"} <= set(value.dims):
            gone = lost if "split" in value.dims else lost.any("split")
            out[name] = value.where(~gone).transpose(*value.dims)
    out["status"] = cube["status"].where(~lost, 3).astype(np.int8)
    return out
