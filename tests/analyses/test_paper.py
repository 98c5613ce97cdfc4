import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from analyses.paper import FIGURES_OF_PAPER, draw, needs, title
from analyses.paper.sheets import image_shape
from analyses.style import render
from tests.analyses.cubes import lose

SIGMA = (80.0, 42.4, 9.72, 4.07, 1.5, 0.47, 0.117, 0.002)
D, SAMPLES, INPUTS, SHOWN, MODES = 16, 12, 6, 4, 16
AXES = {
    "width": [64, 128],
    "n_train": [16, 64, 256],
    "seed": [0, 1],
    "draw": [0],
    "split": ["a", "b"],
    "training_preconditioning": ["edm", "ve"],
    "kimg": [4.0, 16.0, 64.0],
}
SIZES = {
    "sigma": SIGMA,
    "inputs": ["train", "heldout"],
    "reference": ["gaussian", "gaussian_pool", "kappa", "empirical", "linear"],
    "alpha2": [0.99, 0.745, 0.5],
    "trajectory_denoiser": ["network", "linear", "gaussian", "empirical"],
    "step": [-1.0, 0.0, 1.0],
}
UNLABELLED = {
    "pixel": D,
    "sample": SAMPLES,
    "input": INPUTS,
    "shown": SHOWN,
    "mode": MODES,
    "fit_mode": 4,
    "wiener_mode": 4,
}
LAW = ("sigma", "inputs")
BOTH = ("sigma", "reference", "inputs")
LINEARITY = [
    f"{kind}_{score}{centred}"
    for kind in ("linearity", "mixing")
    for score, centred in (("cosine", ""), ("cosine", "_centred"), ("nmse", ""))
]
DIMS = (
    {
        f"{name}{oracle}": LAW if name.startswith("linearity") else ("sigma", "alpha2")
        for name in LINEARITY
        for oracle in ("", "_se", "_gaussian", "_empirical")
    }
    | {
        f"{name}{oracle}": LAW
        for name in ("affine_r2", "weight_distance", "weight_asymmetry")
        for oracle in ("", "_empirical")
    }
    | dict.fromkeys(("linear_gaussian_rmse", "empirical_gaussian_rmse"), LAW)
    | dict.fromkeys(("identity_distance", "identity_cosine"), LAW)
    | dict.fromkeys(("denoiser_rmse", "denoiser_rmse_se", "denoiser_nmse"), BOTH)
    | {
        "trajectory": ("trajectory_denoiser", "sigma", "shown", "pixel"),
        "outputs": ("sigma", "input", "pixel"),
        "outputs_noise": ("sigma", "input", "pixel"),
        "samples": ("sample", "pixel"),
        "nearest_distance": ("sample",),
        "nearest_index": ("sample",),
        "generalization_score": (),
        "weight_singular_value": ("sigma", "mode"),
        "singular_vector_cosine": ("sigma", "mode"),
        "principal_cosine": ("sigma", "mode"),
        "singular_correlation": ("sigma", "fit_mode", "wiener_mode"),
        "jacobian_mode_overlap": ("sigma", "mode"),
        "jacobian_subspace_overlap": ("sigma",),
        "jacobian_asymmetry": ("sigma",),
        "jacobian_perturbation": ("sigma", "step", "pixel"),
        "train_eigenvalues": ("mode",),
        "twin_mse": (),
        "twin_to_train_ratio": (),
    }
)


def complete(**axes):
    """A cube with every variable that a figure draws: numbers in (0, 1) without any meaning."""
    axes = AXES | axes
    rng = np.random.default_rng(3)
    labels = {k: np.array(v, object if isinstance(v[0], str) else None) for k, v in axes.items()}
    labels |= {
        k: np.array(v, object if isinstance(v[0], str) else float) for k, v in SIZES.items()
    }
    sizes = {k: len(v) for k, v in labels.items()} | UNLABELLED
    cells = tuple(axes)
    cube = xr.Dataset(coords=labels, attrs={"backbone": "mlp", "dataset": "digits"})
    for name, own in DIMS.items():
        grid = [d for d in cells if not (name.startswith("twin") and d == "split")]
        if name == "train_eigenvalues":
            grid = ["n_train", "draw", "split"]
        dims = (*grid, *own)
        cube[name] = (dims, rng.uniform(0.01, 0.99, [sizes[d] for d in dims]))
    cube["nearest_index"] = (cube["nearest_index"] * 16).round()
    cube["exposure"] = ("sigma", np.linspace(0, 0.3, len(SIGMA)))
    cube["status"] = (cells, np.full([sizes[d] for d in cells], 2, np.int8))
    return cube


