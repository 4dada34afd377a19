"""The README's claims that a machine can check."""

import ast
import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import secagg

README = Path(secagg.__file__).parents[1] / "README.md"


def test_the_round_in_the_readme_runs_as_shown():
    outcome = doctest.testfile(str(README), module_relative=False)
    assert outcome.attempted >= 7
    assert outcome.failed == 0


def test_commands_stand_in_the_first_screen():
    first_screen = README.read_text().splitlines()[:24]
    for command in ("make train", "make test", "-m secagg train", "-m pytest"):
        assert any(command in line for line in first_screen), command


def test_names_of_the_library_in_the_readme_exist():
    for name in set(re.findall(r"secagg\.([A-Za-z_]+)", README.read_text())) - {"md", "integrations"}:
        assert name in secagg.__all__, name


def test_a_decryptor_that_follows_the_readme_releases_one_sum_whenever_it_dies():
    """The lines as they stand, with every client's upload; then the process starts again from what was stored."""
    text = README.read_text(encoding="utf-8")
    block = text[text.index("# At the decryptor: a key for") :].split("```", 1)[0]
    signing = {one: secagg.SigningKey.generate() for one in range(6)}
    directory = secagg.Directory({one: key.public for one, key in signing.items()})
    params = secagg.HEParams.plan(
        clients=6, dimension=3, dropout=0.2, corrupt=0.1, encoding=secagg.FixedPoint(clip=1.0, bits=16)
    )
    own, seal, context, stored, uploads = secagg.SigningKey.generate(), bytes(32), b"model", {}, {}
    names = {
        "secagg": secagg,
        "params": params,
        "directory": directory,
        "own": own,
        "seal": seal,
        "model_hash": context,
        "store": stored.__setitem__,
    }

    def encrypt() -> None:
        public = secagg.PublicKey.open(names["key"].public.message(own), params, own.public)
        for one, key in signing.items():
            identity = secagg.Identity(key=key, directory=directory)
            client = secagg.HEClientSession(
                params, one, context=context, identity=identity, public_key=public, decryptor=own.public
            )
            client.receive(names["server"].requests()[one])
            uploads[one] = client.submit(np.zeros(3)).payload

    def restart() -> secagg.DecryptorSession:
        key = secagg.DecryptionKey.restore(stored["key"], seal_key=seal)
        return secagg.DecryptorSession.restore(stored["decryptor"], key, directory, signing_key=own, seal_key=seal)

    for statement in ast.parse(block).body:
        code = compile(ast.Module([statement], []), "README.md", "exec")
        if "upload" in code.co_names:
            if not uploads:
                encrypt()
            for one in signing:
                exec(code, names | {"client_id": one, "upload": uploads[one]})  # noqa: S102 - our own README
            continue
        if "accept_release" in code.co_names:
            assert restart().stage is None  # what leaves here, a process that starts again knows of
        exec(code, names)  # noqa: S102
    assert names["server"].result.survivors == tuple(range(6))

    second = secagg.HEServerSession(
        params, directory, context=context, opening=names["decryptor"].opening, decryptor=own.public
    )
    again = restart()
    for one in range(5):
        second.receive(one, uploads[one])
        with pytest.raises(secagg.StaleMessage):
            again.receive(one, uploads[one])
    second.advance()
    with pytest.raises(secagg.ServerFault, match="second, different"):
        again.release(second.release_request)
