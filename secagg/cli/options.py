"""The values that options take, as the shell completes them."""

from __future__ import annotations

import enum
from typing import Any

import typer

from secagg.errors import SecAggError
from secagg.protocol import WINGS, protocol_named, protocol_names

_OWN_NAMES = tuple(name for home in WINGS.values() for name in home.names)


def protocol_option(text: str) -> Any:
    """Return the option ``--protocol``: any name of the registry, also one that another package brings."""
    return typer.Option(
        help=text,
        metavar=f"<{'|'.join((*_OWN_NAMES, 'NAME'))}>",
        callback=_known_protocol,
        autocompletion=_completed_protocol,
    )


def _known_protocol(name: str) -> str:
    if name not in _OWN_NAMES:  # these are known without loading anything
        try:
            protocol_named(name)
        except SecAggError as problem:
            raise typer.BadParameter(str(problem)) from None
    return name


def _completed_protocol(begun: str) -> list[str]:
    return [name for name in protocol_names() if name.startswith(begun)]


class KeyHolderName(enum.StrEnum):
    """The values of ``--key-holder``."""

    DECRYPTOR = "decryptor"
    CLIENTS = "clients"


class ThreatName(enum.StrEnum):
    """The values of ``--threat``."""

    SEMI_HONEST = "semi-honest"
    MALICIOUS_SERVER = "malicious-server"


class PlannedThreat(enum.StrEnum):
    """The values of ``--threat`` where one round may be planned in several models."""

    SEMI_HONEST = "semi-honest"
    MALICIOUS_SERVER = "malicious-server"
    BOTH = "both"


class FederationName(enum.StrEnum):
    """The values of ``--federation``."""

    BREAST_CANCER = "breast-cancer"
    WINE = "wine"
    DIGITS_EVEN = "digits-even"
