"""Networks that every suite runs over, each with the bug it is there to catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests import modules


@dataclass(frozen=True)
class Case:
    """A network, its example inputs, and why it is in the list."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    catches: str
    chain: bool = False  # whether chain-only methods (NFN) apply

    def model(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode, float64, every entry away from its special values."""
        torch.manual_seed(seed)
        model = self.build().double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for name, buffer in model.named_buffers():
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2.0)
                elif buffer.is_floating_point():
                    buffer.normal_()
        return model

    def example(self, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs, float64."""
        torch.manual_seed(seed)
        values = self.inputs()
        return tuple(v.double() if v.is_floating_point() else v for v in values)


def vectors(size: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(5, size),)


def images(channels: int, side: int = 10) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(2, channels, side, side),)


def mlp(activation: nn.Module, bias: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 6, bias=bias), activation, nn.Linear(6, 5, bias=bias), activation,
        nn.Linear(5, 2, bias=bias),
    )  # fmt: skip


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * x)


class TiedHidden(nn.Module):
    """Two modules share one square weight between hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.middle, self.again = nn.Linear(6, 6), nn.Linear(6, 6)
        self.again.weight = self.middle.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.again(torch.relu(self.middle(x)))))


class CalledTwice(nn.Module):
    """One module runs twice, the second time on the network's input axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class TiedTranspose(nn.Module):
    """An autoencoder whose decoder is the encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.encoder(x)) @ self.encoder.weight


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if stride > 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), ResidualBlock(4, 4, 1),
        ResidualBlock(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


class PreActivation(nn.Module):
    """A residual stream without an operation on it: signs and scales survive."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 6), nn.Linear(6, 2)
        self.up, self.down = nn.Linear(6, 7), nn.Linear(7, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.down(torch.relu(self.up(x))))


class InputResidual(nn.Module):
    """A residual connection from the input: hidden neurons that may not move."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + torch.relu(self.layer(x)))


class Decoder(nn.Module):
    """A linear layer whose outputs become a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(3, 4 * 5 * 5), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.linear(x).view(-1, 4, 5, 5)))


class Unused(nn.Module):
    """A parameter that the forward pass does not read, and an elementwise one that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)
        self.spare = nn.Parameter(torch.randn(4, 3))
        self.gain = nn.Parameter(torch.randn(5))
        self.temperature = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)) * self.gain) * self.temperature


class Unknown(nn.Module):
    """An operation without a rule: its axes must stay in order, the rest stays free."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 5), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.special.i1e(torch.relu(self.first(x)))
        return self.last(torch.relu(self.middle(x)))


class ScalarHidden(nn.Module):
    """One hidden channel: axes of size one may not vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 1, 3), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(x)).flatten(1))


class Attention(nn.Module):
    """Multi-head attention by hand: heads and the units within them."""

    def __init__(self, width: int = 8, heads: int = 2, keys: int = 2, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.keys, self.size = heads, keys, width // heads
        self.q = nn.Linear(width, width, bias=bias)
        self.k = nn.Linear(width, keys * self.size, bias=bias)
        self.v = nn.Linear(width, keys * self.size, bias=bias)
        self.o = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k, v = (
            layer(x).view(b, t, self.keys, self.size).transpose(1, 2) for layer in (self.k, self.v)
        )
        if self.keys < self.heads:
            k, v = (
                y[:, :, None].expand(b, self.keys, self.heads // self.keys, t, self.size)
                .reshape(b, self.heads, t, self.size) for y in (k, v)
            )  # fmt: skip
        scores = (q @ k.transpose(-2, -1) / self.size**0.5).softmax(-1)
        return self.o((scores @ v).transpose(1, 2).reshape(b, t, -1))


class PackedAttention(nn.Module):
    """Queries, keys and values from one weight; the library's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (y.view(b, t, 2, 4).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, 8))


