"""The ``gmn`` command.

Its modules say what commands there are; what commands use is imported when they run.
"""

from __future__ import annotations

from typing import Annotated

import typer

import gmn
from gmn.cli import learning, networks, populations
from gmn.cli.errors import EXPECTED, ExitCode, report

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(networks.app)
app.add_typer(populations.app, name="zoo")
app.add_typer(learning.app)


def _tell(version: bool) -> None:
    if version:
        print(f"graph-metanetworks {gmn.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell, help="Print the version.")
    ] = False,
) -> None:
    """Neural networks that read neural networks."""


def main() -> None:
    """Runs the command; errors that a user can correct are printed in one line."""
    try:
        app()
    except EXPECTED as error:
        raise SystemExit(report(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
