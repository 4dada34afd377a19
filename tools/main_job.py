"""What an installed secagg must do, with no extra and no source folder beside it.

Run: ``python -P tools/main_job.py README.md``, with the Python of the environment that secagg was installed into. It
runs README's twelve-line round, and a round whose every message is answered from a folder of states.
"""

from __future__ import annotations

import doctest
import sys
import tempfile
from pathlib import Path

import numpy as np

import secagg

SEAL_KEY = bytes(range(32))
CONTEXT = b"matrix"
CLIENTS, GONE = 6, {2: "masked_input"}
PARAMS = secagg.RoundParams.plan(
    clients=CLIENTS, dimension=20, dropout=0.2, corrupt=0.1, encoding=secagg.FixedPoint(clip=1.0, bits=16)
)


def twelve_lines(readme: Path) -> None:
    """Run the round of README's first section as it stands there."""
    text = readme.read_text(encoding="utf-8")
    start = text.index("## A round in twelve lines")
    section = text[start : text.index("\n## ", start)]
    test = doctest.DocTestParser().get_doctest(section, {}, "twelve lines", str(readme), 0)
    outcome = doctest.DocTestRunner().run(test)
    if outcome.failed or outcome.attempted < 7:
        sys.exit(f"README's round: {outcome.failed} of {outcome.attempted} lines failed")


def answered(one: int, store: secagg.FileStore, payload: bytes, update: np.ndarray) -> bytes:
    """Answer a request as a process would that knows nothing but a slot, and that dies in its training once."""
    for dies in (True, False):
        slot = store.slot("round")
        saved, known = slot.take(), {"keep": slot.put, "seal_key": SEAL_KEY}
        if saved is None:
            client = secagg.ClientSession(PARAMS, one, context=CONTEXT, **known)
        else:
            client = secagg.ClientSession.restore(saved, one, **known)
        answer = client.receive(payload)
        if isinstance(answer, secagg.InputNeeded):
            if dies:
                store.recover()
                continue
            answer = client.submit(update)
        slot.put_back()
    return answer.payload


def restarted_round() -> None:
    """Run a round in which no session outlives a message that follows from it."""
    updates = np.random.default_rng(0).uniform(-1, 1, (CLIENTS, 20))
    with tempfile.TemporaryDirectory() as folder:
        stores = {one: secagg.FileStore(Path(folder) / str(one)) for one in range(CLIENTS)}
        store = secagg.FileStore(Path(folder) / "server")
        slot = store.slot("round")
        server = secagg.ServerSession(PARAMS, range(CLIENTS), context=CONTEXT, keep=slot.put, seal_key=SEAL_KEY)
        while (stage := server.stage) is not None:
            for one, payload in server.requests().items():
                if GONE.get(one) != stage:
                    server.receive(one, answered(one, stores[one], payload, updates[one]))
            server.advance()
            slot = store.slot("round")
            server = secagg.ServerSession.restore(slot.take(), keep=slot.put, seal_key=SEAL_KEY)
    stayed = [one for one in range(CLIENTS) if one not in GONE]
    if list(server.result.survivors) != stayed:
        sys.exit(f"a restarted round: survivors {server.result.survivors}")
    if np.abs(server.result.mean - updates[stayed].mean(axis=0)).max() >= PARAMS.encoding.step:
        sys.exit("a restarted round: the mean is wrong")


if __name__ == "__main__":
    twelve_lines(Path(sys.argv[1]))
    restarted_round()
    print(f"main job done by secagg {secagg.__version__} in {Path(secagg.__file__).parent}")
