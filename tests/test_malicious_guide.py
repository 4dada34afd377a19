"""The commands and the code of docs/malicious-server.md."""

from __future__ import annotations

import re
import shlex

import numpy as np
from typer.testing import CliRunner

import guides
import secagg
from cheats import reach, signed
from cohort import Cohort
from secagg import cli
from secagg.wire import HEADER_BYTES

PAGE = (guides.DOCS / "malicious-server.md").read_text(encoding="utf-8")
FORGER = 2
[COMMANDS] = re.findall(r"^```\n(secagg identity.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def definitions() -> dict[str, object]:
    """What the page's Python defines."""
    names: dict[str, object] = {"secagg": secagg}
    exec("\n".join(guides.blocks("malicious-server.md")), names)  # noqa: S102 - our own documentation
    return names


def run(line: str) -> str:
    done = CliRunner().invoke(cli.app, line)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_pages_commands_and_sessions_give_a_sum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new, seal, directory, show = (line.partition("#")[0].split(maxsplit=1)[1] for line in COMMANDS.splitlines())
    for one in range(5):
        for line in (new, seal):
            run(line.replace("hospital-7", f"hospital-{one}"))
    publics = shlex.join(sorted(path.name for path in tmp_path.glob("*.pub")))
    printed = run(directory.replace("hospital-*.pub", publics))
    digest = secagg.read_directory("cohort.json").digest().hex()
    assert digest in printed.replace("\n", "")
    assert digest in run(show.replace("hospital-7", "hospital-3")).replace("\n", "")
    names, store = definitions(), secagg.FileStore(tmp_path / "states")
    server = names["new_server"](digest, store.slot("server"), bytes(32))
    clients = {one: names["new_client"](f"hospital-{one}", digest, store.slot(f"client-{one}")) for one in range(5)}
    vectors = np.random.default_rng(0).uniform(-1, 1, (5, 3))
    requests = server.requests()
    while requests:
        for one, payload in requests.items():
            answer = clients[one].receive(payload)
            if isinstance(answer, secagg.InputNeeded):
                answer = clients[one].submit(vectors[one])
            names["receive"](server, one, answer.payload)
        requests = server.advance()
    assert np.abs(server.result.mean - vectors.mean(axis=0)).max() < names["params"].encoding.step


def test_the_pages_receive_convicts_a_forger():
    params = guides.cohort("malicious complete", 5).params
    cohort = reach(Cohort(params, np.zeros((5, 3))), "unmask", {})
    payload = bytearray(cohort.answer(FORGER, cohort.server.requests()[FORGER]))
    payload[HEADER_BYTES] ^= 1
    judged = []

    class Server:
        """The cohort's, whose transcript is asked for where there is evidence to judge."""

        receive = cohort.server.receive

        def transcript(self):
            judged.append(FORGER)
            return cohort.server.transcript()

    receive = definitions()["receive"]
    receive(Server(), FORGER, bytes(payload))
    assert judged == []  # what the network altered proves nothing
    receive(Server(), FORGER, signed(cohort, FORGER, payload))
    assert judged == [FORGER]
    assert FORGER in cohort.server.waiting_for


def test_names_of_the_library_on_the_page_exist():
    guides.check_names("docs/malicious-server.md")