@pytest.fixture(scope="module")
def cube():
    return complete()


@pytest.fixture(scope="module")
def lone():
    """One replicate: every mean is a number of the cube."""
    return complete(seed=[0])


@pytest.fixture(scope="module")
def drawn(cube):
    return {number: draw(number, cube, xr.Dataset()) for number in FIGURES_OF_PAPER}


@pytest.fixture(params=FIGURES_OF_PAPER)
def number(request):
    return request.param


def test_there_are_thirty_figures():
    assert list(FIGURES_OF_PAPER) == [str(i) for i in range(1, 31)]


def test_every_line_and_its_numbers_are_in_the_table(number, drawn):
    figure, table = drawn[number]
    known = set(np.round(table["value"].dropna(), 12))
    for axes in figure.findobj(Axes):
        for line in axes.get_lines():
            places = np.asarray(line.get_ydata(), float)
            assert set(np.round(places[np.isfinite(places)], 12)) <= known


def test_of_a_single_replicate_the_table_holds_the_cubes_own_numbers(number, lone):
    _, table = draw(number, lone, xr.Dataset())
    values = {name: set(lone[name].values.astype(float).ravel()) for name in DIMS}
    pixels = set.union(
        *(values[n] for n in ("trajectory", "outputs", "outputs_noise", "samples")),
        values["jacobian_perturbation"],
    )
    checked = 0
    for variable, rows in table.groupby("variable"):
        name = str(variable).split(",")[0].split(" (")[0]
        allowed = pixels if name == "pixel value" else values.get(name)
        if allowed is not None:
            assert set(rows["value"].dropna()) <= allowed, variable
            checked += len(rows)
    # Known levels (chance, 0.6), transforms of a variable and matrices called by their meaning.
    others = {
        *("published level", "level", "chance", "zero", "root of twin_mse", "|cosine|"),
        "train_eigenvalues / (train_eigenvalues + sigma^2)",
    }
    assert checked or set(table["variable"]) <= others


def test_a_line_is_the_mean_over_seeds_of_the_cells_that_the_figure_names(cube, drawn):
    _, table = drawn["7"]
    rows = table[(table.part == "(a) to D_G of the training set") & (table.line == "128")]
    at = dict(width=128, n_train=16, draw=0, split="a", kimg=64, inputs="heldout")
    at |= dict(training_preconditioning="edm", reference="gaussian")
    own = cube.denoiser_rmse.sel(at).sortby("sigma")
    np.testing.assert_allclose(rows.value, own.mean("seed"))
    np.testing.assert_array_equal(rows.low, own.min("seed"))
    np.testing.assert_array_equal(rows.high, own.max("seed"))
    assert rows.x.tolist() == sorted(SIGMA)
    assert set(rows.replicates) == {2}
    assert set(rows.band) == {"range over the 2 replicates (too few for an interval)"}


def test_a_single_replicate_has_its_own_standard_error_as_band(lone):
    rows = draw("6", lone, xr.Dataset())[1]
    rows = rows[(rows.part == "(b) to D_kappa") & (rows.line == "64")]
    at = dict(width=128, n_train=64, draw=0, seed=0, split="a", kimg=64, inputs="heldout")
    at |= dict(training_preconditioning="edm", reference="kappa")
    own = lone.sel(at).sortby("sigma")
    half = 1.96 * own.denoiser_rmse_se
    np.testing.assert_allclose(rows.high, own.denoiser_rmse + half)
    assert set(rows.band) == {"± 1.96 s.e. over held-out images (a single replicate)"}


