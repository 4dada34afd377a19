"""The values that options take, as the shell completes them."""

from __future__ import annotations

import enum


class ProtocolName(enum.StrEnum):
    """The values of ``--protocol``."""

    SECAGG = "secagg"
    SECAGG_PLUS = "secagg+"
    BFV = "bfv"
    CKKS = "ckks"


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
