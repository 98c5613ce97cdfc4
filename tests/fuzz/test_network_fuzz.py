"""A network's file is a denoiser or a `ValueError` that names it, and never runs."""

import copy
import json
import os
import pickle
import shutil

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.cases import changed_json, damaged, fuzz
from tests.trainables.edm_network import pickled, tiny
from trainables.pretrained import load

CPU = torch.device("cpu")
OUTER = {"img_resolution": 8, "img_channels": 1, "label_dim": 0, "sigma_data": 0.5}
NETWORK = tiny()
WHOLE = {protocol: pickled(NETWORK, "EDMPrecond", OUTER, protocol=protocol) for protocol in (2, 4)}
MARK = "ran"
"""A file that every hostile pickle here would leave in the working folder."""


class Hostile:
    """Leaves the mark when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (MARK,)


HOSTILE = [pickle.dumps(Hostile(), protocol) for protocol in (0, 2, 4)]
SPLICED = [
    *(data.lstrip(b"\x80\x02\x04")[:-1] for data in HOSTILE),
    b"cos\nmkdir\n(V" + MARK.encode() + b"\ntR",
    b"(V" + MARK.encode() + b"\nios\nmkdir\n",
    b"(cos\nmkdir\nV" + MARK.encode() + b"\no",
    b"ctorch.serialization\nload\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.nn.modules.linear\nLinear\n)\x81",
    b"cnumpy\ndtype\n(V" + b"f8\nI0\nI1\ntR",
    *(
        b"\x93",
        b"\x92",
        b"\x81",
        b"R",
        b"b",
        b"}b",
        b"Q",
        b"\x82\x01",
        b"0",
        b"2",
        b"e",
        b"u",
        b".",
    ),
]
"""Names, calls, states and what moves the stack."""


class Brief(bytes):
    """The bytes of a file that are not printed where a case is: its blob reproduces it."""

    def __repr__(self):
        return f"<{len(self)} bytes>"


@st.composite
def spliced(draw, whole):
    """A pickle with operations put in at some places."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(2, len(data) - 1))
        data[at:at] = draw(st.sampled_from(SPLICED))
    return bytes(data)


@st.composite
def told_otherwise(draw):
    """A sound pickle of a network whose constructors were told something else."""
    network = copy.copy(NETWORK)
    told = draw(changed_json({"outer": OUTER, "inner": network.arguments}))
    inner, outer = (
        told.get(key) if isinstance(told, dict) else told for key in ("inner", "outer")
    )
    network.arguments = inner
    kind = draw(st.sampled_from(["EDMPrecond", "VPPrecond", "VEPrecond", "Other"]))
    held = draw(st.none() | changed_json({"beta_d": 19.9, "beta_min": 0.1, "M": 1000}))
    return pickled(network, kind, outer, held=held if isinstance(held, dict) else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working folder, in which a mark would be left."""
    folder = tmp_path_factory.mktemp("networks")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def denoiser_or_refused(source):
    """What is loaded, if it is; in either case nothing ran."""
    try:
        return load(str(source), CPU)
    except ValueError as error:
        assert source.name in str(error)
    finally:
        assert not os.path.exists(MARK)


def test_the_files_that_are_damaged_below_are_sound_and_the_hostile_ones_would_run(folder):
    for data in WHOLE.values():
        (folder / "sound.pkl").write_bytes(data)
        assert load(str(folder / "sound.pkl"), CPU).shape == (1, 8, 8)
    for data in HOSTILE:
        pickle.loads(data)
        os.rmdir(MARK)


@fuzz
@given(
    (
        st.sampled_from(sorted(WHOLE)).flatmap(lambda p: damaged(WHOLE[p]) | spliced(WHOLE[p]))
        | told_otherwise()
        | st.binary(max_size=40)
    ).map(Brief)
)
def test_a_network_file_of_edm_is_a_denoiser_or_a_clear_error(folder, data):
    (folder / "network.pkl").write_bytes(data)
    found = denoiser_or_refused(folder / "network.pkl")
    if found is not None and found.shape[0] * found.shape[1] ** 2 <= 1024:
        y = torch.zeros(2, *found.shape)
        assert found.denoise(y, 1.0).shape == y.shape


@pytest.fixture(scope="module")
def pipeline(folder):
    """A pipeline's folder with pickled weights and code beside its safetensors."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(4,),
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder / "sound")
    shutil.copytree(folder / "sound", folder / "pipeline")
    (folder / "pipeline/unet/diffusion_pytorch_model.bin").write_bytes(HOSTILE[1])
    for place in ("pipeline", "pipeline/unet"):
        (folder / place / "unet.py").write_text(f"import os; os.mkdir({MARK!r})")
    return folder / "pipeline"


PARTS = [
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
]


@fuzz
@given(st.data())
@pytest.mark.parametrize("part", PARTS)
def test_a_folder_of_diffusers_is_a_denoiser_or_a_clear_error(pipeline, part, data):
    sound = (pipeline.parent / "sound" / part).read_bytes()
    changes = damaged(sound) | st.binary(max_size=40)
    if part.endswith(".json"):
        told = json.loads(sound)
        changes |= changed_json(told).map(
            lambda v: json.dumps(v, default=str, skipkeys=True).encode()
        )
    (pipeline / part).write_bytes(data.draw(changes))
    try:
        found = denoiser_or_refused(pipeline)
    finally:
        (pipeline / part).write_bytes(sound)
    assert found is None or found.shape is not None
