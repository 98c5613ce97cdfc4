"""Networks of the EDM format: read without being run, and equal to their equations."""

import math
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainables.edm_network import NCSN, Network, pickled
from trainables.pretrained import format_of, load
from trainables.pretrained.modules import read

CPU = torch.device("cpu")
SMALL = {
    "img_resolution": 16,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
}
OUTER = {"img_resolution": 16, "img_channels": 3, "label_dim": 0}
NETWORKS = {
    "ddpmpp": ("SongUNet", {}),
    "ncsnpp": ("SongUNet", NCSN),
    "skips": ("SongUNet", {"encoder_type": "skip", "decoder_type": "skip", "augment_dim": 9}),
    "adm": ("DhariwalUNet", {"augment_dim": 6}),
    "adm heads": ("DhariwalUNet", {"model_channels": 64}),
}


def edm(network, y, s):
    """D of the EDM preconditioning with sigma_data .5."""
    total = s**2 + 0.25
    f = network(y / math.sqrt(total), torch.full((len(y),), math.log(s) / 4, dtype=y.dtype))
    return 0.25 / total * y + 0.5 * s / math.sqrt(total) * f


def vp(network, y, s):
    """D of the VP preconditioning, M = 1000, beta_d = 19.9, beta_min = .1."""
    t = (math.sqrt(0.01 + 2 * 19.9 * math.log1p(s**2)) - 0.1) / 19.9
    code = torch.full((len(y),), 999 * t, dtype=y.dtype)
    return y - s * network(y / math.sqrt(1 + s**2), code)


def ve(network, y, s):
    """D of the VE preconditioning."""
    code = torch.full((len(y),), math.log(s / 2), dtype=y.dtype)
    return y + s * network(y, code)


PRECONDITIONS = {"EDMPrecond": edm, "VPPrecond": vp, "VEPrecond": ve}


def made(name, precondition="EDMPrecond"):
    """A network with its weights drawn, and noisy images."""
    kind, more = NETWORKS[name]
    network = Network(kind, {**SMALL, **more})
    y = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return network, y, PRECONDITIONS[precondition](network, y, 0.7)


def on_disk(tmp_path, data):
    """A file of the format."""
    path = tmp_path / "network-snapshot.pkl"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layout_is_the_network_of_its_equations(tmp_path, name):
    network, y, expected = made(name)
    source = on_disk(tmp_path, pickled(network, "EDMPrecond", OUTER))
    assert format_of(source) == "edm"
    found = load(source, CPU)
    assert found.shape == (3, 16, 16)
    trained = [w for n, w in network.weights.items() if n != "map_noise.freqs"]
    assert found.about["n_params"] == sum(w.numel() for w in trained)
    torch.testing.assert_close(found.denoise(y, 0.7), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precondition", PRECONDITIONS)
def test_every_preconditioning_is_that_of_its_equations(tmp_path, precondition):
    network, y, expected = made("ddpmpp", precondition)
    found = load(on_disk(tmp_path, pickled(network, precondition, OUTER)), CPU)
    torch.testing.assert_close(found.denoise(y, 0.7), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("protocol", "old"), [(2, True), (3, True), (2, False), (4, False)])
def test_numbers_of_either_numpy_are_read_in_every_protocol(tmp_path, protocol, old):
    network, y, expected = made("ddpmpp")
    data = pickled(network, "EDMPrecond", OUTER, protocol=protocol)
    new = b"numpy._core.multiarray"
    assert new in data
    if old:  # below protocol 4 a name is a line of its own
        data = data.replace(new, b"numpy.core.multiarray")
    source = on_disk(tmp_path, data)
    torch.testing.assert_close(load(source, CPU).denoise(y, 0.7), expected, rtol=1e-4, atol=1e-4)
    inner = read(source)["ema"].part("model")
    assert inner.part("map_layer0").arguments == {"skip_scale": math.sqrt(0.5)}
    assert inner.state["init"]["init_weight"] == float(np.sqrt(np.float32(0.2)))
    assert type(inner.state["adaptive_scale"]) is bool and type(inner.state["num_heads"]) is int


@pytest.mark.parametrize(
    ("dtype", "data", "message"),
    [
        ("f8", bytes(7), "a number of type f8 with 7 bytes"),
        ("f8", "x" * 8, "without a plain type or without bytes"),
        ("O8", bytes(8), "'O8' instead of numbers"),
        ("M8", bytes(8), "'M8' instead of numbers"),
        (None, bytes(8), "without a plain type or without bytes"),
    ],
)
def test_what_is_no_plain_number_of_numpy_is_refused(tmp_path, dtype, data, message):
    kind = None if dtype is None else Hostile(np.dtype, dtype)
    source = on_disk(tmp_path, pickle.dumps(Hostile(np.float64(0).__reduce__()[0], kind, data)))
    with pytest.raises(ValueError, match=f"refused pickle: .*{message}"):
        read(source)


def test_half_precision_weights_are_read_in_single(tmp_path):
    network, y, expected = made("ncsnpp")
    found = load(
        on_disk(tmp_path, pickled(network, "EDMPrecond", OUTER, dtype=torch.float16)), CPU
    )
    error = (found.denoise(y, 0.7) - expected).abs().max()
    assert 1e-6 < error < 0.05


def test_filters_that_lie_beside_the_weights_are_no_weights(tmp_path):
    network, y, expected = made("ncsnpp")

    def with_filters(tensors):
        return {**tensors, "enc.8x8_down.conv0.resample_filter": torch.ones(1, 1, 4, 4)}

    data = pickled(network, "EDMPrecond", OUTER, change=with_filters)
    found = load(on_disk(tmp_path, data), CPU)
    torch.testing.assert_close(found.denoise(y, 0.7), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: w for k, w in t.items() if k != "map_layer0.bias"}, "no weights for embed"),
        (lambda t: {**t, "enc.8x8_block7.conv0.weight": torch.ones(3)}, "no place for enc.8x8_b"),
        (lambda t: {**t, "map_layer0.bias": torch.ones(3)}, r"map_layer0.bias is \(3,\), wanted"),
        (lambda t: {k: w.int() for k, w in t.items()}, "is of torch.int32, wanted floating-point"),
    ],
)
def test_tensors_of_another_layout_are_refused(tmp_path, change, message):
    network, _, _ = made("ddpmpp")
    source = on_disk(tmp_path, pickled(network, "EDMPrecond", OUTER, change=change))
    with pytest.raises(ValueError, match=message):
        load(source, CPU)


