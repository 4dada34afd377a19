"""What an installed secagg must do, with no extra and no source folder beside it.

Run: ``python -P tools/main_job.py README.md``, with the Python of the environment that secagg was installed into. It
runs README's twelve-line round, and a round in which every party is saved and restored around every message.
"""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import numpy as np

import secagg

SEAL_KEY = bytes(range(32))
CLIENTS, GONE = 6, {2: "masked_input"}


def twelve_lines(readme: Path) -> None:
    """Run the round of README's first section as it stands there."""
    text = readme.read_text(encoding="utf-8")
    start = text.index("## A round in twelve lines")
    section = text[start : text.index("\n## ", start)]
    test = doctest.DocTestParser().get_doctest(section, {}, "twelve lines", str(readme), 0)
    outcome = doctest.DocTestRunner().run(test)
    if outcome.failed or outcome.attempted < 7:
        sys.exit(f"README's round: {outcome.failed} of {outcome.attempted} lines failed")


def answered(one: int, saved: bytes, payload: bytes, update: np.ndarray) -> tuple[bytes, bytes]:
    """Answer a request as a process would that knows nothing but a saved state: the reply and the next state."""
    client = secagg.ClientSession.restore(saved, one, seal_key=SEAL_KEY)
    answer = client.receive(payload)
    if isinstance(answer, secagg.InputNeeded):
        client = secagg.ClientSession.restore(client.save(seal_key=SEAL_KEY), one, seal_key=SEAL_KEY)
        client.receive(payload)
        answer = client.submit(update)
    return answer.payload, client.save(seal_key=SEAL_KEY)


def restarted_round() -> None:
    """Run a round in which no session outlives a message."""
    params = secagg.RoundParams.plan(
        clients=CLIENTS, dimension=20, dropout=0.2, corrupt=0.1, encoding=secagg.FixedPoint(clip=1.0, bits=16)
    )
    updates = np.random.default_rng(0).uniform(-1, 1, (CLIENTS, 20))
    saved = {
        one: secagg.ClientSession(params, one, context=b"matrix").save(seal_key=SEAL_KEY) for one in range(CLIENTS)
    }
    server = secagg.ServerSession(params, roster=range(CLIENTS), context=b"matrix")
    while (stage := server.stage) is not None:
        for one, payload in server.requests().items():
            if GONE.get(one) == stage:
                continue
            reply, saved[one] = answered(one, saved[one], payload, updates[one])
            server = secagg.ServerSession.restore(server.save(seal_key=SEAL_KEY), seal_key=SEAL_KEY)
            server.receive(one, reply)
        server.advance()
    server = secagg.ServerSession.restore(server.save(seal_key=SEAL_KEY), seal_key=SEAL_KEY)
    stayed = [one for one in range(CLIENTS) if one not in GONE]
    if list(server.result.survivors) != stayed:
        sys.exit(f"a restarted round: survivors {server.result.survivors}")
    if np.abs(server.result.mean - updates[stayed].mean(axis=0)).max() >= params.encoding.step:
        sys.exit("a restarted round: the mean is wrong")


if __name__ == "__main__":
    twelve_lines(Path(sys.argv[1]))
    restarted_round()
    print(f"main job done by secagg {secagg.__version__} in {Path(secagg.__file__).parent}")
