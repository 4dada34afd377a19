"""A forked child can use neither a party of a homomorphic sum that its parent opened nor its key."""

from __future__ import annotations

import numpy as np
import pytest

from children import all_refused, needs_fork
from federation import Federation, plan
from secagg import DEFERRED

pytestmark = needs_fork


@pytest.mark.parametrize("holder", ["decryptor", "clients"])
def test_a_child_can_use_no_party_of_a_homomorphic_sum_nor_its_key(holder):
    federation = Federation(plan(2, 2, key_holder=holder))
    server, client, key, decryptor = federation.server, federation.clients[0], federation.key, federation.decryptor
    opening = server.requests()[0]

    def check() -> None:
        calls = [
            server.requests,
            lambda: server.receive(0, b""),
            lambda: server.receive_all([]),
            server.advance,
            lambda: server.receive_from("decryptor", b""),
            server.abort,
            server.save,
            lambda: client.receive(opening),
            lambda: client.submit(np.zeros(2)),
            client.delivered,
            client.save,
            key.save,
            key.check_usable,
            lambda: key.check_releasable(bytes(32), bytes(32)),
            lambda: key.release(np.zeros(1), 2, bytes(32), bytes(32)),
        ]
        if decryptor is not None:
            calls += [
                lambda: decryptor.receive(0, b""),
                lambda: decryptor.release(b""),
                lambda: decryptor.opening(),
                lambda: server.party_requests()["decryptor"],
                decryptor.save,
            ]
        all_refused(*calls)

    check()
    waiting = federation.client(0, keep=DEFERRED, seal_key=None)
    waiting.receive(opening)
    pending = waiting.submit(np.ones(2))
    all_refused(pending.kept)
    assert pending.kept().stage == "encrypted_input"
    client.receive(opening)
    check()
    upload = client.submit(np.ones(2)).payload
    check()
    federation.send(0, upload)
    federation.send(1, federation.upload(1, np.ones(2)))
    server.advance()
    check()
    if decryptor is not None:
        server.receive_from("decryptor", decryptor.release(server.party_requests()["decryptor"]))
        check()
