"""Reads options from a YAML file; the command line overrides them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from gmn.cli.errors import UserError


def _read(context: typer.Context, file: Path | None) -> Path | None:
    """Makes the values of a file the defaults of the command that is being parsed."""
    if file is not None:
        parameters = {
            spelling: parameter.name
            for parameter in context.command.params
            for spelling in (parameter.name, *(_plain(option) for option in parameter.opts))
        }
        values = {_plain(key): value for key, value in _load(file).items()}
        if unknown := sorted(values.keys() - parameters.keys()):
            known = sorted(
                {_plain(max(p.opts, key=len)) for p in context.command.params} - {"config"}
            )
            raise UserError(
                f"{file}: {context.command.name} has no option {', '.join(unknown)}; "
                f"it has {', '.join(known)}"
            )
        context.default_map = {parameters[key]: value for key, value in values.items()}
    return file


def _plain(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _load(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not YAML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{file} has to hold lines such as `epochs: 25`, one for each option")
    return values


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_read,
        is_eager=True,
        help="YAML file of arguments and options by name; the command line overrides it.",
    ),
]