@pytest.mark.parametrize(
    ("precondition", "told", "message"),
    [
        ("EDMPrecond", {**OUTER, "label_dim": 10}, "told 10 classes"),
        ("Surprise", OUTER, "class 'Surprise'; known are EDMPrecond"),
        ("EDMPrecond", {**OUTER, "img_channels": 0}, "images of 0 channels, 16 pixels wide"),
        ("EDMPrecond", {**OUTER, "img_channels": 10**9}, "would have more weights than the file"),
        ("EDMPrecond", {"img_channels": 3}, "an argument is missing or of another kind"),
        ("EDMPrecond", {**OUTER, "img_resolution": 17}, "mult"),
        ("EDMPrecond", {**OUTER, "sigma_min": 5, "sigma_max": 1}, "noise levels from 5 to 1"),
        ("EDMPrecond", {**OUTER, "sigma_data": math.nan}, "with sigma_data nan"),
        ("VPPrecond", {**OUTER, "beta_d": 20}, "beta_d 20: the VP denoiser is known for 19.9 alo"),
        ("VPPrecond", {**OUTER, "beta_min": 0.2}, "beta_min 0.2: the VP denoiser is known for 0."),
        ("VPPrecond", {**OUTER, "M": 4000}, "M 4000: the VP denoiser is known for 1000 alone"),
    ],
)
def test_other_denoisers_are_refused_by_what_they_are(tmp_path, precondition, told, message):
    network, _, _ = made("ddpmpp")
    with pytest.raises(ValueError, match=message):
        load(on_disk(tmp_path, pickled(network, precondition, told)), CPU)


