"""Laws of every backbone that is registered, and of the denoiser around it."""

import pytest
import torch

from trainables.architectures import ARCHITECTURES, build, forward_flops, n_params
from trainables.denoiser import EDM, PRECONDITIONINGS, loss

SHAPE = (2, 4, 4)
WIDTHS = (32, 36, 48, 64)


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.fixture
def backbone(name):
    torch.manual_seed(0)
    return build(name, 32, SHAPE)


@pytest.fixture
def stirred(backbone):
    """A backbone whose last layers are not zero."""
    with torch.no_grad():
        for p in backbone.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return backbone


def inputs(n=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *SHAPE, generator=generator, dtype=dtype)
    return x, torch.linspace(-1.5, 1.1, n, dtype=dtype)


def test_an_untrained_backbone_is_the_zero_function(backbone):
    x, c_noise = inputs()
    assert torch.equal(backbone(x, c_noise), torch.zeros_like(x))


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_an_untrained_denoiser_is_the_wiener_filter_of_white_data(backbone, preconditioning):
    y, _ = inputs()
    for sigma in (0.002, 0.5, 80.0):
        wiener = y * 0.75**2 / (sigma**2 + 0.75**2)
        out = PRECONDITIONINGS[preconditioning](backbone, 0.75)(y, sigma)
        torch.testing.assert_close(out, wiener, rtol=1e-5, atol=0)


def test_the_output_has_the_shape_and_type_of_the_input(stirred):
    for dtype in (torch.float32, torch.float64):
        x, c_noise = inputs(dtype=dtype)
        out = stirred.to(dtype)(x, c_noise)
        assert out.shape == x.shape and out.dtype == dtype and out.abs().max() > 0


def test_images_of_a_batch_do_not_see_each_other(stirred):
    x, c_noise = inputs(dtype=torch.float64)
    stirred.double()
    torch.testing.assert_close(stirred(x, c_noise)[1:3], stirred(x[1:3], c_noise[1:3]))


def test_the_output_depends_on_the_noise_level(stirred):
    x, c_noise = inputs()
    assert not torch.allclose(stirred(x, c_noise), stirred(x, c_noise + 0.3))


def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(stirred):
    x, _ = inputs()
    sigma = torch.linspace(0.1, 2, len(x))
    loss(EDM(stirred, 0.5), x, sigma, torch.randn_like(x)).mean().backward()
    for parameter, p in stirred.named_parameters():
        assert torch.isfinite(p.grad).all(), parameter
        assert p.grad.abs().max() > 0, parameter


def test_capacity_and_cost_grow_with_width(name):
    modules = [build(name, width, SHAPE) for width in WIDTHS]
    for sizes in ([n_params(m) for m in modules], [forward_flops(m, SHAPE) for m in modules]):
        assert sizes == sorted(set(sizes))


def test_cost_is_known_without_computing(name, backbone):
    with torch.device("meta"):
        ghost = build(name, 32, SHAPE)
    assert forward_flops(ghost, SHAPE) == forward_flops(backbone, SHAPE) > n_params(backbone)
    assert n_params(ghost) == n_params(backbone)


def test_a_backbone_keeps_no_state_beside_its_parameters(backbone):
    assert backbone.state_dict().keys() == dict(backbone.named_parameters()).keys()


def test_weights_survive_a_round_trip(name, stirred):
    other = build(name, 32, SHAPE)
    other.load_state_dict(stirred.state_dict())
    assert torch.equal(other(*inputs()), stirred(*inputs()))


def test_equal_seeds_give_equal_weights_and_others_do_not(name):
    modules = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        modules.append(torch.cat([p.flatten() for p in build(name, 32, SHAPE).parameters()]))
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
