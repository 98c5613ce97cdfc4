import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses.figures import FIGURES, plotted
from analyses.phase import phase
from analyses.style import line_style, log_edges, render
from tests.analyses.cubes import cube, lose


@pytest.fixture(scope="module")
def quick():
    return lose(cube(), width=256, n_train=64, kimg=64)


@pytest.fixture(scope="module")
def found(quick):
    return phase(quick)


@pytest.fixture(params=FIGURES)
def name(request):
    return request.param


def texts(figure):
    """Every text that shows, as (text, box in pixels)."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    shown = [figure.get_suptitle() and figure._suptitle]
    for legend in figure.legends:
        shown += [legend.get_title(), *legend.get_texts()]
    for axes in figure.axes:
        shown += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            shown += [label for place, label in ticks if low <= place <= high]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in shown if t.get_text().strip()]


def drawn(name, quick, found):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = FIGURES[name](quick, found)
    FigureCanvasAgg(figure)
    return figure


def test_no_text_leaves_the_picture(name, quick, found):
    figure = drawn(name, quick, found)
    for text, box in texts(figure):
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


def test_no_two_texts_overlap(name, quick, found):
    placed = texts(drawn(name, quick, found))
    for i, (one, a) in enumerate(placed):
        for other, b in placed[:i]:
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
            assert apart, (one, other)


def test_dense_axes_drop_labels_instead_of_letting_them_touch(name):
    sigma = (0.002, 0.0204, 0.1166, 0.47, 1.5, 4.07, 9.72, 21.1, 42.4, 80)
    made = cube(kimg=tuple(range(16, 400, 16)), sigma=sigma, images=16)
    placed = texts(drawn(name, made, phase(made)))
    for i, (one, a) in enumerate(placed):
        for other, b in placed[:i]:
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
            assert apart, (one, other)


def test_titles_name_the_data_the_backbone_and_the_counts(name, quick, found):
    words = " ".join(text for text, _ in texts(drawn(name, quick, found)))
    for needed in ("mlp on digits", "1 seed(s)", "2 draw(s)", "384", "256"):
        assert needed in words


def test_every_axis_is_labelled(name, quick, found):
    axes = FIGURES[name](quick, found).axes
    assert axes[0].get_xlabel() and axes[0].get_ylabel()


def test_a_pdf_embeds_its_fonts_as_text_and_is_the_same_twice(name, quick, found):
    once, twice = (render(FIGURES[name](quick, found), "pdf") for _ in range(2))
    assert once == twice
    assert b"/FontFile2" in once  # TrueType, and not the bitmaps of type 3
    assert b"/Subtype /Type3" not in once


def test_the_table_holds_what_is_drawn(quick, found):
    table = plotted("gaussian_distance", quick, found)
    lines = FIGURES["gaussian_distance"](quick, found).axes[0].get_lines()
    first = next(line for line in lines if line.get_label() == "16")
    rows = table[table.n_train == 16]
    np.testing.assert_array_equal(first.get_ydata(), rows.denoiser_rmse)
    assert rows[rows.is_minimum].kimg.tolist() == [48]


def test_below_four_replicates_the_band_is_their_range(quick, found):
    table = plotted("gaussian_distance", quick, found)
    rmse = quick.denoiser_rmse.sel(width=256, inputs="heldout", reference="gaussian", sigma=0.47)
    both = rmse.squeeze(drop=True).transpose("n_train", "kimg", "draw").values
    for end, of in (("low", np.fmin), ("high", np.fmax)):
        np.testing.assert_array_equal(table[f"band_{end}"], of.reduce(both, axis=-1).ravel())
    axes = FIGURES["gaussian_distance"](quick, found).axes[0]
    assert "band: range over the 2 replicates" in axes.get_title(loc="left")
    drawn = axes.collections[0].get_paths()[0].vertices[:, 1]
    first = table[table.n_train == 16]
    assert (drawn.min(), drawn.max()) == (first.band_low.min(), first.band_high.max())


@pytest.mark.parametrize("name", ["gaussian_distance", "linearity"])
@pytest.mark.parametrize(
    ("axes", "band"),
    [
        ({"seed": (0, 1)}, "95 % interval of the mean, seeds and draws crossed"),
        ({"draw": (0, 1, 2)}, "range over the 3 replicates"),
        ({"draw": (0,)}, "a single replicate"),
    ],
    ids=str,
)
def test_the_subtitle_says_what_the_band_is(name, axes, band):
    made = cube(**axes, images=16)
    assert band in FIGURES[name](made, phase(made)).axes[0].get_title(loc="left")


def test_one_lost_replicate_of_four_turns_every_band_into_a_range():
    made = lose(cube(seed=(0, 1), images=16), width=256, n_train=64, seed=1, draw=0, kimg=64)
    assert plotted("gaussian_distance", made, phase(made)).band.iloc[0].startswith("range over")


def test_noise_levels_that_training_hardly_draws_are_shaded(quick, found):
    assert not FIGURES["linearity"](quick, found).axes[0].patches
    seen = quick.assign(exposure=("sigma", [0.3, 0.2, 0.2, 0.1, 0.04, 0.0]))
    shaded = FIGURES["linearity"](seen, found).axes[0].patches
    assert [patch.get_x() for patch in shaded] == pytest.approx([7.5**0.5, 10.0])


def test_the_boundary_table_holds_the_onset_of_the_mean(quick, found):
    table = plotted("memorized_fraction_kimg", quick, found)
    row = table[(table.n_train == 16) & (table.level == 0.05)].iloc[0]
    assert (row.boundary_low, row.boundary_high) == (64, 96)
    far = table[(table.n_train == 256) & (table.level == 0.5)].iloc[0]
    assert np.isinf(far.boundary_high)


@pytest.mark.parametrize("figure", ["memorized_fraction_width", "memorized_fraction_kimg"])
def test_cells_have_geometric_edges_and_missing_ones_are_masked(figure, quick, found):
    mesh = FIGURES[figure](quick, found).axes[0].collections[0]
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(
        corners[0, 1:-1, 0], np.sqrt([16 * 32, 32 * 64, 64 * 128, 128 * 256])
    )
    missing = np.ma.getmaskarray(mesh.get_array()).sum()
    assert missing == (1 if figure.endswith("kimg") else 0)


def test_edges_of_uneven_places_lie_at_geometric_middles():
    np.testing.assert_allclose(log_edges(np.array([1.0, 4, 64])), [0.5, 2, 16, 256])
    np.testing.assert_allclose(log_edges(np.array([8.0])), [8 / np.sqrt(2), 8 * np.sqrt(2)])


def test_lines_differ_by_luminance_marker_and_dash():
    styles = [line_style(i, 5) for i in range(5)]
    light = [np.dot(s["color"][:3], (0.2126, 0.7152, 0.0722)) for s in styles]
    assert light == sorted(light) and np.diff(light).min() > 0.05
    assert len({s["marker"] for s in styles}) == len({str(s["linestyle"]) for s in styles}) == 5


@pytest.mark.parametrize(
    "small",
    [
        {"draw": (0,)},
        {"n_train": (64,)},
        {"width": (256,)},
        {"kimg": (384,)},
        {"sigma": (0.5,)},
        {"training_lr": (1e-3, 4e-3)},
        {"kimg": (0, 64, 384)},
        {"split": ("a", "b")},
    ],
    ids=str,
)
def test_a_figure_of_a_small_or_wide_cube_can_be_drawn(name, small):
    made = cube(**small, images=16)
    figure = FIGURES[name](made, phase(made))
    assert isinstance(figure, Figure)
    assert render(figure, "png", dpi=30).startswith(b"\x89PNG")


def test_the_shown_value_of_a_further_axis_is_named():
    made = cube(training_lr=(1e-3, 4e-3), images=16)
    words = FIGURES["linearity"](made, phase(made)).axes[0].get_title(loc="left")
    assert "training_lr 0.001 (first of 2)" in words


@pytest.mark.parametrize(
    ("figure", "variable"),
    [
        ("memorized_fraction_width", "memorized_fraction"),
        ("memorized_fraction_kimg", "memorized_fraction"),
        ("gaussian_distance", "denoiser_rmse"),
        ("linearity", "linearity_cosine_centred_empirical"),
    ],
)
def test_a_missing_variable_is_named(quick, found, figure, variable):
    with pytest.raises(ValueError, match=f"needs {variable}"):
        FIGURES[figure](quick.drop_vars(variable), found)


def test_an_unknown_figure_is_refused_with_the_choices(quick, found):
    with pytest.raises(ValueError, match=r"Unknown figure 'boundary'.*gaussian_distance"):
        plotted("boundary", quick, found)