class RMSNorm(nn.Module):
    """As language models write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Gated(nn.Module):
    """SwiGLU: the linear branch has a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(8, 6, bias=False), nn.Linear(8, 6, bias=False)
        self.down = nn.Linear(6, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Transformer(nn.Module):
    """Tokens, positions, a class token, pre-norm blocks, tied output."""

    def __init__(self, attention: nn.Module, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(11, 8), nn.Parameter(torch.randn(6, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm1, self.norm2, self.norm3 = norm(8), norm(8), norm(8)
        self.attention, self.gated = attention, Gated()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids.long())
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.gated(self.norm2(x))
        return nn.functional.linear(self.norm3(x)[:, 0], self.embed.weight)


class Dense(nn.Module):
    """Concatenation: every reader sees the channels of all writers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 5, 3, padding=1)
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.relu(self.first(x))], dim=1)
        x = torch.cat([x, torch.relu(self.second(x))], dim=1)
        return self.last(x.mean((2, 3)))


class PackedGate(nn.Module):
    """Gate and linear branch from one weight: one permutation moves both halves of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(3, 12), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.glu(self.both(x), dim=-1))


class Reparametrised(nn.Module):
    """Weights that are computed from other parameters before they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(3, 6))
        self.middle, self.last = nn.Linear(6, 5, bias=False), nn.Linear(5, 2)
        self.gain = nn.Parameter(torch.rand(5, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.middle.weight * self.gain
        return self.last(torch.tanh(nn.functional.linear(torch.relu(self.first(x)), weight)))


class ReadTwice(nn.Module):
    """A weight that is also read as a number: its scale changes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x))) + self.first.weight.pow(2).sum()


