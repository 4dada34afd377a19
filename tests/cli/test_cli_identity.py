"""``secagg identity``: keys, a directory, who has which id, and what is never overwritten, confused or shown."""

from __future__ import annotations

import base64
import itertools
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import secagg
from secagg import IN_MEMORY, cli, identity_files
from secagg.cli.identity import ids_of, natural_order
from secagg.errors import DecodeError, InputError
from secagg.identity import Directory
from secagg.identity_files import read_directory, read_public_key, read_seal_key, read_signing_key

READERS = {
    identity_files.PRIVATE_KEY: read_signing_key,
    identity_files.PUBLIC_KEY: read_public_key,
    identity_files.SEALING_KEY: read_seal_key,
    identity_files.DIRECTORY: read_directory,
}


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["identity", *map(str, arguments)])


def make_keys(folder, ids):
    shown = [invoke("new", folder / f"node-{one}.key") for one in ids]
    assert all(done.exit_code == 0 for done in shown), shown[0].output
    return [done.stdout.strip() for done in shown]


@pytest.fixture
def made(tmp_path):
    """A file of each kind, by its kind."""
    make_keys(tmp_path, range(2))
    assert invoke("sealing-key", tmp_path / "seal").exit_code == 0
    files = [tmp_path / f"node-{one}.pub" for one in range(2)]
    assert invoke("directory", *files, "--out", tmp_path / "cohort.json").exit_code == 0
    return {
        identity_files.PRIVATE_KEY: tmp_path / "node-0.key",
        identity_files.PUBLIC_KEY: tmp_path / "node-0.pub",
        identity_files.SEALING_KEY: tmp_path / "seal",
        identity_files.DIRECTORY: tmp_path / "cohort.json",
    }


def test_keys_and_their_directory_are_made_and_read_back(tmp_path):
    public = make_keys(tmp_path, range(3))
    done = invoke("directory", *(tmp_path / f"node-{one}.pub" for one in range(3)), "--out", tmp_path / "cohort.json")
    directory = read_directory(tmp_path / "cohort.json")
    assert done.stdout.splitlines()[-1] == f"digest   {directory.digest().hex()}"
    assert [key.hex() for key in directory.values()] == public
    assert list(directory) == [0, 1, 2]
    assert read_signing_key(tmp_path / "node-2.key").public.hex() == public[2]
    assert directory.id_of(bytes.fromhex(public[2])) == 2
    with pytest.raises(InputError, match="not in the directory"):
        directory.id_of(bytes(32))
    assert Directory.from_json(directory.to_json(), pinned=directory.digest()).digest() == directory.digest()


def test_a_sum_against_a_malicious_server_from_files_alone(tmp_path):
    """What README shows, with a whole cohort; the ids are the files' numbers, which do not begin at 0."""
    ids = range(1, 6)
    make_keys(tmp_path, ids)
    invoke("sealing-key", tmp_path / "seal")
    files = sorted(map(str, tmp_path.glob("*.pub")))
    assert invoke("directory", *files, "--out", tmp_path / "cohort.json").exit_code == 0
    directory, seal = secagg.read_directory(tmp_path / "cohort.json"), secagg.read_seal_key(str(tmp_path / "seal"))
    params = secagg.RoundParams.plan(
        clients=5, dimension=3, encoding=secagg.FixedPoint(clip=1.0, bits=16), threat="malicious-server"
    )
    server = secagg.ServerSession(params, directory, context=b"round 1", credentials=directory, keep=IN_MEMORY)
    clients = {}
    for one in ids:
        key = secagg.read_signing_key(tmp_path / f"node-{one}.key")
        own = directory.id_of(key.public)
        assert own == one
        identity = secagg.Identity(key=key, directory=directory)
        clients[own] = secagg.ClientSession(params, own, context=b"round 1", credentials=identity, keep=IN_MEMORY)
    vectors = np.random.default_rng(0).uniform(-1, 1, (6, 3))
    requests = server.requests()
    while requests:
        for one, payload in requests.items():
            answer = clients[one].receive(payload)
            if isinstance(answer, secagg.InputNeeded):
                answer = clients[one].submit(vectors[one])
            clients[one].save(seal_key=seal)
            server.receive(one, answer.payload)
        requests = server.advance()
    assert np.abs(server.result.mean - vectors[1:].mean(axis=0)).max() < params.encoding.step


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permission bits")
def test_secret_files_are_their_owners_alone(made):
    for kind in (identity_files.PRIVATE_KEY, identity_files.SEALING_KEY):
        assert stat.S_IMODE(made[kind].stat().st_mode) == 0o600


