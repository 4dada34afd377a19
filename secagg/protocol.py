"""The seam: what a protocol is, and the one registry of them, loaded when used.

A protocol is a wing of its own behind an object of the class ``Protocol``. Everything that serves all protocols (the
session doors, ``simulate``, planning, training, the command line, integrations, ``warmup``, the specification's tables)
asks this registry, and knows none by name. So an addition is a folder and a line, or, from outside this package, a call
of ``register_protocol`` or an entry point of the group ``secagg.protocols``.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from secagg.cohort import Threat
from secagg.errors import DecodeError, InputError, ParameterError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from secagg.encoding.fixed_point import FixedPoint
    from secagg.identity import Directory, Identity
    from secagg.planning.calibration import Machine, Stopwatch
    from secagg.planning.operations import Operation
    from secagg.planning.rows import Row
    from secagg.planning.workload import Workload
    from secagg.session.client import ClientSession
    from secagg.session.server import ServerSession
    from secagg.simulation import Parties

ENTRY_POINTS = "secagg.protocols"
"""The group of entry points that name ``Protocol`` objects of other packages."""


class PartyOpening(NamedTuple):
    """What a further party begins a round with, and the Ed25519 key that the server pins as that party's (32 bytes)."""

    opening: bytes
    identity: bytes


class Protocol:
    """What a protocol is. Derive from it, give what it names, and register an object of your class.

    Parameters are frozen, proved when they are built, and have at least: ``protocol`` (a name below), ``clients``,
    ``dimension``, ``encoding``, ``max_weight``, ``dropout``, ``corrupt``, ``threat``, ``dropout_count``,
    ``corrupt_count``, ``minimum_survivors``, ``notes`` (sentences for the user) and ``encode()`` (canonical bytes).
    A result has ``survivors``, ``dropped``, ``total``, ``weight``, ``mean``, ``threat`` and ``notes``.

    Must be given: ``family``, ``names``, ``every_stage``, ``params_type``, ``client_session``, ``server_session``,
    ``plan``, ``stages``, ``input_stage``, ``simulated``, ``planning_row``, ``promise``, ``warmup``; for Flower also
    ``read_unproved``. All others may be. docs/protocols.md shows how, and tests/toy_protocol.py is a whole one.

    Attributes:
        family: the wing's name; its saved states begin with it.
        names: the protocols of this wing, as users name them.
        every_stage: all stages that its rounds may have, in order.
        packages: modules that its clients load and a bare installation may lack.
        keys_ahead: whether a round's first stage advertises keys that need no model to be there, so that they may ride
            on the last reply of the round before.
    """

    family: str
    names: tuple[str, ...]
    every_stage: tuple[str, ...]
    packages: tuple[str, ...] = ()
    keys_ahead: bool = False

    @property
    def params_type(self) -> type:
        """The class of the parameters."""
        raise NotImplementedError

    @property
    def client_session(self) -> type[ClientSession]:
        """The client's side."""
        raise NotImplementedError

    @property
    def server_session(self) -> type[ServerSession]:
        """The server's side."""
        raise NotImplementedError

    @property
    def parties(self) -> Mapping[str, type]:
        """Further parties of the protocol's own, by name."""
        return {}

    def plan(self, name: str, **asked: Any) -> Any:
        """Choose parameters.

        Args:
            name: which of ``names``.
            **asked: ``clients``, ``dimension``, ``encoding``, and, where they are not the defaults, ``max_weight``,
                ``dropout``, ``corrupt``, ``threat``, ``key_holder`` (who can decrypt, where somebody can) and ``sums``
                (how many rounds one key is to serve, where there is one). What means nothing here is left unread.

        Raises:
            ParameterError: no safe parameters exist for what was asked.
        """
        raise NotImplementedError

    def read_unproved(self, encoded: bytes) -> Mapping[str, Any]:
        """Return the encoded parameters' fields by name, checked for nothing but their form: cheap, whatever they say.

        Raises:
            DecodeError: the bytes are not an encoding of parameters.
        """
        raise NotImplementedError

    def stages(self, params: Any) -> tuple[str, ...]:
        """Return the stages of a round that clients answer, in order."""
        raise NotImplementedError

    def input_stage(self, params: Any) -> str:
        """Return the stage in which clients submit their vectors."""
        raise NotImplementedError

    def fault_stages(self, params: Any) -> Sequence[str | None]:
        """Return, for faults drawn evenly, before which stage's message each strikes; None where it costs no input."""
        return self.stages(params)

    def simulated(self, params: Any, context: bytes, key: Any) -> Parties:
        """Return the parties of one simulated round; ``key`` is what a caller goes on with, None for a new one.

        Raises:
            InputError: this protocol takes no such key.
        """
        raise NotImplementedError

    def simulation_key(self, params: Any) -> Any:
        """Return a key that several simulated rounds go on with; None where the protocol has none."""
        return None

    def planning_row(self, name: str, workload: Workload, threat: Threat, machine: Machine | None) -> Row:
        """Plan a round and count what it costs.

        Raises:
            ParameterError: no safe parameters exist for this workload.
        """
        raise NotImplementedError

    def calibrated(self, stopwatch: Stopwatch, ring_bits: int, encoding: FixedPoint) -> Mapping[Operation, float]:
        """Time the operations that this protocol brings to what a plan's work is counted in; none by default.

        Args:
            stopwatch: what times a call, in CPU seconds.
            ring_bits: the width that packing is timed at.
            encoding: how coordinates are quantised.
        """
        return {}

    def tables(self) -> Mapping[str, Mapping[Any, Any]]:
        """Return the rows that drive the sessions, by the names that the specification shows them under."""
        return {}

    def warmup(self, params: Any | None) -> int:
        """Compile what a round with these parameters runs, or any round if None; return how many kernels were."""
        raise NotImplementedError

    def checked_rounds(self) -> Mapping[str, Any]:
        """Return the rounds that ``selftest`` runs: what each is called -> parameters of 8-bit codes within 127.5."""
        return {}

    def promise(self, params: Any) -> str:
        """Return a clause on what the aggregator may do, and who stands against it, for people who run a training."""
        raise NotImplementedError

    def facts(self, params: Any) -> Mapping[str, str]:
        """Return what is this protocol's own for people: what it is called -> what it is, ``protocol`` first."""
        return {"protocol": params.protocol}

    def figures(self, params: Any) -> Mapping[str, Any]:
        """Return what is this protocol's own for files that programs read."""
        return {}

    def headline(self, params: Any) -> str:
        """Return a line for pictures: the protocol and what was chosen for it."""
        return f"{params.protocol}, {params.threat}"

    def ring_bits(self, params: Any) -> int | None:
        """Return b where a sum's total is exact integers modulo 2**b; None where it is no such thing."""
        return None

    # What integrations ask, which know a node's files and no protocol

    def identified(self, threat: Threat) -> bool:
        """Return whether each client signs with an identity, and the server takes the directory of all."""
        return threat == "malicious-server"

    def node_material(self, params: Any) -> Mapping[str, Callable[[Path], bytes]]:
        """Return what a client's node must hold besides an identity: name -> how such a file of the node's is read."""
        return {}

    def client_credentials(self, params: Any, identity: Identity | None, material: Mapping[str, bytes]) -> Any:
        """Return what a client's session takes as its credentials.

        Args:
            params: what the round runs with.
            identity: the node's, where clients are ``identified``; else None.
            material: what ``node_material`` names, read.

        Raises:
            DecodeError, InputError: something does not serve for these parameters.
        """
        return identity

    def server_credentials(self, params: Any, directory: Directory | None, parties: Mapping[str, PartyOpening]) -> Any:
        """Return what the server's session takes as its credentials.

        Args:
            params: what the round runs with.
            directory: of exactly the round's clients, where they are ``identified``; else None.
            parties: what each of ``parties`` began the round with, by name.
        """
        return directory

    # What all have

    def describe(self, params: Any) -> Mapping[str, str]:
        """Return what a person should see of the parameters: what it is called -> what it is, in the order to show."""
        ring_bits = self.ring_bits(params)
        ring = f"{ring_bits} bits (weights up to {params.max_weight}), {params.dimension} values"
        return {
            "threat": f"{params.threat}: {self.promise(params)}",
            **self.facts(params),
            "drop-outs": f"up to {params.dropout_count} a round; at least {params.minimum_survivors} must survive",
            "corrupt": f"up to {params.corrupt_count} may collude with the aggregator",
            "encoding": f"{params.encoding.bits} bits within +-{params.encoding.clip:g}",
            **({} if ring_bits is None else {"ring": ring}),
        }

    def as_json(self, params: Any) -> Mapping[str, Any]:
        """Return the parameters for files that programs read: every number is finite, and all have a name."""
        return {
            "protocol": params.protocol,
            "threat": params.threat,
            "clients": params.clients,
            "dimension": params.dimension,
            "clip": params.encoding.clip,
            "bits": params.encoding.bits,
            "step": params.encoding.step,
            "max_weight": params.max_weight,
            "dropout": params.dropout,
            "dropout_count": params.dropout_count,
            "corrupt": params.corrupt,
            "corrupt_count": params.corrupt_count,
            "minimum_survivors": params.minimum_survivors,
            **self.figures(params),
        }


