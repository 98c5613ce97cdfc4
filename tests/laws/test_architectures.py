"""Laws of every backbone that is registered, and of the denoiser around it."""

import inspect

import pytest
import torch
from torch.func import functional_call

from tests.backbones import OPTIONS
from trainables.architectures import (
    ARCHITECTURES,
    DENOISERS,
    build,
    forward_flops,
    n_params,
)
from trainables.denoiser import PRECONDITIONINGS, loss

SHAPE = (2, 4, 4)
D = 32  # pixels
# A width is a rank for some: from d on it changes nothing, and past d/2 the two factors hold more
# numbers than the one full matrix.
WIDTH = {name: 8 if name == "linear" else 32 for name in ARCHITECTURES}
WIDTHS = {name: (2, 4, 8, D) if name == "linear" else (32, 36, 48, 64) for name in ARCHITECTURES}
LEVEL_BLIND = {"linear"}  # one map for all noise levels is what it is for


def made(name, width=None, seed=0, **options):
    torch.manual_seed(seed)
    return build(name, width or WIDTH[name], SHAPE, **{**OPTIONS.get(name, {}), **options})


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.fixture
def backbone(name):
    return made(name)


@pytest.fixture(params=[name for name in ARCHITECTURES if name not in DENOISERS])
def untrained(request):
    """A backbone that must start as the zero function: all but those that are denoisers.

    Where the literature starts near zero, an option makes it zero.
    """
    scaled = "last_scale" in inspect.signature(ARCHITECTURES[request.param]).parameters
    return made(request.param, **({"last_scale": 0.0} if scaled else {}))


def trained(module):
    return [p for p in module.parameters() if p.requires_grad]


@pytest.fixture
def stirred(backbone):
    """A backbone whose last layers are not zero."""
    with torch.no_grad():
        for p in trained(backbone):
            p.add_(0.05 * torch.randn(p.shape))
    return backbone


def inputs(n=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *SHAPE, generator=generator, dtype=dtype)
    return x, torch.linspace(-1.5, 1.1, n, dtype=dtype)


def test_an_untrained_backbone_is_the_zero_function(untrained):
    x, c_noise = inputs()
    assert torch.equal(untrained(x, c_noise), torch.zeros_like(x))


def test_an_untrained_denoiser_is_the_wiener_filter_of_white_data(untrained):
    y, _ = inputs()
    for sigma in (0.002, 0.5, 80.0):
        wiener = y * 0.75**2 / (sigma**2 + 0.75**2)
        out = PRECONDITIONINGS["edm"](untrained, 0.75)(y, sigma)
        torch.testing.assert_close(out, wiener, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("preconditioning", "share"), [("ve", 1.0), ("vp", 1.0), ("none", 0.0)])
def test_an_untrained_denoiser_without_edm_is_the_identity_or_black(
    untrained, preconditioning, share
):
    y, _ = inputs()
    for sigma in (0.002, 0.5, 80.0):
        out = PRECONDITIONINGS[preconditioning](untrained, 0.75)(y, sigma)
        assert torch.equal(out, share * y)


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_a_backbone_that_is_a_denoiser_leaves_a_noiseless_image_and_forgets_a_drowned_one(
    name, backbone
):
    y, _ = inputs()
    denoiser = PRECONDITIONINGS["none"](backbone, 0.75)
    torch.testing.assert_close(denoiser(y, 1e-4), y, atol=1e-4, rtol=0)
    far = denoiser(y, 1e4)
    torch.testing.assert_close(far, far[:1].expand_as(far), atol=1e-2, rtol=0)


def test_the_output_has_the_shape_and_type_of_the_input(stirred):
    for dtype in (torch.float32, torch.float64):
        x, c_noise = inputs(dtype=dtype)
        out = stirred.to(dtype)(x, c_noise)
        assert out.shape == x.shape and out.dtype == dtype and out.abs().max() > 0


def test_images_of_a_batch_do_not_see_each_other(stirred):
    x, c_noise = inputs(dtype=torch.float64)
    stirred.double()
    torch.testing.assert_close(stirred(x, c_noise)[1:3], stirred(x[1:3], c_noise[1:3]))


def test_the_output_depends_on_the_noise_level_unless_the_backbone_is_blind_to_it(name, stirred):
    x, c_noise = inputs()
    same = torch.allclose(stirred(x, c_noise), stirred(x, c_noise + 0.3))
    assert same == (name in LEVEL_BLIND)


def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name, stirred):
    x, _ = inputs()
    sigma = torch.linspace(0.1, 2, len(x))
    denoiser = PRECONDITIONINGS["none" if name in DENOISERS else "edm"](stirred, 0.5)
    loss(denoiser, x, sigma, torch.randn_like(x)).mean().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in trained(stirred))


def test_gradients_are_the_slopes_of_the_output(stirred):
    """In a random direction of all weights and images: one by one takes a thousand passes."""
    x, c_noise = inputs(2, torch.float64)
    points = {name: p.detach() for name, p in stirred.double().named_parameters()}
    ways = {name: torch.randn_like(p) for name, p in points.items()}
    way, seen = torch.randn_like(x), torch.randn_like(x)

    def output(t):
        weights = {name: p + t * ways[name] for name, p in points.items()}
        return (seen * functional_call(stirred, weights, (x + t * way, c_noise))).sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, t, rtol=1e-4)


def test_half_precision_changes_a_trained_output_by_little(stirred):
    x, c_noise = inputs()
    exact = stirred(x, c_noise)
    with torch.autocast("cpu", torch.bfloat16):
        rough = stirred(x, c_noise)
    assert 0 < (rough - exact).norm() < 0.05 * exact.norm()


def test_capacity_and_cost_grow_with_width(name):
    modules = [made(name, width) for width in WIDTHS[name]]
    for sizes in ([n_params(m) for m in modules], [forward_flops(m, SHAPE) for m in modules]):
        assert sizes == sorted(set(sizes))


def test_cost_is_known_without_computing(name, backbone):
    with torch.device("meta"):
        ghost = made(name)
    assert forward_flops(ghost, SHAPE) == forward_flops(backbone, SHAPE) > n_params(backbone)
    assert n_params(ghost) == n_params(backbone)


def test_a_backbone_keeps_no_state_beside_its_parameters(backbone):
    assert backbone.state_dict().keys() == dict(backbone.named_parameters()).keys()


def test_weights_survive_a_round_trip(name, stirred):
    other = made(name, seed=1)
    other.load_state_dict(stirred.state_dict())
    assert torch.equal(other(*inputs()), stirred(*inputs()))


def test_equal_seeds_give_equal_weights_and_others_do_not(name):
    modules = []
    for seed in (0, 0, 1):
        modules.append(torch.cat([p.flatten() for p in made(name, seed=seed).parameters()]))
    assert torch.equal(modules[0], modules[1]) and not torch.equal(modules[0], modules[2])


@pytest.mark.parametrize("width", [0, -4, True])
def test_an_impossible_width_is_an_error_naming_it(name, width):
    with pytest.raises(ValueError, match=rf"{name}: `width` must be .*, got "):
        build(name, width, SHAPE)


def test_an_unknown_option_is_an_error_naming_the_allowed_ones(name):
    with pytest.raises(ValueError, match="no option 'colour': allowed are"):
        build(name, 32, SHAPE, colour=1)


def test_an_unknown_architecture_is_an_error_naming_the_nearest():
    with pytest.raises(ValueError, match=r"choose from .*Did you mean 'unet'\?"):
        build("unett", 32, SHAPE)