def test_nothing_is_overwritten_and_no_secret_is_printed(tmp_path):
    make_keys(tmp_path, [0])
    secret = read_signing_key(tmp_path / "node-0.key").secret_bytes()
    for arguments in (
        ("new", tmp_path / "node-0.key"),
        ("sealing-key", tmp_path / "node-0.key"),
        ("directory", tmp_path / "node-0.pub", "--out", tmp_path / "node-0.key"),
        ("new", tmp_path / "other.pub"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 2, done.output
        assert secret.hex() not in done.output
    assert read_signing_key(tmp_path / "node-0.key").secret_bytes() == secret


def test_a_public_half_goes_beside_its_key_whatever_the_name(tmp_path):
    for name, public in (("a.key", "a.pub"), ("a.pem", "a.pub"), ("ward.1", "ward.1.pub"), ("ward.2", "ward.2.pub")):
        if public == "a.pub":
            (tmp_path / public).unlink(missing_ok=True)
        assert invoke("new", tmp_path / name).exit_code == 0
        assert read_public_key(tmp_path / public) == read_signing_key(tmp_path / name).public


def test_a_key_whose_public_half_cannot_be_written_is_not_left_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(identity_files, "_public_pem", full)
    done = invoke("new", tmp_path / "node.key")
    assert done.exit_code == 1
    assert "no space" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_key_in_two_places_of_a_directory_is_refused(tmp_path):
    make_keys(tmp_path, [0])
    public = tmp_path / "node-0.pub"
    done = invoke("directory", f"0={public}", f"1={public}", "--out", tmp_path / "cohort.json")
    assert done.exit_code == 2
    assert "hold one key" in done.stderr
    assert not (tmp_path / "cohort.json").exists()


# Who has which id


def test_eleven_hospitals_have_their_own_numbers_in_the_shells_order(tmp_path):
    make_keys(tmp_path, range(11))
    files = sorted(map(str, tmp_path.glob("*.pub")))  # 0, 1, 10, 2, ...
    assert files[2].endswith("node-10.pub")
    done = invoke("directory", *files, "--out", tmp_path / "cohort.json")
    directory = read_directory(tmp_path / "cohort.json")
    for one in range(11):
        assert directory[one] == read_public_key(tmp_path / f"node-{one}.pub")
    table = [line.split() for line in done.stdout.splitlines()[1:12]]
    assert [(int(line[0]), Path(line[2]).name) for line in table] == [(one, f"node-{one}.pub") for one in range(11)]
    assert all(directory[one].hex().startswith(line[1].rstrip(".")) for one, line in enumerate(table))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["h-1.pub", "h-10.pub", "h-2.pub"], {1: "h-1.pub", 2: "h-2.pub", 10: "h-10.pub"}),
        (["7.pub", "a/007b3.pub"], {3: "a/007b3.pub", 7: "7.pub"}),
        (["berlin.pub", "aachen.pub"], {0: "aachen.pub", 1: "berlin.pub"}),
        (["ward-10-b.pub", "ward-9-b.pub"], {0: "ward-9-b.pub", 1: "ward-10-b.pub"}),
        (["5=h-1.pub", "0=h-2.pub"], {0: "h-2.pub", 5: "h-1.pub"}),
        (["5=x=y.pub"], {5: "x=y.pub"}),
    ],
)
def test_ids(arguments, expected):
    assert {one: file.as_posix() for one, file in ids_of(arguments).items()} == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["1=a.pub", "b.pub"], "either all files have ids or none: b.pub has none"),
        (["h-1.pub", "spare.pub"], "spare.pub does not"),
        (["north/h-1.pub", "south/h-1.pub"], "both have the id 1"),
        (["h-1.pub", "h-01.pub"], "both have the id 1"),
        (["1=a.pub", "01=b.pub"], "both have the id 1"),
        (["x=a.pub"], "an id is an integer"),
        (["h-7.pub", "h-20240101120000000000007.pub"], "h-20240101120000000000007.pub ends in a number that is no"),
    ],
)
def test_arguments_that_leave_it_open_who_has_which_id(arguments, words, tmp_path):
    with pytest.raises(InputError, match=words):
        ids_of(arguments)
    done = invoke("directory", *arguments, "--out", tmp_path / "cohort.json")
    assert done.exit_code == 2
    assert words in done.stderr