def test_the_constants_of_vp_are_those_that_the_denoiser_holds(tmp_path):
    network, y, expected = made("ddpmpp", "VPPrecond")
    held = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000}
    found = load(on_disk(tmp_path, pickled(network, "VPPrecond", OUTER, held=held)), CPU)
    torch.testing.assert_close(found.denoise(y, 0.7), expected, rtol=1e-4, atol=1e-4)
    assert found.sigma_max == pytest.approx(math.sqrt(math.exp(19.9 / 2 + 0.1) - 1))
    source = on_disk(tmp_path, pickled(network, "VPPrecond", OUTER, held=held | {"M": 100}))
    with pytest.raises(ValueError, match=r"snapshot\.pkl: M 100: the VP denoiser is known for"):
        load(source, CPU)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model_channels": 2**20}, "its network would have more weights than the file"),
        ({"num_blocks": 10**9}, "its network would have more weights than the file"),
        ({"resample_filter": [1] * 18}, "a filter of 18 taps; wanted at most 16"),
        ({"resample_filter": [2**70, 1]}, r"snapshot\.pkl: "),
        ({"embedding_type": "zero"}, "snapshot.pkl: ncsnpp: `features` must be one of"),
    ],
)
def test_a_network_that_cannot_be_the_file_s_is_refused_unbuilt(tmp_path, more, message):
    network, _, _ = made("ddpmpp")
    network.arguments = {**network.arguments, **more}
    with pytest.raises(ValueError, match=message):
        load(on_disk(tmp_path, pickled(network, "EDMPrecond", OUTER)), CPU)


class Hostile:
    """Calls a function when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("call", [os.system, eval, print, getattr, torch.load, pickle.loads])
def test_a_pickle_that_names_a_function_is_refused_before_it_is_called(tmp_path, call, protocol):
    touched = tmp_path / "touched"
    hostile = Hostile(call, f"touch {touched}")
    source = on_disk(tmp_path, pickle.dumps({"ema": hostile}, protocol=protocol))
    with pytest.raises(ValueError, match=r"snapshot\.pkl: refused pickle: it names .*refused"):
        read(source)
    assert not touched.exists()


def test_a_pickle_inside_a_pickle_is_refused_too(tmp_path):
    inner = pickle.dumps(Hostile(os.system, f"touch {tmp_path / 'touched'}"))
    source = on_disk(tmp_path, pickle.dumps(Hostile(torch.storage._load_from_bytes, inner)))
    with pytest.raises(ValueError, match="refused pickle"):
        read(source)
    assert not (tmp_path / "touched").exists()


def rebuilt(storage, offset, size, stride):
    """A tensor as torch pickles it, with any view."""
    return Hostile(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (10**9,), (1,)), (5, (1,), (1,)), (0, (2,), (10**15,)), (-1, (1,), (1,)), (0, 3, 1)],
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, offset, size, stride):
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.zeros(4).untyped_storage(), dtype=torch.float32, _internal=True
    )
    source = on_disk(tmp_path, pickle.dumps(rebuilt(storage, offset, size, stride)))
    with pytest.raises(ValueError, match="refused pickle"):
        read(source)
    sound = on_disk(tmp_path, pickle.dumps(rebuilt(storage, 1, (3,), (1,))))
    assert read(sound).value.shape == (3,)


@pytest.mark.parametrize("target", ["_rebuild_tensor_v2", "_rebuild_parameter"])
def test_no_state_is_set_on_a_function(tmp_path, target):
    state = pickle.dumps((None, {"__defaults__": 1}), protocol=2)[2:-1]
    data = b"\x80\x02c" + f"torch._utils\n{target}\n".encode() + state + b"b."
    with pytest.raises(ValueError, match="a function with a state"):
        read(on_disk(tmp_path, data))


def test_no_state_is_set_on_a_class(tmp_path):
    state = pickle.dumps((None, {"kind": "x"}), protocol=2)[2:-1]
    data = b"\x80\x02ctorch.nn.modules.linear\nLinear\n" + state + b"b."
    with pytest.raises(ValueError, match="refused pickle"):
        read(on_disk(tmp_path, data))
    assert read(on_disk(tmp_path, pickle.dumps(nn.Linear(1, 2)))).kind == "Linear"


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_torn_pickle_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="refused pickle"):
        read(on_disk(tmp_path, pickle.dumps({"ema": torch.zeros(1000)})[:size]))


def test_modules_that_hold_each_other_end(tmp_path):
    module = nn.Linear(1, 1)
    module.__dict__["_modules"] = {"itself": module}
    content = {"ema": module}
    with pytest.raises(ValueError, match="class 'Linear'"):
        load(on_disk(tmp_path, pickle.dumps(content)), CPU)
    from trainables.pretrained.modules import tensors

    with pytest.raises(ValueError, match="nested more than"):
        dict(tensors(read(on_disk(tmp_path, pickle.dumps(content)))["ema"]))