def test_samples_and_distances_are_those_of_the_first_seed_and_the_last_snapshot(cube, drawn):
    _, table = drawn["12"]
    at = dict(width=128, n_train=64, seed=0, draw=0, split="a", kimg=64)
    own = cube.sel(at).sel(training_preconditioning="edm")
    rows = table[table.line == "n_train 64"]
    pixels = rows[rows.variable == "pixel value"]
    np.testing.assert_array_equal(pixels.value, own.samples[:10].values.ravel())
    captions = rows[rows.variable == "nearest_distance (pixel)"]
    np.testing.assert_array_equal(captions.value, own.nearest_distance[:10])


def test_with_training_images_the_nearest_ones_stand_below_the_samples(cube):
    asked = []

    def train(where):
        asked.append(where)
        return np.arange(where["n_train"] + 1)[:, None] / 300 * np.ones(D)

    _, table = draw("12", cube, xr.Dataset(), train)
    assert [where["n_train"] for where in asked] == [16, 64, 256]
    assert asked[0] == {
        **dict(width=128, n_train=16, seed=0, draw=0, split="a"),
        "training_preconditioning": "edm",
    }
    own = cube.sel(width=128, seed=0, draw=0, split="a", kimg=64, training_preconditioning="edm")
    rows = table[table.line == "nearest"]
    expected = own.nearest_index[:, :10].values.ravel() / 300
    np.testing.assert_allclose(rows.value, np.repeat(expected, D))


def test_a_matrix_is_that_of_the_noise_level_in_its_title(cube, drawn):
    _, table = drawn["4"]
    rows = table[table.part == "(c) sigma 80"]
    at = dict(width=128, n_train=256, seed=0, draw=0, split="a", kimg=64, sigma=80)
    own = cube.singular_correlation.sel(at).sel(training_preconditioning="edm")
    np.testing.assert_array_equal(rows.value, own.values.ravel())


def test_singular_values_stand_beside_lam_over_lam_plus_sigma_squared(cube, drawn):
    _, table = drawn["14"]
    lam = cube.train_eigenvalues.sel(n_train=256, draw=0, split="a").values
    rows = table[table.line == "Wiener, 4.07"]
    np.testing.assert_allclose(rows.value, lam / (lam + 4.07**2))


def test_twins_are_compared_at_large_n_small_n_early_and_small_width(cube, drawn):
    _, table = drawn["9"]
    rows = table[table.variable == "root of twin_mse"]
    one = cube.twin_mse.sel(draw=0, training_preconditioning="edm")
    cells = [(128, 256, 64), (128, 16, 64), (128, 16, 4), (64, 16, 64)]
    expected = [
        float(np.sqrt(one.sel(width=w, n_train=n, kimg=t)).mean("seed")) for w, n, t in cells
    ]
    np.testing.assert_allclose(rows.value, expected)
    names = ["large N", "small N", "small N, early", "small N, small width"]
    assert rows.place.tolist() == names


def test_early_is_the_snapshot_nearest_to_the_gaussian_denoiser(cube):
    trial = [d for d in AXES if d != "kimg"]
    dims, shape = (*trial, "reference"), [len(AXES[d]) for d in trial]
    times = np.full([*shape, 2], 4.0)
    times[..., 0] = 20.0
    coords = {d: cube[d] for d in trial} | {"reference": ["gaussian", "kappa"]}
    phase = xr.Dataset({"tau_gauss": (dims, times)}, coords)
    parts = set(draw("9", cube, phase)[1]["part"])
    assert any("early" in part and "16 kimg" in part for part in parts)