class Home(NamedTuple):
    """Where a wing of this package is: the module whose ``PROTOCOL`` it is, and the names of its protocols."""

    module: str
    names: tuple[str, ...]


WINGS: Mapping[str, Home] = {
    "pairwise": Home("secagg.pairwise.protocol", ("secagg", "secagg+")),
    "homomorphic": Home("secagg.he.protocol", ("bfv", "ckks")),
}
"""This package's own protocols by family: a line here and its folder are the wing. Names alone load nothing."""

DEFAULT_PROTOCOL = WINGS["pairwise"].names[-1]
"""What is used where nobody names one."""


class _Registry:
    """The protocols that are loaded, by family, and the entry points that are not yet."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loaded: dict[str, Protocol] = {}
        self.points: list[EntryPoint] | None = None

    def wing(self, family: str) -> Protocol:
        """Return a wing of this package."""
        if family not in self.loaded:
            self.loaded[family] = importlib.import_module(WINGS[family].module).PROTOCOL
        return self.loaded[family]

    def each(self) -> Iterator[Protocol]:
        """Yield this package's protocols, then those that were registered, then those of entry points.

        Raises:
            InputError: an entry point leads to no protocol, or to one that clashes with another.
        """
        for family in WINGS:
            yield self.wing(family)
        before = set(self.loaded)
        yield from [one for family, one in self.loaded.items() if family not in WINGS]
        self.load_entry_points()
        yield from [one for family, one in self.loaded.items() if family not in before]

    def load_entry_points(self) -> None:
        with self.lock:  # another thread waits for what is being loaded
            self._load_entry_points()

    def _load_entry_points(self) -> None:
        if self.points is None:
            from importlib import metadata

            self.points = list(metadata.entry_points(group=ENTRY_POINTS))
        while self.points:
            # Taken out first: its module may ask this registry while it is imported
            point = self.points.pop(0)
            try:
                try:
                    found = point.load()
                except Exception as problem:  # another package's code, whatever it raises
                    raise InputError(f"{type(problem).__name__}: {problem}") from problem
                register_protocol(found)
            except InputError as problem:
                self.points.insert(0, point)
                raise InputError(
                    f"the entry point {point.name} = {point.value!r} of {ENTRY_POINTS} gives no protocol: {problem}; "
                    "mend or uninstall the package that it comes with"
                ) from problem


_registry = _Registry()
_MUST_GIVE = (
    *("every_stage", "params_type", "client_session", "server_session", "plan", "stages", "input_stage", "simulated"),
    *("planning_row", "promise", "warmup"),
)


def register_protocol(protocol: Protocol) -> None:
    """Add a protocol from outside this package; one that is registered again under its own names replaces itself.

    Raises:
        InputError: it is no ``Protocol``; its family or names are not as described; or its family, a name or its type
            of parameters is another protocol's.
    """
    if not isinstance(protocol, Protocol):
        raise InputError(f"a protocol is an object of secagg.Protocol's, got {type(protocol).__name__}")
    names = getattr(protocol, "names", ())
    named = (getattr(protocol, "family", ""), *(names if isinstance(names, tuple) else ()))
    if len(named) < 2 or not all(isinstance(name, str) and name and "/" not in name for name in named):
        raise InputError("a protocol has a family and a tuple of names: texts that are not empty and hold no slash")
    kind = type(protocol)
    if lacking := [one for one in _MUST_GIVE if getattr(kind, one, None) is getattr(Protocol, one, None)]:
        raise InputError(f"the protocol {protocol.family!r} lacks {', '.join(lacking)}: see help(secagg.Protocol)")
    if not isinstance(protocol.params_type, type) or protocol.params_type is object:
        raise InputError(f"the protocol {protocol.family!r} names no class of its own parameters")
    for family in WINGS:
        _registry.wing(family)
    for other in list(_registry.loaded.values()):
        if type(other) is kind and other.family == protocol.family:
            continue
        taken = set(other.names) & set(protocol.names)
        mine, theirs = protocol.params_type, other.params_type
        alike = issubclass(mine, theirs) or issubclass(theirs, mine)
        if taken or other.family == protocol.family or alike:
            what = f"names {sorted(taken)}" if taken else "its family or its type of parameters"
            raise InputError(f"protocol {protocol.family!r} clashes with {other.family!r}: {what}")
    _registry.loaded[protocol.family] = protocol


def protocols() -> tuple[Protocol, ...]:
    """Return every protocol: this package's, then those that were registered and those of entry points."""
    return tuple(_registry.each())


