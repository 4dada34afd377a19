"""``secagg identity new | directory | sealing-key``: who is who in the malicious-server model, made once and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

identity = typer.Typer(
    name="identity",
    help="Make the keys and the directory that the malicious-server model pins.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@identity.command()
def new(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; its public half goes to FILE's name.pub.")],
) -> None:
    """Make one node's signing key; print its public half."""
    from secagg.cli import plain_errors

    with plain_errors():
        from secagg.identity_files import new_signing_key

        typer.echo(new_signing_key(file).public.hex())


@identity.command()
def directory(
    public_keys: Annotated[list[Path], typer.Argument(help="The .pub files of all nodes; ids are 0, 1, ... in order.")],
    out: Annotated[Path, typer.Option(help="Where the directory goes, one line of JSON.")],
) -> None:
    """Put public keys into a directory; print the digest that every node pins."""
    from secagg.cli import plain_errors

    with plain_errors():
        from secagg.identity_files import new_directory

        typer.echo(new_directory(out, public_keys).digest().hex())


@identity.command("sealing-key")
def sealing_key(
    file: Annotated[Path, typer.Argument(help="Where it goes; keep it apart from the states.")],
) -> None:
    """Make the key under which one node seals its saved states."""
    from secagg.cli import plain_errors

    with plain_errors():
        from secagg.identity_files import new_seal_key

        new_seal_key(file)