def test_autoencoders_of_one_noise_level_are_read_at_that_level():
    made = complete(training_preconditioning=["none"])
    made = made.rename(training_preconditioning="training_sigma")
    made = made.isel(training_sigma=0, drop=True).drop_vars("status")
    half = xr.DataArray([1.0, 0.5], coords={"training_sigma": [1.5, 80.0]})
    made = made * half
    _, table = draw("24", made, xr.Dataset())
    rows = table[(table.part == "(b) to D_kappa") & (table.line == "one noise level each")]
    own = made.denoiser_rmse.sel(
        dict(width=128, n_train=256, draw=0, split="a", kimg=64, reference="kappa")
    ).sel(inputs="heldout")
    expected = [own.sel(training_sigma=s, sigma=s).mean("seed") for s in (1.5, 80.0)]
    np.testing.assert_allclose(rows.value, expected)
    far = made.assign_coords(training_sigma=[2.0, 80.0])
    with pytest.raises(ValueError, match=r"paper/24: training\.sigma 2 is not among the noise"):
        draw("24", far, xr.Dataset())


def test_low_noise_shows_only_levels_up_to_1_and_the_floor_where_it_is_known(cube):
    _, table = draw("16", cube, xr.Dataset())
    assert table.x.max() < 1
    assert "rank_floor" not in set(table.variable)
    floor = cube.denoiser_rmse.isel(sigma=0, inputs=0, reference=0, width=0, kimg=0, drop=True)
    _, table = draw("16", cube.assign(rank_floor=floor), xr.Dataset())
    rows = table[table.line == "floor at sigma 0, 64"]
    at = dict(n_train=64, split="a", training_preconditioning="edm")
    np.testing.assert_allclose(rows.value, float(floor.sel(at).mean()))


def test_intermediate_noise_is_the_level_nearest_to_4(drawn):
    assert any("sigma 4.07" in part for part in drawn["5"][1]["part"])
    assert all("sigma 4.07" in part for part in drawn["18"][1]["part"])


def test_the_gaussian_denoisers_outputs_stand_below_where_the_cube_has_them(cube):
    more = cube.assign(
        {f"{n}_gaussian": 0.5 * cube[n].isel(width=0) for n in ("outputs", "outputs_noise")}
    )
    assert "D_G" not in set(draw("5", cube, xr.Dataset())[1]["line"])
    assert "D_G" in set(draw("5", more, xr.Dataset())[1]["line"])


@pytest.mark.parametrize("part", ["nothing", "coordinates"])
def test_an_empty_cube_is_told_what_the_figure_needs(number, cube, part):
    empty = xr.Dataset() if part == "nothing" else cube[list(cube.coords)]
    with pytest.raises(ValueError, match=rf"^paper/{number} needs ") as found:
        draw(number, empty, xr.Dataset())
    message = str(found.value)
    assert needs(number) in message
    assert message.endswith(".") and message.count("; this cube has ") == 1
    for analysis in FIGURES_OF_PAPER[number].needs.analyses:
        assert analysis in message


def test_each_missing_variable_is_named_with_its_analysis(number, cube):
    for analysis, variables in FIGURES_OF_PAPER[number].needs.analyses.items():
        for name in variables:
            with pytest.raises(ValueError, match=rf"this cube has no {name} \({analysis}\)\.$"):
                draw(number, cube.drop_vars(name), xr.Dataset())


def test_each_missing_axis_is_named(number, cube):
    for axis in FIGURES_OF_PAPER[number].needs.axes:
        key = {"kimg": "kimg", "alpha2": "alpha2"}.get(axis, f"axes.{axis}")
        key = key.replace("training_", "training.")
        with pytest.raises(ValueError, match=rf"paper/{number} needs at least 2 .*{key}.* has 1 "):
            draw(number, cube.isel({axis: [0]}), xr.Dataset())


def test_the_error_of_figure_7_reads_as_it_should(cube):
    with pytest.raises(
        ValueError,
        match=r"^paper/7 needs at least 2 widths \(axes\.width\) and the analysis gaussian; "
        r"this cube has 1 width\.$",
    ):
        draw("7", cube.isel(width=[0]), xr.Dataset())


@pytest.mark.parametrize("number", ["5", "14", "17", "18", "19", "20", "21"])
def test_missing_noise_levels_are_named(number, cube):
    with pytest.raises(ValueError, match=r"this cube has .*noise level"):
        draw(number, cube.isel(sigma=[-1]), xr.Dataset())


