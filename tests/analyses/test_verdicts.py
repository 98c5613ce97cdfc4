"""Verdicts on the published laws: each can come out any way, and knows seeds from draws."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy.stats import mannwhitneyu

from analyses.phase import phase
from analyses.verdicts import LAWS, as_markdown, as_text, missing, verdicts
from analyses.verdicts.cells import prepared
from analyses.verdicts.copying import separation
from analyses.verdicts.factors import with_plain
from analyses.verdicts.judging import (
    AGREES,
    DISAGREES,
    POSITIVE,
    UNDECIDED,
    Estimate,
    combine,
    estimate,
    judge,
)
from analyses.verdicts.kernels import trend, valley

ACROSS = ("width", "n_train", "seed", "draw", "split")
KIMG = tuple(np.geomspace(8, 4096, 31).round(3))
N_TRAIN = (16, 32, 64, 128, 256)
N_FINE = tuple(np.geomspace(8, 1024, 16).astype(int))


class Grid:
    """A cube under construction, whose replicates differ by noise of seed, training set, both."""

    replicates = (("seed", (0, 1, 2)), ("draw", (0, 1)))

    def __init__(self, attrs=None, **axes):
        given = {
            "width": (128, 256),
            "n_train": N_TRAIN,
            **dict(self.replicates),
            "split": ("a",),
            "kimg": KIMG,
            "sigma": (0.47,),
        }
        axes = given | axes
        coords = {k: (k, np.array(v, object if k == "split" else None)) for k, v in axes.items()}
        coords["inputs"] = ("inputs", np.array(["train", "heldout"], object))
        coords["reference"] = ("reference", np.array(["gaussian", "empirical"], object))
        self.cube = xr.Dataset(
            coords=coords, attrs={"backbone": "mlp", "dataset": "digits"} | (attrs or {})
        )
        extra = [k for k in axes if k not in given]
        self.cells = [d for d in (*ACROSS, *extra, "kimg")]
        self.rng = np.random.default_rng(5)
        shape = [self.cube.sizes[d] for d in self.cells]
        self.cube["status"] = (self.cells, np.full(shape, 2, np.int8))

    def __getitem__(self, name):
        return self.cube[name].astype(float)

    def noise(self, scale):
        """Crossed: the same for all cells of a seed, of a (draw, split), and of both."""
        sizes = self.cube.sizes
        out = 0.0
        for dims in (("seed",), ("draw", "split"), ("seed", "draw", "split")):
            shape = [sizes[d] for d in dims]
            out = out + xr.DataArray(scale * self.rng.standard_normal(shape), dims=dims)
        return out

    def put(self, name, value, *own, cells=None):
        cells = self.cells if cells is None else cells
        full = value
        for d in cells:
            if d not in full.dims:
                full = full.expand_dims({d: self.cube[d].values})
        self.cube[name] = full.transpose(*cells, *own)
        return self

    def memorize(self, tau):
        return self.put("memorized_fraction", (self["kimg"] > tau).astype(float))

    def distance(self, bottom=48.0, depth=1.0):
        x = np.log(self["kimg"] / bottom)
        curve = 0.1 + 0.05 * depth * x**2 + 0 * self["sigma"]
        curve = curve + xr.DataArray([0.0, 0.3], dims="reference")
        curve = curve.expand_dims(inputs=2)
        return self.put("denoiser_rmse", curve, "sigma", "reference", "inputs")

    def heldout(self, name, value):
        both = value.expand_dims({"sigma": self.cube["sigma"].values, "inputs": 2})
        return self.put(name, both, "sigma", "inputs")


def judged(law, grid):
    own, found = prepared(grid.cube, xr.Dataset())
    assert not LAWS[law].lacks(own, found)
    return LAWS[law].measure(own, found)


def onsets(kind):
    grid = Grid()
    scale = {"wide": 0.5}.get(kind, 0.02)
    power = 0.4 if kind == "weak" else 1.0
    tau = 48 + 2 * 40 ** (1 - power) * grid["n_train"] ** power
    return grid.memorize(tau * 256 / grid["width"] * np.exp(grid.noise(scale))).distance()


def stages(kind):
    grid = Grid()
    power = {"grows": 0.5, "small": 0.1}.get(kind, 0.0)
    bottom = 48 * (grid["n_train"] / 64) ** power
    grid.memorize(1e9 + 0 * bottom).distance(bottom * np.exp(grid.noise(0.02)))
    if kind == "no quality":
        return grid
    quality = 1 + (30 / grid["kimg"]) * np.exp(grid.noise(0.02))
    floor = xr.ones_like(quality)
    return grid.put("sliced_wasserstein", quality).put("sliced_wasserstein_floor", floor)


def widths(kind):
    grid = Grid(width=(64, 128, 256, 512), n_train=(32, 64))
    power = {"flat": 0.0}.get(kind, -1.0) + grid.noise(0.5 if kind == "wide" else 0.01)
    tau = (20 + 2 * grid["n_train"]) * (grid["width"] / 256) ** power
    return grid.memorize(tau * np.exp(grid.noise(0.02))).distance()


def frontier(kind):
    """N* ~ kimg^p W^q; q is its exponent on width at equal kimg, q/(1-p) at equal epochs."""
    grid = Grid(width=(64, 128, 256, 512), n_train=N_FINE, kimg=KIMG[::4])
    # P ~ W^2, so that the exponents on n_params are half of those on width.
    grid.cube.coords["n_params"] = ("width", grid.cube["width"].values.astype(float) ** 2)
    p, q = {"square": (0.02, 1.0), "falls": (-0.4, -1.0), "equal": (0.4, 0.0)}.get(
        kind, (0.4, 1.0)
    )
    tilt = grid.noise(0.6 if kind == "wide" else 0.003)
    edge = 60 * (grid["kimg"] / 200) ** (p + tilt) * (grid["width"] / 181) ** (q + tilt)
    return grid.put("memorized_fraction", (grid["n_train"] < edge).astype(float)).distance()


def minimum(kind):
    grid = Grid(kimg=KIMG[:20])
    bottom = {"edge": 8.0}.get(kind, 48.0)
    grid.memorize(1e9 + 0 * grid["n_train"]).distance(bottom)
    if kind == "noise":
        flat = 0.1 + 0.1 * xr.DataArray(
            grid.rng.standard_normal([grid.cube.sizes[d] for d in ("seed", "draw", "kimg")]),
            dims=("seed", "draw", "kimg"),
        )
        grid.cube["denoiser_rmse"] = grid.cube["denoiser_rmse"] * 0 + flat
    return grid


def over_n(name, sign):
    def make(kind):
        grid = Grid(kimg=(64.0, 128.0))
        slope = {"up": 1.0, "down": -1.0}.get(kind, 0.0)
        value = 0.3 * sign * slope * np.log(grid["n_train"]) + grid.noise(0.1) + 0 * grid["kimg"]
        if kind == "noise":
            shape = [grid.cube.sizes[d] for d in ("n_train", "seed", "draw")]
            value = value + xr.DataArray(
                grid.rng.standard_normal(shape), dims=("n_train", "seed", "draw")
            )
        return grid.heldout(name, value)

    return make


def twins(kind, backbone="mlp"):
    grid = Grid({"backbone": backbone}, kimg=(64.0, 128.0), split=("a", "b"))
    cells = [d for d in grid.cells if d != "split"]
    off = {"steep": 1.0}.get(kind, 0.0)
    scale = {"wide": 0.6}.get(kind, 0.005)
    predicted = 1 / (grid["n_train"] * (1 + 0 * grid["kimg"] + 0 * grid["sigma"]))
    each = grid.noise(scale).isel(split=0)
    slopes = grid.noise(scale).isel(split=0) * np.log(grid["n_train"] / 64)
    own = predicted * grid["n_train"] ** -off * 64**off * np.exp(each + slopes)
    for name, value in (
        ("", own),
        ("_predicted", predicted / (1.2 if kind == "high" else 1) + 0 * own),
    ):
        grid.put(f"twin_denoiser_mse{name}", value, "sigma", cells=cells)
    rho = 64 / grid["n_train"] + 0 * grid["kimg"]
    return grid.put("twin_to_train_ratio", rho, cells=cells)


def dips(kind):
    grid = Grid(kimg=(64.0, 128.0), split=("a", "b"))
    x = np.log(grid["n_train"] / 64)
    curve = {"flat": 0 * x, "rises": 0.1 * x}.get(kind, 0.2 * x**2)
    noise = grid.noise(0.02)
    if kind == "flat":
        shape = [grid.cube.sizes[d] for d in ("n_train", "seed", "draw", "split")]
        noise = noise + xr.DataArray(
            0.2 * grid.rng.standard_normal(shape), dims=("n_train", "seed", "draw", "split")
        )
    grid.put("rerun_reproducibility", 0.3 + curve + noise + 0 * grid["kimg"])
    cells = [d for d in grid.cells if d != "split"]
    twin = 0.2 * x + grid.noise(0.02).isel(split=0) + 0 * grid["kimg"]
    return grid.put("twin_reproducibility", twin, cells=cells)


def mixture(kind):
    n = (50, 100, 200)
    width = tuple(np.geomspace(20, 400, 24).astype(int))
    grid = Grid({"backbone": "gmm"}, width=width, n_train=n, kimg=(64.0, 1024.0))
    ratio = {"half": 0.5}.get(kind, 0.8) * np.exp(grid.noise(0.3 if kind == "wide" else 0.01))
    share = (grid["width"] > ratio * grid["n_train"]).astype(float) + 0 * grid["kimg"]
    return grid.put("memorized_fraction", share)


def peaks(kind):
    grid = onsets("plain")
    x = np.log(grid["kimg"] / (48 + 2 * grid["n_train"]))
    curve = x / 10 if kind == "rises" else np.exp(-(x**2))
    noise = grid.noise(0.01)
    if kind == "wide":
        shape = [grid.cube.sizes[d] for d in ("seed", "draw", "kimg")]
        noise = xr.DataArray(grid.rng.standard_normal(shape), dims=("seed", "draw", "kimg"))
    return grid.put("spurious_fraction", curve + noise)


def points(kind):
    grid = onsets("plain")
    count = 256
    rng = grid.rng
    sizes = [grid.cube.sizes[d] for d in ("n_train", "draw", "split")]
    dense = xr.DataArray(rng.random([*sizes, count]), dims=("n_train", "draw", "split", "point"))
    dense = dense.where(xr.DataArray(np.arange(count), dims="point") < grid["n_train"])
    other = xr.DataArray(rng.random(dense.shape), dims=dense.dims)
    order = {"dense": -dense, "any": other.where(dense.notnull())}.get(kind, dense)
    rank = order.copy(
        data=order.values.argsort(-1).argsort(-1) / order.notnull().sum("point").values[..., None]
    )
    rank = rank.where(order.notnull())
    rank = rank * np.exp(0.1 * grid.noise(1.0)) + 0 * grid["width"]
    hits = (rank < 0.5 * np.log(grid["kimg"] / 20)).astype(float).where(rank.notnull())
    grid.put("point_hits", hits, "point")
    cells = [d for d in grid.cells if d != "kimg"]
    return grid.put("point_coverage", dense, "point", cells=cells)


def spectra(kind, backbone="mlp"):
    grid = Grid({"backbone": backbone}, n_train=(1024,), width=(256,))
    lam = xr.DataArray(np.geomspace(4, 0.04, 12), dims="mode")
    alpha = {"flat": 0.3}.get(kind, 1.0) + grid.noise(0.5 if kind == "wide" else 0.005)
    tau = 100 * lam**-alpha
    done = 1 / (1 + (tau / grid["kimg"]) ** 4)
    variance = np.exp(np.log(1e-4) + (np.log(lam) - np.log(1e-4)) * done)
    return grid.put("sample_variance", variance, "mode").put(
        "train_eigenvalues", lam + 0 * grid["kimg"], "mode"
    )


def subspaces(kind):
    grid = Grid(n_train=(6, 9, 12, 18, 24, 36, 48, 72, 96, 144, 192), kimg=(64.0, 128.0))
    sizes = xr.DataArray([4.0, 8, 16], dims="subspace")
    at = {"late": 5.0}.get(kind, 1.2) * sizes * np.exp(grid.noise(1.0 if kind == "wide" else 0.01))
    share = (grid["n_train"] / 3 > at).astype(float) + 0 * grid["kimg"]
    grid.put("subspace_variance", share, "subspace")
    return grid.put("subspace_dim", sizes + 0 * grid["kimg"], "subspace")


def further(axis, values):
    def make(kind):
        grid = Grid(kimg=(64.0, 128.0), n_train=(64,), width=(128,), **{axis: values})
        rank = xr.DataArray(np.arange(len(values)) / 10.0, dims=axis)
        sign = {"down": -1.0, "noise": 0.0}.get(kind, 1.0)
        value = 0.4 + sign * rank + grid.noise(0.001) + 0 * grid["kimg"]
        if kind == "noise":
            shape = [grid.cube.sizes[d] for d in (axis, "seed", "draw")]
            value = value + xr.DataArray(
                grid.rng.standard_normal(shape), dims=(axis, "seed", "draw")
            )
        return grid.put("memorized_fraction", value)

    return make


def labels(kind):
    """The order of the axis is not that of the law."""
    kinds = ("class", "none", "unique", "random")
    grid = Grid(kimg=(64.0, 128.0), n_train=(64,), width=(128,), training_labels=kinds)
    rank = xr.DataArray([1.0, 0.0, 3.0, 2.0], dims="training_labels")
    sign = {"down": -1.0, "noise": 0.0}.get(kind, 1.0)
    value = 0.4 + 0.1 * sign * rank + grid.noise(0.001) + 0 * grid["kimg"]
    if kind == "noise":
        shape = [grid.cube.sizes[d] for d in ("training_labels", "seed", "draw")]
        dims = ("training_labels", "seed", "draw")
        value = value + xr.DataArray(grid.rng.standard_normal(shape), dims=dims)
    return grid.put("memorized_fraction", value)


CASES = [
    ("L1", onsets, {"plain": AGREES, "weak": DISAGREES, "wide": UNDECIDED}),
    (
        "L2",
        stages,
        {
            "plain": AGREES,
            "grows": DISAGREES,
            "small": UNDECIDED,
            "no quality": UNDECIDED,
        },
    ),
    ("L3", widths, {"plain": AGREES, "flat": DISAGREES, "wide": UNDECIDED}),
    ("L4", frontier, {"plain": AGREES, "falls": DISAGREES, "wide": UNDECIDED}),
    ("L6", spectra, {"plain": AGREES, "flat": DISAGREES, "wide": UNDECIDED}),
    ("L8", twins, {"plain": AGREES, "steep": DISAGREES, "wide": UNDECIDED}),
    ("L9", minimum, {"plain": AGREES, "edge": DISAGREES, "noise": UNDECIDED}),
    (
        "L10",
        over_n("linearity_cosine_centred_normalised", 1),
        {"up": AGREES, "down": DISAGREES, "noise": UNDECIDED},
    ),
    ("L11", over_n("psnr_gap", -1), {"up": AGREES, "down": DISAGREES, "noise": UNDECIDED}),
    ("L12", dips, {"plain": AGREES, "rises": DISAGREES, "flat": UNDECIDED}),
    ("L13", mixture, {"plain": AGREES, "half": DISAGREES, "wide": UNDECIDED}),
    ("L16", peaks, {"plain": AGREES, "rises": DISAGREES, "wide": UNDECIDED}),
    ("L17", points, {"plain": AGREES, "dense": DISAGREES}),
    ("L18", frontier, {"plain": AGREES, "equal": DISAGREES, "wide": UNDECIDED}),
    ("L20", labels, {"up": AGREES, "down": DISAGREES, "noise": UNDECIDED}),
    (
        "L21",
        further("training_noise_draws", (1, 4, 16, 64)),
        {"up": AGREES, "down": DISAGREES, "noise": UNDECIDED},
    ),
    ("L22", subspaces, {"plain": AGREES, "late": DISAGREES, "wide": UNDECIDED}),
    ("L23", frontier, {"plain": DISAGREES, "square": AGREES, "wide": UNDECIDED}),
]


@pytest.mark.parametrize(
    "law, make, kind, expected",
    [(law, make, kind, e) for law, make, kinds in CASES for kind, e in kinds.items()],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_law_comes_out_as_its_cube_was_made(law, make, kind, expected):
    found = judged(law, make(kind))
    assert found.verdict == expected, [found.quantity, found.value, found.low, found.high]


@pytest.mark.parametrize("law, make, kinds", CASES, ids=[case[0] for case in CASES])
def test_a_single_replicate_decides_nothing(law, make, kinds, monkeypatch):
    monkeypatch.setattr(Grid, "replicates", (("seed", (0,)), ("draw", (0,))))
    assert judged(law, make(next(iter(kinds)))).verdict == UNDECIDED


def test_two_replicates_are_a_range_and_decide_only_together():
    def of(*values):
        return estimate(xr.DataArray([list(values)], dims=("seed", "draw")))

    assert of(0.9, 1.1).kind == "range over 2 replicates"
    assert judge(of(0.9, 1.1), (0.8, 1.2)) == AGREES
    assert judge(of(0.5, 1.1), (0.8, 1.2)) == UNDECIDED
    assert judge(of(0.5, 0.6), (0.8, 1.2)) == DISAGREES


def test_an_interval_that_touches_the_region_is_undecided_and_one_beside_it_disagrees():
    def verdict(low, high):
        return judge(Estimate(0.5 * (low + high), low, high, "95 % interval", 6), (0.0, 1.0))

    assert verdict(0.1, 0.9) == AGREES
    assert verdict(-0.1, 0.9) == verdict(0.1, 1.1) == verdict(-1, 2) == UNDECIDED
    assert verdict(1.0, 2.0) == verdict(-1.0, 0.0) == DISAGREES
    assert judge(Estimate(0.5, np.nan, np.nan, "nothing measured", 0), (0.0, 1.0)) == UNDECIDED


def test_one_statement_that_fails_fails_the_law_and_an_open_one_leaves_it_open():
    assert combine([AGREES, UNDECIDED, DISAGREES]) == DISAGREES
    assert combine([AGREES, UNDECIDED]) == UNDECIDED
    assert combine([AGREES, AGREES]) == AGREES


def test_many_seeds_do_not_hide_that_there_are_two_training_sets():
    effect = np.array([-1.0, 1.0]) + 0.01 * np.random.default_rng(0).standard_normal((20, 2))
    found = estimate(xr.DataArray(effect, dims=("seed", "draw")))
    pooled = 1.96 * effect.std(ddof=1) / np.sqrt(effect.size)
    assert found.high - found.low > 10 * pooled
    assert judge(found._replace(value=0.5), (-0.5, 0.5)) == UNDECIDED


def test_the_splits_of_a_draw_are_training_sets_of_their_own_and_twins_belong_to_the_first():
    own, _ = prepared(
        twins("plain").put("memorized_fraction", xr.DataArray(0.0)).cube, xr.Dataset()
    )
    assert own["draw"].values.tolist() == ["0a", "0b", "1a", "1b"]
    assert own["memorized_fraction"].sizes["draw"] == 4
    known = (
        own["twin_denoiser_mse"]
        .notnull()
        .all([d for d in own["twin_denoiser_mse"].dims if d != "draw"])
    )
    assert known.values.tolist() == [True, False, True, False]


def test_widths_below_d_do_not_count_as_capacity_of_an_mlp():
    grid = widths("plain")
    grid.cube.coords["dim"] = 100
    assert prepared(grid.cube, xr.Dataset())[0]["width"].values.tolist() == [128, 256, 512]
    grid.cube.attrs["backbone"] = "unet"
    assert prepared(grid.cube, xr.Dataset())[0].sizes["width"] == 4


def test_a_given_phase_group_and_a_missing_one_lead_to_the_same_verdicts():
    grid = onsets("plain")
    given, computed = (verdicts(grid.cube, p) for p in (phase(grid.cube), xr.Dataset()))
    assert [law.id for law, _ in given] == [law.id for law, _ in computed]
    for (_, a), (_, b) in zip(given, computed, strict=True):
        assert (a.verdict, a.detail, a.quantity) == (b.verdict, b.detail, b.quantity)


@pytest.mark.parametrize("law, make, kinds", CASES[:3], ids=[case[0] for case in CASES[:3]])
def test_every_law_is_either_judged_or_said_to_lack_something(law, make, kinds):
    cube = make("plain").cube
    done = {one.id for one, _ in verdicts(cube, xr.Dataset())}
    lacking = missing(cube, xr.Dataset())
    assert done | set(lacking) == set(LAWS) and not done & set(lacking)
    assert all(lacking.values())
    assert "training_noise_draws" in lacking["L21"]
    assert "twin_denoiser_mse" in lacking["L8"]


def test_all_laws_of_trained_networks_are_there_in_order():
    numbers = [*range(1, 5), 6, *range(8, 14), *range(16, 24)]
    assert list(LAWS) == [f"L{n}" for n in numbers]


@pytest.mark.parametrize("kind, expected", [("flat", AGREES), ("plain", DISAGREES)])
def test_a_u_net_is_asked_for_a_smaller_spectral_exponent(kind, expected):
    assert judged("L6", spectra(kind, "unet")).verdict == expected


@pytest.mark.parametrize("kind, expected", [("plain", AGREES), ("high", DISAGREES)])
def test_a_linear_backbone_is_held_to_the_predicted_distance_itself(kind, expected):
    found = judged("L8", twins(kind, "linear"))
    assert found.verdict == expected
    assert found.value == pytest.approx(1.2 if kind == "high" else 1.0, rel=0.02)


def test_rho_crosses_one_where_it_was_put():
    text = " ".join(judged("L8", twins("plain")).detail)
    assert "falls to 1 at n_train in (32, 64]" in text


def test_a_gap_that_falls_but_for_one_step_is_undecided():
    grid = Grid(kimg=(64.0, 128.0))
    values = xr.DataArray([5.0, 4.0, 3.0, 3.5, 1.0], {"n_train": list(N_TRAIN)}, ("n_train",))
    grid.heldout("psnr_gap", values + grid.noise(0.01) + 0 * grid["kimg"])
    found = judged("L11", grid)
    assert found.verdict == UNDECIDED and found.high < 0
    assert "rise beyond their intervals: 128" in " ".join(found.detail)


def test_a_place_chosen_on_the_other_replicates_makes_no_depth_of_noise():
    rng = np.random.default_rng(1)
    falls = []
    for _ in range(200):
        noise = xr.DataArray(
            rng.standard_normal((2, 3, 8)), {"kimg": np.arange(8)}, ("seed", "draw", "kimg")
        )
        falls.append(valley(noise, "kimg")["fall"].mean().item())
    assert abs(np.mean(falls)) < 3 * np.std(falls) / np.sqrt(200)


def test_trends_are_ranks_and_need_three_points():
    values = xr.DataArray([[1.0, 10.0, 11.0], [3.0, 2.0, np.nan]], {"n": [1, 2, 3]}, ("seed", "n"))
    found = trend(values, "n").values
    assert found[0] == pytest.approx(1) and np.isnan(found[1])


def test_the_auc_is_that_of_mann_and_whitney():
    rng = np.random.default_rng(3)
    score, hit = rng.integers(0, 9, 40).astype(float), (rng.random(40) < 0.4).astype(float)
    expected = mannwhitneyu(score[hit > 0], score[hit == 0]).statistic / (
        hit.sum() * (40 - hit.sum())
    )
    assert separation(score, hit) == pytest.approx(expected)
    assert np.isnan(separation(score, np.zeros(40)))


def copied(kind):
    """A sweep with two copies of each point, and one without; 16 to 256 points, f ~ 1/distinct."""
    plain, twice = Grid(kimg=(64.0, 128.0), split=("a", "b")), Grid(kimg=(64.0, 128.0))
    for grid, k in ((plain, 1), (twice, 2)):
        data = {"name": "digits"} | ({"copies": 2} if k == 2 else {})
        grid.cube["config_json"] = ((), np.array(json.dumps({"data": data}), object))
        factor = {"same": 1, "fewer": 1 / k}.get(kind, k)
        share = 4 * factor / grid["n_train"] + 0 * grid["kimg"]
        noise = grid.noise(0.001)
        if kind == "same":
            noise = noise + 0.05 * (k - 1) * grid.noise(1.0)
        grid.put("memorized_fraction", share + noise)
    return plain.cube, twice.cube


@pytest.mark.parametrize(
    "kind, expected", [("more", AGREES), ("fewer", DISAGREES), ("same", UNDECIDED)]
)
def test_copies_are_compared_with_the_sweep_without_them(kind, expected):
    plain, twice = copied(kind)
    assert "data.copies" in missing(twice, xr.Dataset())["L19"]
    found = {law.id: f for law, f in verdicts(twice, xr.Dataset(), [plain])}["L19"]
    assert found.verdict == expected
    assert "L19" not in {law.id for law, _ in verdicts(plain, xr.Dataset(), [twice])}


def test_copies_are_compared_at_the_same_n_train_and_at_as_many_distinct_points():
    ready = [prepared(cube, xr.Dataset())[0] for cube in copied("more")]
    both = with_plain(ready[1], ready[:1])
    more = both["memorized_fraction"] - both["memorized_fraction_without_copies"]
    equal = both["memorized_fraction"] - both["memorized_fraction_equal_points"]
    assert more.sel(n_train=16).mean().item() == pytest.approx(4 / 16, abs=0.01)
    assert equal.sel(n_train=32).mean().item() == pytest.approx(0, abs=0.01)
    assert equal.sel(n_train=16).isnull().all()


def test_another_learning_rate_is_no_companion():
    plain, twice = copied("more")
    twice.attrs["training_options"] = json.dumps({"lr": 0.2, "labels": "none"})
    plain.attrs["training_options"] = json.dumps({"lr": 0.2})
    assert "L19" not in missing(twice, xr.Dataset(), [plain])
    plain.attrs["training_options"] = json.dumps({"lr": 0.1})
    assert "L19" in missing(twice, xr.Dataset(), [plain])


def test_the_report_has_every_law_and_every_sweep_and_says_what_is_missing():
    sweeps = {
        "one": (onsets("plain").cube, xr.Dataset()),
        "two": (minimum("plain").cube, xr.Dataset()),
    }
    table = as_markdown(sweeps).split("\n\n")[0].splitlines()
    assert {row.count(" | ") for row in table[2:]} == {5}
    named = [row.split(" ")[1] for row in table[2:]]
    assert set(named) == set(LAWS)
    assert sum(row.startswith("| L9 ") for row in table) == 2
    assert any(
        "not judged" in row and "sample_variance" in row for row in table if "| L6 |" in row
    )
    text = as_text(sweeps)
    assert "L9 " in text and "(sweep two)" in text and "Not judged, for want of" in text


def test_the_learning_rate_rule_is_named_with_the_exponent_of_width():
    grid = widths("plain")
    grid.cube.attrs["training_options"] = json.dumps({"lr": 0.004, "lr_width": 192})
    assert "lr 0.004 at width 192, as 1/width" in judged("L3", grid).quantity


def test_intervals_of_correlations_end_at_one():
    values = xr.DataArray([[1.0, 0.8], [0.9, 1.0]], dims=("seed", "draw"))
    found = estimate(values, (-1.0, 1.0))
    assert found.high == 1.0 and judge(found, POSITIVE) in (AGREES, UNDECIDED)


def test_two_replicates_with_the_same_onsets_do_not_agree_beyond_what_snapshots_show(monkeypatch):
    monkeypatch.setattr(Grid, "replicates", (("seed", (0, 1)), ("draw", (0,))))
    grid = Grid(kimg=KIMG[::4], n_train=(16, 32, 64))
    grid.memorize(48 + 2 * grid["n_train"] + 0 * grid["width"]).distance()
    found = judged("L1", grid)
    assert found.kind == "range over 2 replicates and what the snapshots leave open"
    assert found.verdict == UNDECIDED and found.high - found.low > 0.4


@pytest.mark.parametrize(("law", "build"), [("L1", onsets), ("L2", stages)])
def test_where_a_step_sees_every_point_times_are_counted_in_steps(law, build):
    """kimg = n_train steps / 1000, so that a slope in n_train is smaller by exactly 1."""
    drawn, full = build("plain"), build("plain")
    full.cube.attrs["training_options"] = json.dumps({"sampling": "full"})
    of_kimg, of_steps = judged(law, drawn), judged(law, full)
    for end in ("value", "low", "high") if law == "L1" else ():
        assert getattr(of_kimg, end) - getattr(of_steps, end) == pytest.approx(1, abs=1e-9)
    assert "in steps of a full batch" in " ".join([of_steps.quantity, *of_steps.detail])
    assert of_steps.verdict != of_kimg.verdict
