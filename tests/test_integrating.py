"""The code of docs/integrating.md, run as it stands there."""

from __future__ import annotations

import errno
import functools
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import secagg
from interruptions import Cut, run_cut

GUIDE = Path(__file__).parents[1] / "docs" / "integrating.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_guides_round_gives_the_mean_of_those_that_stayed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A round that fails leaves its clients waiting, which should not keep the tests from ending
    monkeypatch.setattr(threading, "Thread", functools.partial(threading.Thread, daemon=True))
    namespace: dict[str, object] = {}
    exec("\n".join(BLOCKS), namespace)  # noqa: S102 - our own documentation
    result, updates = namespace["result"], namespace["updates"]
    assert result.dropped == {3: "share_keys"}
    assert namespace["again"].stage == "unmask"
    present = list(result.survivors)
    mean = np.average(updates[present], axis=0, weights=[10 * (one + 1) for one in present])
    assert np.abs(result.mean - mean).max() < result.params.encoding.step
    assert not any(thread.join(timeout=5) or thread.is_alive() for thread in namespace["threads"])


def test_the_guides_round_stands_where_no_kernel_is_compiled_yet(tmp_path):
    fresh = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "TMPDIR": str(tmp_path), "PYTHONPATH": str(GUIDE.parents[1])}
    command = [sys.executable, "-c", "\n".join(BLOCKS)]
    done = subprocess.run(
        command, env={**os.environ, **fresh}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(0, 1, 2, 4) {3: 'share_keys'}")


def test_the_integration_itself_is_as_short_as_the_readme_says():
    lines = [line for block in BLOCKS[:3] for line in block.splitlines() if line.strip()]
    assert len(BLOCKS) == 5
    assert len(lines) <= 72


def guide():
    """What the guide's first three blocks define."""
    namespace: dict[str, object] = {}
    exec("\n".join(BLOCKS[:3]), namespace)  # noqa: S102 - our own documentation
    return SimpleNamespace(**namespace)


@pytest.mark.parametrize("what", ["a wrong sealing key", "a message of nobody's", "a full disk", "a failing model"])
def test_a_state_survives_whatever_keeps_its_client_from_answering(tmp_path, monkeypatch, what):
    code = guide()
    params = secagg.RoundParams.plan(clients=3, dimension=2, dropout=0.0, encoding=secagg.FixedPoint(clip=1.0, bits=16))
    server = secagg.ServerSession(params, range(3))
    others = {one: secagg.ClientSession(params, one) for one in (1, 2)}
    key, store = bytes(range(32)), code.Store(tmp_path / "client")

    def answer(payload, key=key, train=lambda: (np.zeros(2), 1)):
        # A fresh process for each message
        again = code.Store(store.path)
        return code.answer(payload, again, 0, key, lambda: secagg.ClientSession(params, 0), train)

    def fail(payload):
        if what == "a wrong sealing key":
            with pytest.raises(secagg.DecodeError, match="seal_key"):
                answer(payload, key=bytes(32))
        elif what == "a message of nobody's":
            assert answer(b"SAgg" + bytes(99)) is None
        elif what == "a full disk":
            with monkeypatch.context() as patched:
                patched.setattr("os.fsync", full)
                with pytest.raises(OSError, match="no space left"):
                    answer(payload)
        elif server.stage == "masked_input":
            with pytest.raises(ZeroDivisionError):
                answer(payload, train=lambda: 1 / 0)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space left on device")

    while server.stage is not None:
        for one, payload in server.requests().items():
            if one == 0:
                if store.path.exists():
                    fail(payload)
                server.receive(0, answer(payload))
                continue
            reply = others[one].receive(payload)
            if isinstance(reply, secagg.InputNeeded):
                reply = others[one].submit(np.zeros(2))
            server.receive(one, reply.payload)
        server.advance()
    assert server.result.survivors == (0, 1, 2)
    names = [path.name for path in tmp_path.iterdir()]
    assert names == ["client"] or what == "a full disk"


def test_one_store_serves_round_after_round(tmp_path):
    code = guide()
    params = secagg.RoundParams.plan(clients=3, dimension=2, dropout=0.0, encoding=secagg.FixedPoint(clip=1.0, bits=16))
    key, store = bytes(32), code.Store(tmp_path / "client")
    for context in (b"round 1", b"round 2"):
        server = secagg.ServerSession(params, range(3), context=context)
        invitation = server.requests()[0]
        new_session = functools.partial(secagg.ClientSession, params, 0, context=context)
        assert code.answer(b"junk", store, 0, key, new_session, None) is None
        server.receive(0, code.answer(invitation, store, 0, key, new_session, None))
        assert code.answer(b"junk", store, 0, key, new_session, None) is None
        store.path.unlink()


def test_a_state_whose_claim_is_cut_off_anywhere_serves_again(tmp_path):
    code = guide()
    params = secagg.RoundParams.plan(clients=3, dimension=2, dropout=0.0, encoding=secagg.FixedPoint(clip=1.0, bits=16))
    key, payload = bytes(32), secagg.ServerSession(params, range(3)).requests()[0]
    paths = iter(range(10_000))

    def stored():
        store = code.Store(tmp_path / str(next(paths)))
        first = code.answer(payload, store, 0, key, lambda: secagg.ClientSession(params, 0), None)
        return store, first

    def again(made):
        return code.answer(payload, made[0], 0, key, lambda: secagg.ClientSession(params, 0), None)

    cuts = 0
    for at in range(1000):
        made = stored()
        try:
            run_cut(lambda made=made: again(made), at, of="<string>")
            break
        except Cut:
            cuts += 1
        assert again(made) == made[1]
    assert cuts > 10


def test_the_same_code_serves_a_sparse_cohort_against_a_malicious_server(tmp_path):
    code, clients = guide(), 40
    params = secagg.RoundParams.plan(
        clients=clients,
        dimension=2,
        dropout=0.1,
        corrupt=0.05,
        threat="malicious-server",
        encoding=secagg.FixedPoint(clip=1.0, bits=16),
    )
    assert params.graph == "harary"
    keys = {one: secagg.SigningKey.generate() for one in range(clients)}
    directory = secagg.Directory({one: key.public for one, key in keys.items()})

    class Inbox:
        """A client behind the transport: it answers at once, each message in a process of its own."""

        def __init__(self, one):
            self.one, self.identity = one, secagg.Identity(key=keys[one], directory=directory)

        def put(self, payload):
            reply = code.answer(
                payload,
                code.Store(tmp_path / f"client-{self.one}"),
                self.one,
                bytes(32),
                lambda: secagg.ClientSession(params, self.one, context=b"round", identity=self.identity),
                lambda: (np.zeros(2), 1),
                self.identity,
                beacon=lambda session_id: b"public" + session_id,
            )
            outbox.put((self.one, reply))

    outbox = queue.Queue()
    session = secagg.ServerSession(params, directory, context=b"round", directory=directory)
    store = code.Store(tmp_path / "server")
    inboxes = {one: Inbox(one) for one in range(clients)}
    result = code.run_server(
        session, inboxes, outbox, store, bytes(32), patience=60.0, beacon=lambda session_id: b"public" + session_id
    )
    assert result.survivors == tuple(range(clients))