def test_models_are_compared_only_where_an_axis_has_two_of_them(cube):
    one = cube.isel(training_preconditioning=[0])
    for number in ("23", "24", "25"):
        with pytest.raises(ValueError, match=r"axes\.training\.preconditioning or axes\.backbone"):
            draw(number, one, xr.Dataset())
    depth = cube.rename(training_preconditioning="backbone_depth")
    rows = draw("23", depth, xr.Dataset())[1]["line"]
    assert set(rows) == {"D_G", "backbone_depth edm", "backbone_depth ve"}


def test_images_that_are_not_square_are_refused(cube):
    with pytest.raises(ValueError, match="images of 15 pixels are not square"):
        draw("3", cube.isel(pixel=slice(15)), xr.Dataset())


def test_colour_images_are_square_with_three_channels():
    assert image_shape(3 * 14**2) == (3, 14, 14)
    assert image_shape(28**2) == (1, 28, 28)


@pytest.mark.parametrize("number", ["3", "6", "12"])
def test_cells_that_are_not_measured_yet_are_no_figure(number, cube):
    hole = lose(cube, kimg=64)
    with pytest.raises(ValueError, match=f"^paper/{number}: none of its cells is measured yet"):
        draw(number, hole, xr.Dataset())


def test_one_lost_trial_does_not_stop_a_figure(number, cube):
    lost = lose(cube, n_train=64, width=128, seed=0)
    figure, table = draw(number, lost, xr.Dataset())
    whole = draw(number, cube, xr.Dataset())[1]
    lines, known = (t[t.variable != "nearest_distance (pixel)"] for t in (table, whole))
    assert lines[["part", "line", "x"]].equals(known[["part", "line", "x"]])
    assert render(figure, "png", dpi=20)


def test_an_unknown_figure_is_refused_with_the_choices(cube):
    for ask in (title, needs, lambda number: draw(number, cube, xr.Dataset())):
        with pytest.raises(ValueError, match=r"Unknown figure '31' of the paper: .*1, 2, .*30"):
            ask("31")


def test_equal_cubes_give_equal_bytes_and_tables(number, cube, drawn):
    figure, table = draw(number, cube, xr.Dataset())
    assert render(figure, "png", dpi=25) == render(drawn[number][0], "png", dpi=25)
    assert table.equals(drawn[number][1])


@pytest.mark.parametrize("number", ["2", "4"])
def test_a_pdf_embeds_its_fonts_and_is_the_same_twice(number, cube):
    once, twice = (render(draw(number, cube, xr.Dataset())[0], "pdf") for _ in range(2))
    assert once == twice
    assert b"/FontFile2" in once and b"/Subtype /Type3" not in once


def test_titles_name_the_data_and_what_is_shown(number, drawn):
    figure, _ = drawn[number]
    words = " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())
    assert f"{title(number)}: mlp on digits" in words
    assert f"As figure {number} of arXiv:2410.24060." in words
    assert "Images: first seed and draw" in words or "2 seeds, 1 draw" in words


def test_no_text_overlaps_another_or_leaves_the_picture(number, cube):
    figure, _ = draw(number, cube, xr.Dataset())
    FigureCanvasAgg(figure)
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    figure.draw(renderer)  # the layout of nested figures settles at the second pass
    placed = list(_texts(figure, renderer))
    for i, (one, a) in enumerate(placed):
        assert a.x0 >= -1 and a.y0 >= -1, one
        assert a.x1 <= figure.bbox.x1 + 1 and a.y1 <= figure.bbox.y1 + 1, one
        for other, b in placed[:i]:
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
            assert apart, (one, other)


def _texts(figure, renderer):
    """Every text that shows, as (text, box in pixels)."""
    hidden = set()
    for axes in figure.findobj(Axes):
        for axis in (axes.get_xaxis(), axes.get_yaxis()):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            for tick in ticks:
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
                hidden |= {t for t in (tick.label1, tick.label2) if not t.get_visible()}
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and text not in hidden:
            yield text.get_text(), text.get_window_extent(renderer)