class Recurrent(nn.Module):
    """A recurrent layer and a readout of its last step."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer
        size = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.head = nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Stepped(nn.Module):
    """A recurrent cell, called once for every step."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Cosines(nn.Module):
    """Directions of hidden features, compared with each other; and the length of others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(x)
        second = nn.functional.normalize(self.second(first / first.norm(dim=1, keepdim=True)))
        return second @ second.T, self.other(x).norm(dim=1)


class Pairs(nn.Module):
    """A bilinear layer: its sources are pairs of neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 5)
        self.pairs, self.last = nn.Bilinear(4, 5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.pairs(torch.relu(self.left(x)), torch.tanh(self.right(x)))
        return self.last(torch.relu(pairs))


class UNet(nn.Module):
    """Down, up again, and a concatenation of what was before."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(2, 4, 2, stride=2), nn.ConvTranspose2d(4, 6, 2, stride=2)
        self.grouped = nn.ConvTranspose2d(6, 4, 3, padding=1, groups=2)
        self.last = nn.Conv2d(4 + 4 + 2, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        small = torch.relu(self.down(x))
        large = self.grouped(torch.relu(self.up(small)))
        wide = nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
        return nn.functional.pixel_shuffle(self.last(torch.cat([large, wide, x], dim=1)), 2)


ACTIVATIONS = (
    *(nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.ELU()),
    *(nn.Softplus(), nn.Hardtanh(), nn.ReLU6(), nn.Softsign(), nn.Identity(), nn.Mish(), Sine()),
)

CASES = [
    *(
        Case(
            f"mlp-{type(activation).__name__.lower()}",
            lambda activation=activation: mlp(activation),
            vectors(3),
            "which scales an activation lets through",
            chain=True,
        )
        for activation in ACTIVATIONS
    ),
    Case("mlp-no-bias", lambda: mlp(nn.ReLU(), bias=False), vectors(3), "missing biases", True),
    Case("single-layer", lambda: nn.Linear(4, 3), vectors(4), "no hidden axis at all", True),
    Case(
        "two-layers",
        lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        vectors(4),
        "the first and the last weight meet",
        True,
    ),
    Case(
        "square",
        lambda: nn.Sequential(
            nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)
        ),
        vectors(4),
        "axes told apart by identity, not by size",
        True,
    ),
    Case(
        "cnn",
        lambda: nn.Sequential(
            nn.Conv2d(1, 5, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(5, 6, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        images(1),
        "stride, padding, global pooling",
        True,
    ),
    Case(
        "cnn-unequal-kernels",
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, (3, 5), padding="same"),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 6, (1, 2), dilation=2),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(12, 3),
        ),
        images(2),
        "kernels that are not square, dilation, signs stopped by max-pooling",
        True,
    ),
    Case(
        "cnn-flatten",
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(256, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        ),
        images(3),
        "a channel permutation moves blocks of columns",
        True,
    ),
    Case(
        "mlp-on-images",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(200, 6), nn.ReLU(), nn.Linear(6, 3)),
        images(2),
        "input neurons with several axes",
        True,
    ),
    Case(
        "cnn-1d",
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(4, 5, 2, bias=False),
            nn.LeakyReLU(),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
            nn.Linear(5, 2),
        ),
        lambda: (torch.randn(2, 2, 12),),
        "one spatial dimension; a bias missing in the middle",
        True,
    ),
    Case(
        "cnn-grouped",
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, groups=4),
            nn.ReLU(),
            nn.Conv2d(12, 6, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 2),
        ),
        images(3),
        "channels permute within groups, groups as wholes",
    ),
    Case(
        "cnn-regrouped",
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=2),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 16, 2),
        ),
        images(2),
        "groups of groups",
    ),
    Case(
        "cnn-depthwise",
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, groups=6),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, groups=6),
            nn.ReLU(),
            nn.Conv2d(12, 4, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        ),
        images(3),
        "a kernel on the diagonal of one node set, with and without a multiplier",
    ),
    Case(
        "batch-norm",
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Conv2d(5, 4, 3),
            nn.BatchNorm2d(4, affine=False),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 2),
        ),
        images(3),
        "statistics move and scale with their channels, epsilon included",
    ),
    Case("resnet", resnet, images(3), "one node set for a whole stage; projection shortcuts"),
    Case("pre-activation", PreActivation, vectors(3), "scales of a stream without operations"),
    Case("input-residual", InputResidual, vectors(4), "ordered hidden neurons"),
    Case("tied-hidden", TiedHidden, vectors(3), "one tensor, two edge sets, one permutation"),
    Case("called-twice", CalledTwice, vectors(4), "tying to the input fixes the axis"),
    Case("tied-transpose", TiedTranspose, vectors(4), "one tensor read in both directions"),
    Case("decoder", Decoder, vectors(3), "rows of a linear layer are channels times positions"),
    Case("unused", Unused, vectors(3), "parameters nobody reads, elementwise gains, scalars"),
    Case("unknown-operation", Unknown, vectors(3), "unknown never means wrong"),
    Case(
        "attention",
        Attention,
        lambda: (torch.randn(2, 5, 8),),
        "a permutation of heads; of units within each, shared by queries and keys",
    ),
    Case(
        "attention-grouped",
        lambda: Attention(heads=4, keys=2),
        lambda: (torch.randn(2, 5, 8),),
        "several query heads share one key head",
    ),
    Case(
        "attention-packed",
        PackedAttention,
        lambda: (torch.randn(2, 5, 8),),
        "a fused weight is three edge sets",
    ),
    Case(
        "attention-module",
        lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
        lambda: (torch.randn(2, 5, 8),),
        "the library's encoder layer, unfused",
    ),
    Case(
        "transformer",
        lambda: Transformer(Attention(), nn.LayerNorm),
        lambda: (torch.randint(11, (2, 5)),),
        "a residual stream with layer norms, tokens, positions and a tied output",
    ),
    Case(
        "transformer-rms",
        lambda: Transformer(Attention(heads=4, keys=2, bias=False), RMSNorm),
        lambda: (torch.randint(11, (2, 5)),),
        "signs pass normalisation by hand; grouped queries",
    ),
    Case("dense", Dense, images(3), "every reader of a concatenation reads every writer"),
    Case("packed-gate", PackedGate, vectors(3), "one permutation of both halves of a weight"),
    Case("gated", Gated, lambda: (torch.randn(3, 8),), "a scale of the linear branch only"),
    Case(
        "group-norm",
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(4, 8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3),
            nn.InstanceNorm2d(6, affine=True),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(216, 2),
        ),
        images(3),
        "channels move within groups of a normalisation, and groups as wholes",
    ),
    Case(
        "prelu",
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3),
            nn.PReLU(5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(80, 4),
            nn.PReLU(),
            nn.Linear(4, 2),
        ),
        images(3),
        "slopes move with their channels; one slope for all is a number of its own",
    ),
    *(
        Case(
            f"recurrent-{name}",
            lambda make=make: Recurrent(make()),
            lambda: (torch.randn(2, 5, 3),),
            catches,
        )
        for name, make, catches in (
            ("lstm", lambda: nn.LSTM(3, 4, batch_first=True), "four gates share one index set"),
            ("gru", lambda: nn.GRU(3, 4, 2, batch_first=True), "three gates, two layers"),
            ("tanh", lambda: nn.RNN(3, 4, batch_first=True, bias=False), "a plain recurrence"),
            (
                "bidirectional",
                lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True),
                "the second layer reads both directions",
            ),
            (
                "projected",
                lambda: nn.LSTM(3, 4, batch_first=True, proj_size=2),
                "output and memory are different neurons",
            ),
        )
    ),
    *(
        Case(
            f"stepped-{name}",
            lambda make=make: Stepped(make()),
            lambda: (torch.randn(2, 3, 3),),
            catches,
        )
        for name, make, catches in (
            ("lstm", lambda: nn.LSTMCell(3, 4), "state and memory go from step to step"),
            ("gru", lambda: nn.GRUCell(3, 4, bias=False), "a cell without biases"),
            ("relu", lambda: nn.RNNCell(3, 4, nonlinearity="relu"), "a plain step"),
        )
    ),
    Case("cosines", Cosines, vectors(3), "a length keeps the scale that all its entries share"),
    Case("reparametrised", Reparametrised, vectors(3), "a computed weight joins the right neurons"),
    Case("bilinear", Pairs, vectors(3), "weights whose source is a pair of neurons"),
    Case("read-twice", ReadTwice, vectors(3), "a weight that also enters elsewhere"),
    Case(
        "u-net", UNet, images(2), "transposed and grouped-transposed kernels, resizing, shuffling"
    ),
    Case("written", modules.Written, vectors(3), "writing into a part of a value"),
    Case("overwritten", modules.Overwritten, vectors(3), "a write that later readers see"),
    *(
        Case(
            f"shifted-{name}",
            lambda dim=dim: modules.Shifted(dim),
            lambda: (torch.randn(2, 5, 3),),
            "what is rolled and flipped keeps its order",
        )
        for name, dim in (("tokens", 1), ("units", 2))
    ),
    Case("places", modules.Places, images(2), "constants along taps, which have no axis"),
    Case("unread", modules.Unread, vectors(3), "results that nobody reads"),
    Case("picked", modules.Picked, vectors(3), "scales do not follow what is picked by number"),
    Case("repeated", modules.Repeated, vectors(3), "which factor of a repeated axis is the copy"),
    Case("bounded", modules.Bounded, vectors(3), "exponents and bounds that are parameters"),
    Case("fused", modules.Fused, vectors(3), "gain and shift in one operation"),
    Case("best", modules.Best, vectors(3), "ranks are no neurons"),
    Case("windows", modules.Windows, images(2), "which factor of a window is the channel"),
    Case("sampled", modules.Sampled, images(2), "channels of a map that is read off its grid"),
    *(
        Case(
            f"width-{name}",
            lambda kernel=kernel: modules.WidthOne(kernel),
            lambda: (torch.randn(2, 4, 3),),
            "a convolution of width one leaves places free, a wider one does not",
        )
        for name, kernel in (("one", 1), ("three", 3))
    ),
    Case("heads", modules.Heads, vectors(3), "concatenated parts that are whole heads each"),
    Case("scalar-hidden", ScalarHidden, images(1), "axes of size one", True),
]