def test_an_id_that_no_client_has_is_refused(tmp_path):
    make_keys(tmp_path, [0])
    done = invoke("directory", f"{2**64 - 1}={tmp_path / 'node-0.pub'}", "--out", tmp_path / "cohort.json")
    assert done.exit_code == 2
    assert "2**64 - 2" in done.stderr


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_arguments_changes_nothing(numbers, shuffle):
    files = [f"node-{one}.pub" for one in numbers]
    shuffle.shuffle(files)
    assert ids_of(files) == {one: Path(f"node-{one}.pub") for one in sorted(numbers)}
    named = [f"{one}-node.pub" for one in numbers]
    assert [file.name for file in ids_of(named).values()] == [f"{one}-node.pub" for one in sorted(numbers)]


def test_natural_order_is_that_of_people():
    names = ["9", "10", "010", "a", "a1b2", "a1b10", "a2", "a10b", "b"]
    assert sorted(names[::2] + names[1::2], key=natural_order) == ["9", "010", "10", *names[3:]]


# Each kind of file is told from the others


@pytest.mark.parametrize(("wanted", "kind"), list(itertools.permutations(READERS, 2)))
def test_a_file_of_another_kind_is_named_and_not_quoted(made, wanted, kind):
    with pytest.raises(DecodeError) as caught:
        READERS[wanted](made[kind])
    assert f"is {kind}, where {wanted} is expected" in str(caught.value)
    lines = made[kind].read_text().splitlines()
    assert not any(line in str(caught.value) for line in lines if not line.startswith("-----"))


def test_a_sealing_key_named_pub_is_not_published(made, tmp_path):
    secret = made[identity_files.SEALING_KEY].read_bytes()
    (tmp_path / "node-2.pub").write_bytes(secret)
    files = [tmp_path / f"node-{one}.pub" for one in range(3)]
    done = invoke("directory", *files, "--out", tmp_path / "all.json")
    assert done.exit_code == 1
    assert "node-2.pub is a sealing key, where a public key is expected" in done.stderr
    assert secret.splitlines()[1].decode() not in done.output
    assert not (tmp_path / "all.json").exists()


def pem_of(kind):
    private = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "x25519": x25519.X25519PrivateKey.generate,
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")),
    )


def contents():
    """What a file may hold that is none of ours, with a word of what is said about it."""
    seal = b"-----BEGIN SECAGG SEALING KEY-----\n%b\n-----END SECAGG SEALING KEY-----\n"
    private, public, locked = pem_of("ed25519")
    yield "hexadecimal", b"ab" * 32 + b"\n", "do not say what they are"
    yield "empty", b"", "an empty file"
    yield "text", b"hunter2", "none of the files"
    yield "binary", bytes(range(256)), "none of the files"
    yield "locked", locked, "under a password"
    yield "two blocks", private + public, "several PEM blocks"
    yield "text around", b"note\n" + private, "text around it"
    yield "cut", private[:-12], "damaged"
    yield "another tag", private.replace(b"PRIVATE KEY", b"RSA PRIVATE KEY"), "another kind"
    yield "seal cut", seal % base64.b64encode(bytes(35)), "damaged"
    yield "seal check", seal % base64.b64encode(bytes(36)), "damaged"
    yield "seal padding", seal % b"A===", "damaged"
    for kind in ("ec", "x25519"):
        yield f"{kind} private", pem_of(kind)[0], "another kind than Ed25519"
        yield f"{kind} public", pem_of(kind)[1], "another kind than Ed25519"
    yield "private body", private.replace(b"MC4", b"MC5"), "damaged"
    yield "json", b'{"0": "hunter2"}', "does not hold a directory"
    yield "latin", b'{"\xe9": 1}', "does not hold a directory"
    no_point = b"\x02" + bytes(31)
    spki = bytes.fromhex("302a300506032b6570032100") + no_point
    yield (
        "no point",
        b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % base64.b64encode(spki),
        "no point of the curve",
    )


