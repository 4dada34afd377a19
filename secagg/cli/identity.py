"""``secagg identity new | show | directory | sealing-key``: who is who in the malicious-server model, made once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secagg.cli.errors import EXIT_PARAMETER, Failure
from secagg.errors import InputError

if TYPE_CHECKING:
    from secagg.identity import Directory

commands = typer.Typer(
    name="identity",
    help="Make and look at the keys and the directory that the malicious-server model pins.",
    short_help="Make and look at keys.",
)

_WITH_ID = re.compile(r"([0-9]{1,20})=(.+)", re.DOTALL | re.ASCII)
_LAST_INTEGER = re.compile(r"(?<![0-9])[0-9]+\Z", re.ASCII)
_DIGITS = re.compile(r"([0-9]+)", re.ASCII)
NO_CLIENT = (1 << 64) - 1
"""The least number that is no client's id."""
_PREFIX = 16  # hexadecimal digits of a public key in a table


@commands.callback(invoke_without_command=True)
def _identity(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(EXIT_PARAMETER)


@commands.command(short_help="Make a signing key.")
def new(
    file: Annotated[
        Path,
        typer.Argument(help="Where the private key goes, say NODE.key; its public half goes to NODE.pub."),
    ],
) -> None:
    """Make one node's signing key; print its public half in hexadecimal."""
    from secagg.identity_files import new_signing_key

    typer.echo(new_signing_key(file).public.hex())


@commands.command(short_help="Put public keys together.")
def directory(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID=]FILE...", help="All nodes' public keys, each with its client's id or all without."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the directory goes, one line of JSON.")],
) -> None:
    """Put public keys into a directory; print who has which id, and the digest that every node pins.

    Without ids: where each file's name ends in a number of its own, as in hospital-7.pub, that is the id; where no name
    ends in a number, ids are 0, 1, 2 ... in the natural order of the names. Anything else is refused: give ids then.
    """
    from secagg.identity_files import new_directory

    named = ids_of(files)
    made = new_directory(out, named)
    _table(made, {client_id: str(file) for client_id, file in named.items()})
    typer.echo(f"written  {out}")
    typer.echo(f"digest   {made.digest().hex()}")


@commands.command(short_help="Say what a file is.")
def show(
    file: Annotated[Path, typer.Argument(help="A private key, a public key, or a directory.")],
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A key: say which id it has in the directory."),
    ] = None,
) -> None:
    """Say what a file is, and what of it is public: a key's public half; a directory's ids, keys and digest."""
    from secagg import identity_files as files

    kind = files.kind_of(file)
    if key is not None and kind != files.DIRECTORY:
        raise InputError(f"--key looks up a key in a directory, and {file} is {kind}")
    match kind:
        case files.DIRECTORY:
            found = files.read_directory(file)
            own = None if key is None else _public_of(key)
            typer.echo(f"{file}: a directory of {len(found)} clients")
            _table(found, {})
            typer.echo(f"digest   {found.digest().hex()}")
            if own is not None:
                if own not in found.values():
                    raise Failure(f"the key of {key} is not in {file}: it is {own.hex()}")
                typer.echo(f"own id   {found.id_of(own)}, of {key}")
        case files.PRIVATE_KEY | files.PUBLIC_KEY:
            public = _public_of(file)
            typer.echo(f"{file}: {kind}{', of which this is the public half' if kind == files.PRIVATE_KEY else ''}")
            typer.echo(f"public   {public.hex()}")
        case files.SEALING_KEY:
            files.read_seal_key(file)
            typer.echo(f"{file}: a sealing key, all of which is secret")
        case _:
            raise Failure(f"{file} is {kind}: show takes a private key, a public key, a directory or a sealing key")


@commands.command("sealing-key", short_help="Make a key for states.")
def sealing_key(
    file: Annotated[Path, typer.Argument(help="Where it goes; keep it apart from the states.")],
) -> None:
    """Make the key under which one node seals its saved states."""
    from secagg.identity_files import new_seal_key

    new_seal_key(file)
    typer.echo(f"written  {file}: keep it apart from the states that it seals")


def ids_of(arguments: Sequence[str]) -> dict[int, Path]:
    """Return the client id of each public key file, by ascending id, from arguments ``ID=FILE`` or plain files.

    Plain files: the integer that a name ends in (before its last suffix), where each name ends in one and no two in the
    same; 0, 1, 2, ... in natural order, where no name does.

    Raises:
        InputError: arguments are of both forms, an id stands twice, or plain names leave it open who has which id.
    """
    given = [_WITH_ID.fullmatch(one) for one in arguments]
    if any(given) and not all(given):
        plain = next(one for one, found in zip(arguments, given, strict=True) if not found)
        raise InputError(f"either all files have ids or none: {plain} has none (write ID=FILE, 3={plain} say)")
    if all(given):
        return _distinct([(int(found[1]), Path(found[2])) for found in given if found])
    paths = [Path(one) for one in arguments]
    for path in paths:
        if "=" in str(path) and not path.exists():
            raise InputError(f"{path}: an id is an integer, as in 3=hospital.pub")
    numbers = [_LAST_INTEGER.search(path.stem) for path in paths]
    if not any(numbers):
        ordered = sorted(paths, key=lambda path: (natural_order(path.name), str(path)))
        return dict(enumerate(ordered))
    if not all(numbers):
        unnumbered = next(path for path, found in zip(paths, numbers, strict=True) if not found)
        raise InputError(f"some names end in a number and {unnumbered} does not: say who has which id, as ID=FILE")
    named = [(int(found[0]), path) for path, found in zip(paths, numbers, strict=True) if found]
    for number, path in named:
        if number >= NO_CLIENT:
            raise InputError(f"{path} ends in a number that is no client's id: say who has which id, as ID=FILE")
    return _distinct(named)


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts names with numbers as people do: ward-2-a before ward-10-a."""
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name) if part)


def _distinct(named: Sequence[tuple[int, Path]]) -> dict[int, Path]:
    ids: dict[int, Path] = {}
    for client_id, file in sorted(named, key=lambda one: one[0]):
        if client_id in ids:
            raise InputError(f"{ids[client_id]} and {file} both have the id {client_id}: say who has which, as ID=FILE")
        ids[client_id] = file
    return ids


def _public_of(path: Path) -> bytes:
    from secagg import identity_files as files

    if files.kind_of(path) == files.PRIVATE_KEY:
        return files.read_signing_key(path).public
    return files.read_public_key(path)


def _table(found: Directory, files: Mapping[int, str]) -> None:
    """Print a line a client; lines are as long as their files' names, so that they can be read by programs too."""
    width = max(len("id"), *(len(str(client_id)) for client_id in found)) if found else 2
    heading = "  file" if files else ""
    typer.echo(f"{'id':>{width}}  {'public key':<{_PREFIX + 3}}{heading}".rstrip())
    for client_id, public in found.items():
        typer.echo(f"{client_id:>{width}}  {public.hex()[:_PREFIX]}...  {files.get(client_id, '')}".rstrip())
