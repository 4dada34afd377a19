"""The code of the guides in docs, and cohorts of every protocol to run it with."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import secagg

DOCS = Path(secagg.__file__).parents[1] / "docs"
CONTEXT = b"a hash of the model"
SEAL_KEY = bytes(range(32))
PROTOCOLS = ("semi-honest", "malicious complete", "malicious sparse", "bfv", "bfv of clients")


def blocks(page: str, kind: str = "python") -> list[str]:
    """Return a page's blocks of code; a kind stands behind the fence."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def without_doctests(found: list[str]) -> list[str]:
    return [block for block in found if not block.startswith(">>>")]


def loops() -> SimpleNamespace:
    """What docs/integrating.md defines: ``run_server`` and ``answer``."""
    return _run(blocks("integrating.md")[:3])


def awaited() -> SimpleNamespace:
    """The same of its section on awaited stores."""
    return _run(blocks("integrating.md", "python awaited"))


def decryptors() -> SimpleNamespace:
    """What docs/homomorphic.md defines at the decryptor: ``begin_decryptor`` and ``serve``."""
    [block] = [block for block in blocks("homomorphic.md") if "def serve" in block]
    return _run(["import secagg", block[: block.index("\nkeys, sessions =")]])


def check_names(page: str) -> None:
    """Check that what a page calls ``secagg.something`` is there."""
    text = (DOCS.parent / page).read_text(encoding="utf-8")
    for name in set(re.findall(r"\bsecagg\.([A-Za-z_]+)", text)) - {"md", "integrations", "planning", "protocols"}:
        assert name in secagg.__all__, name


def _run(code: list[str]) -> SimpleNamespace:
    namespace: dict[str, Any] = {}
    exec("\n".join(code), namespace)  # noqa: S102 - our own documentation
    return SimpleNamespace(**namespace)


def beacon(session_id: bytes) -> bytes:
    """Public bytes that stand for a beacon's."""
    return b"public" + session_id


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """What a round of a protocol is run with. ``client`` and ``server`` make credentials, once the decryptor has begun.

    Attributes:
        params: what all agree on.
        roster: what ``ServerSession`` takes as such.
        own: the decryptor's signing key.
        client: (id, opening and key message) -> credentials.
        server: (opening) -> credentials.
    """

    params: Any
    roster: Any
    client: Callable[[int, bytes], Any]
    server: Callable[[bytes], Any]
    own: secagg.SigningKey = field(default_factory=lambda: secagg.SigningKey(bytes(32)))


def cohort(protocol: str, clients: int | None = None) -> Cohort:
    """Return the cohort of one of ``PROTOCOLS``, no drop-outs tolerated where none need be."""
    n = clients or (40 if protocol == "malicious sparse" else 3)
    encoding = secagg.FixedPoint(clip=1.0, bits=16)
    signing = {one: secagg.SigningKey(bytes([1, *[0] * 30, one])) for one in range(n)}
    directory = secagg.Directory({one: key.public for one, key in signing.items()})
    identities = {one: secagg.Identity(key=key, directory=directory) for one, key in signing.items()}
    asked = {"clients": n, "dimension": 3, "dropout": 0.0, "corrupt": 0.0, "encoding": encoding}
    if protocol == "semi-honest":
        params: Any = secagg.RoundParams.plan(**asked)
        return Cohort(params=params, roster=range(n), client=lambda one, _: None, server=lambda _: None)
    if protocol.startswith("malicious"):
        asked |= {"threat": "malicious-server"} | ({"dropout": 0.1, "corrupt": 0.05} if n >= 40 else {})
        params = secagg.RoundParams.plan(**asked)
        assert (params.graph == "harary") == (protocol == "malicious sparse")
        return Cohort(
            params=params, roster=directory, client=lambda one, _: identities[one], server=lambda _: directory
        )
    if protocol == "bfv":
        params = secagg.HEParams.plan(**asked)
        own = secagg.SigningKey(bytes(32))

        def client(one: int, key_message: bytes) -> secagg.HECredentials:
            public = secagg.PublicKey.open(key_message, params, own.public)
            return secagg.HECredentials(identity=identities[one], public_key=public, decryptor=own.public)

        def server(opening: bytes) -> secagg.HEServerCredentials:
            return secagg.HEServerCredentials(directory=directory, opening=opening, decryptor=own.public)

        return Cohort(params=params, roster=directory, own=own, client=client, server=server)
    params = secagg.HEParams.plan(key_holder="clients", **asked)
    saved = secagg.DecryptionKey.generate(params, keep=secagg.IN_MEMORY).save(seal_key=None)

    @functools.cache
    def key(one: int | None) -> secagg.DecryptionKey:
        return secagg.DecryptionKey.restore(saved, keep=secagg.IN_MEMORY)

    return Cohort(
        params=params,
        roster=directory,
        client=lambda one, _: secagg.HECredentials(identity=identities[one], key=key(one)),
        server=lambda _: secagg.HEServerCredentials(directory=directory, key_id=key(None).public.key_id),
    )