@pytest.mark.parametrize(("content", "words"), [pytest.param(*rest, id=name) for name, *rest in contents()])
def test_what_is_none_of_ours_is_refused_by_every_reader(content, words, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(content)
    texts = []
    for read in READERS.values():
        with pytest.raises(DecodeError) as caught:
            read(file)
        texts.append(str(caught.value))
    done = invoke("show", file)
    assert done.exit_code == 1
    assert done.stderr.startswith("secagg: error: ")
    assert len(done.stderr.splitlines()) == 1
    assert any(words in text for text in (*texts, done.stderr))
    for line in content.splitlines():
        if len(line) > 5 and not line.startswith(b"-----"):
            assert line.decode("latin-1") not in "".join(texts) + done.output


@given(st.binary(max_size=200) | st.text('-BEGIN SAGPUPRIVTKYLD{\n"0aA=+/', max_size=200).map(str.encode))
def test_readers_raise_decode_errors_alone(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("any") / "file"
    file.write_bytes(content)
    for read in READERS.values():
        try:
            found = read(file)
        except (DecodeError, InputError):
            continue
        assert content.strip().startswith(b"{"), found  # {} is a directory of nobody


def test_a_file_without_end_is_refused(monkeypatch, made):
    monkeypatch.setattr(identity_files, "_LARGEST_FILE", 10)
    with pytest.raises(DecodeError, match="larger than any"):
        read_directory(made[identity_files.DIRECTORY])


def test_line_ends_of_windows_are_read(made):
    for kind, read in READERS.items():
        before = read(made[kind])
        made[kind].write_bytes(made[kind].read_bytes().replace(b"\n", b"\r\n"))
        assert read(made[kind]) == before


# show


def test_show_tells_what_is_public_of_each_kind(made):
    key = read_signing_key(made[identity_files.PRIVATE_KEY])
    for kind in (identity_files.PRIVATE_KEY, identity_files.PUBLIC_KEY):
        done = invoke("show", made[kind])
        assert done.exit_code == 0
        assert f"public   {key.public.hex()}" in done.stdout
        assert kind in done.stdout
        assert key.secret_bytes().hex() not in done.output
    assert "all of which is secret" in invoke("show", made[identity_files.SEALING_KEY]).stdout
    directory = read_directory(made[identity_files.DIRECTORY])
    done = invoke("show", made[identity_files.DIRECTORY])
    assert done.stdout.splitlines()[-1] == f"digest   {directory.digest().hex()}"
    assert [line.split()[0] for line in done.stdout.splitlines()[2:4]] == ["0", "1"]


def test_show_finds_the_own_id_in_a_directory_or_says_that_it_is_not_there(made, tmp_path):
    directory = made[identity_files.DIRECTORY]
    for file in ("node-1.key", "node-1.pub"):
        done = invoke("show", directory, "--key", tmp_path / file)
        assert done.exit_code == 0
        assert done.stdout.splitlines()[-1].startswith("own id   1")
    make_keys(tmp_path, [7])
    done = invoke("show", directory, "--key", tmp_path / "node-7.key")
    assert done.exit_code == 1
    assert "is not in" in done.stderr
    done = invoke("show", tmp_path / "node-1.pub", "--key", tmp_path / "node-1.key")
    assert done.exit_code == 2
    assert "is a public key" in done.stderr


# Directories


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '[["0","aa"]]', '{"0":1}', '{"x":"aa"}', '{"0":{}}', '{"00":"aa"}', "[" * 9999]
)
def test_what_is_no_directory_is_a_decode_error(text):
    with pytest.raises(DecodeError):
        Directory.from_json(text)


def test_a_directory_names_no_id_twice():
    with pytest.raises(DecodeError, match="twice"):
        Directory.from_json(f'{{"0":"{"11" * 32}","0":"{"22" * 32}"}}')


def test_a_directory_takes_no_key_that_is_no_point():
    key = secagg.SigningKey(bytes(32)).public
    no_points = [y.to_bytes(32, "little") for y in (2, 7, 8, 12, 13)]
    for public in no_points:
        with pytest.raises(InputError, match="client 1 is not usable: an Ed25519 public key is no point of the curve"):
            Directory({0: key, 1: public})


@pytest.mark.parametrize("ids", ["0", "-1", "18446744073709551615"])
def test_a_digest_is_compared_before_any_key_is_looked_at(ids, monkeypatch):
    looked_at = []
    monkeypatch.setattr("secagg.identity.check_public", looked_at.append)
    with pytest.raises(InputError, match="not the one whose digest is pinned"):
        Directory.from_json(f'{{"{ids}":"{"11" * 32}"}}', pinned=bytes(32))
    assert looked_at == []


def test_a_directory_is_compared_with_the_digest_as_it_was_printed(tmp_path):
    make_keys(tmp_path, range(3))
    out = tmp_path / "cohort.json"
    printed = invoke("directory", *(tmp_path / f"node-{one}.pub" for one in range(3)), "--out", out).stdout
    digest = re.search(r"digest +([0-9a-f]{64})", printed)[1]
    directory = secagg.read_directory(out)
    for pinned in (digest, digest.upper(), bytes.fromhex(digest)):
        assert secagg.read_directory(out, pinned=pinned) == directory
    for other in ("00" * 32, bytes(32)):
        with pytest.raises(InputError, match="not the one whose digest is pinned"):
            secagg.read_directory(out, pinned=other)
    for wrong in ("zz", digest[:-2], b"short", 5):
        with pytest.raises(InputError, match="a directory's digest is 32 bytes"):
            secagg.read_directory(out, pinned=wrong)