def protocol_names() -> tuple[str, ...]:
    """Return the names of all protocols."""
    return tuple(name for protocol in protocols() for name in protocol.names)


def every_stage() -> tuple[str, ...]:
    """Return the stages of all protocols, each protocol's in order."""
    return tuple(dict.fromkeys(stage for protocol in protocols() for stage in protocol.every_stage))


def protocol_named(name: str) -> Protocol:
    """Return the protocol that a user names; other wings of this package are not loaded.

    Raises:
        ParameterError: there is none.
    """
    for family, home in WINGS.items():
        if name in home.names:
            return _registry.wing(family)
    for protocol in protocols():
        if name in protocol.names:
            return protocol
    raise ParameterError(f"protocol must be one of {', '.join(protocol_names())}, got {name!r}")


def protocol_of(params: object) -> Protocol:
    """Return the protocol that parameters are of.

    Raises:
        InputError: they are no protocol's.
    """
    for protocol in _registry.each():
        if isinstance(params, protocol.params_type):
            return protocol
    known = ", ".join(protocol.params_type.__name__ for protocol in protocols())
    raise InputError(f"params must be those of a protocol ({known}), got {type(params).__name__}")


def protocol_of_state(purpose: bytes) -> Protocol:
    """Return the protocol that a saved state is of, by what it says of itself.

    Raises:
        DecodeError: it is no protocol's.
    """
    family = purpose.decode(errors="replace").partition("/")[0]
    for protocol in _registry.each():
        if protocol.family == family:
            return protocol
    raise DecodeError("the saved state is of no protocol that is known here")
