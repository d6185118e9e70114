"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="A built-in example (cnn-relu, cnn-tanh, mlp, resnet) or module:factory, where "
        "calling factory() gives a torch.nn.Module, or a pair (module, tuple of inputs)."
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", help="Shape of an example input, such as 1x3x32x32; repeatable."),
]
Weights = Annotated[
    Path | None,
    typer.Option("--checkpoint", "-c", help="File or folder of weights to put into the network."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Where in the file the state dict lies, such as model.state_dict."),
]
