"""Secure aggregation: learn the exact sum of many parties' vectors, and nothing else about any of them.

``simulate`` runs a whole round in one process; ``ClientSession`` and ``ServerSession`` are what a system with a
transport of its own holds. Names are loaded when they are first used, so importing this package loads no kernel.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from secagg._version import __version__

if TYPE_CHECKING:
    from secagg.encoding.fixed_point import FixedPoint
    from secagg.encoding.tensors import Layout, flatten, unflatten
    from secagg.errors import (
        DecodeError,
        InconsistentSum,
        InputError,
        LocalProtocolError,
        ParameterError,
        PeerFault,
        SecAggError,
        SelfTestError,
        ServerFault,
        StaleMessage,
        TooFewClients,
    )
    from secagg.he.credentials import HECredentials, HEServerCredentials
    from secagg.he.decryptor_link import DecryptorLink
    from secagg.he.decryptor_session import DecryptorSession
    from secagg.he.keys import DecryptionKey, PublicKey
    from secagg.he.params import HEParams
    from secagg.he.result import ApproximateSum, ExactSum
    from secagg.identity import Directory, Identity
    from secagg.identity_files import read_directory, read_seal_key, read_signing_key
    from secagg.pairwise.client_states import Release
    from secagg.pairwise.credentials import PairwiseCredentials
    from secagg.pairwise.evidence import ContradictoryDealer, ForgedRelease, Transcript, decode_evidence
    from secagg.pairwise.params import RoundParams
    from secagg.pairwise.result import RoundResult
    from secagg.primitives.signature import SigningKey
    from secagg.protocol import Protocol, register_protocol
    from secagg.readiness import selftest, warmup
    from secagg.session.answers import Answer, BeaconNeeded, InputNeeded, Reply, ResultReady
    from secagg.session.client import ClientSession
    from secagg.session.file_store import FileStore
    from secagg.session.keeping import DEFERRED, IN_MEMORY, Keep, Pending
    from secagg.session.party import PartyLink, PartyRound
    from secagg.session.server import ServerSession
    from secagg.session.slot import Slot
    from secagg.simulation import SimulationResult, simulate
    from secagg.snapshot import SavedState
    from secagg.stages import STAGES

_HOMES = {
    "secagg.encoding.fixed_point": ("FixedPoint",),
    "secagg.encoding.tensors": ("Layout", "flatten", "unflatten"),
    "secagg.errors": (
        "DecodeError",
        "InconsistentSum",
        "InputError",
        "LocalProtocolError",
        "ParameterError",
        "PeerFault",
        "SecAggError",
        "SelfTestError",
        "ServerFault",
        "StaleMessage",
        "TooFewClients",
    ),
    "secagg.he.credentials": ("HECredentials", "HEServerCredentials"),
    "secagg.he.decryptor_link": ("DecryptorLink",),
    "secagg.he.decryptor_session": ("DecryptorSession",),
    "secagg.he.keys": ("DecryptionKey", "PublicKey"),
    "secagg.he.params": ("HEParams",),
    "secagg.he.result": ("ApproximateSum", "ExactSum"),
    "secagg.identity": ("Directory", "Identity"),
    "secagg.identity_files": ("read_directory", "read_seal_key", "read_signing_key"),
    "secagg.pairwise.client_states": ("Release",),
    "secagg.pairwise.credentials": ("PairwiseCredentials",),
    "secagg.pairwise.evidence": ("ContradictoryDealer", "ForgedRelease", "Transcript", "decode_evidence"),
    "secagg.primitives.signature": ("SigningKey",),
    "secagg.pairwise.params": ("RoundParams",),
    "secagg.readiness": ("selftest", "warmup"),
    "secagg.pairwise.result": ("RoundResult",),
    "secagg.protocol": ("Protocol", "register_protocol"),
    "secagg.session.answers": ("Answer", "BeaconNeeded", "InputNeeded", "Reply", "ResultReady"),
    "secagg.session.client": ("ClientSession",),
    "secagg.session.file_store": ("FileStore",),
    "secagg.session.slot": ("Slot",),
    "secagg.session.keeping": ("DEFERRED", "IN_MEMORY", "Keep", "Pending"),
    "secagg.session.party": ("PartyLink", "PartyRound"),
    "secagg.session.server": ("ServerSession",),
    "secagg.simulation": ("SimulationResult", "simulate"),
    "secagg.snapshot": ("SavedState",),
    "secagg.stages": ("STAGES",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - grouped by what a reader looks for
    "RoundParams",
    "FixedPoint",
    "simulate",
    "SimulationResult",
    "ClientSession",
    "ServerSession",
    "Reply",
    "InputNeeded",
    "BeaconNeeded",
    "ResultReady",
    "FileStore",
    "Slot",
    "IN_MEMORY",
    "DEFERRED",
    "Pending",
    "Keep",
    "Answer",
    "SavedState",
    "PairwiseCredentials",
    "RoundResult",
    "Release",
    "STAGES",
    "HEParams",
    "HECredentials",
    "HEServerCredentials",
    "DecryptorSession",
    "DecryptorLink",
    "PartyLink",
    "PartyRound",
    "DecryptionKey",
    "PublicKey",
    "ExactSum",
    "ApproximateSum",
    "SigningKey",
    "Identity",
    "Directory",
    "read_signing_key",
    "read_directory",
    "read_seal_key",
    "Transcript",
    "ForgedRelease",
    "ContradictoryDealer",
    "decode_evidence",
    "flatten",
    "unflatten",
    "Layout",
    "Protocol",
    "register_protocol",
    "warmup",
    "selftest",
    "SecAggError",
    "ParameterError",
    "InputError",
    "LocalProtocolError",
    "DecodeError",
    "PeerFault",
    "StaleMessage",
    "ServerFault",
    "TooFewClients",
    "InconsistentSum",
    "SelfTestError",
    "__version__",
]


if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object

    def __getattr__(name):
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
