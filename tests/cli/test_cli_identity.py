"""``secagg identity``: keys, a directory, and what is never overwritten or shown."""

from __future__ import annotations

import os
import stat

import pytest
from typer.testing import CliRunner

from secagg import cli
from secagg.errors import DecodeError, InputError
from secagg.identity import Directory
from secagg.identity_files import read_directory, read_seal_key, read_signing_key


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["identity", *map(str, arguments)])


def make_keys(folder, count):
    shown = [invoke("new", folder / f"node-{one}.key") for one in range(count)]
    assert all(done.exit_code == 0 for done in shown), shown[0].output
    return [done.stdout.strip() for done in shown]


def test_keys_and_their_directory_are_made_and_read_back(tmp_path):
    public = make_keys(tmp_path, 3)
    done = invoke("directory", *(tmp_path / f"node-{one}.pub" for one in range(3)), "--out", tmp_path / "cohort.json")
    directory = read_directory(tmp_path / "cohort.json")
    assert done.stdout.strip() == directory.digest().hex()
    assert [key.hex() for key in directory.values()] == public
    assert list(directory) == [0, 1, 2]
    assert read_signing_key(tmp_path / "node-2.key").public.hex() == public[2]
    assert Directory.from_json(directory.to_json()).digest() == directory.digest()


def test_a_sealing_key_is_32_bytes(tmp_path):
    assert invoke("sealing-key", tmp_path / "seal").exit_code == 0
    assert len(read_seal_key(tmp_path / "seal")) == 32


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permission bits")
def test_secret_files_are_their_owners_alone(tmp_path):
    make_keys(tmp_path, 1)
    invoke("sealing-key", tmp_path / "seal")
    for name in ("node-0.key", "seal"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_nothing_is_overwritten_and_no_secret_is_printed(tmp_path):
    make_keys(tmp_path, 1)
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


def test_a_key_in_two_places_of_a_directory_is_refused(tmp_path):
    make_keys(tmp_path, 1)
    public = tmp_path / "node-0.pub"
    assert invoke("directory", public, public, "--out", tmp_path / "cohort.json").exit_code == 2
    assert not (tmp_path / "cohort.json").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '[["0","aa"]]', '{"0":1}', '{"x":"aa"}', '{"0":{}}', '{"00":"aa"}', "[" * 9999]
)
def test_what_is_no_directory_is_a_decode_error(text):
    with pytest.raises(DecodeError):
        Directory.from_json(text)


def test_a_directory_names_no_id_twice():
    with pytest.raises(DecodeError, match="twice"):
        Directory.from_json(f'{{"0":"{"11" * 32}","0":"{"22" * 32}"}}')


def test_files_of_another_kind_are_refused_without_quoting_them(tmp_path):
    file = tmp_path / "file"
    file.write_text("hunter2")
    for read in (read_signing_key, read_directory, read_seal_key):
        with pytest.raises((DecodeError, InputError)) as caught:
            read(file)
        assert "hunter2" not in str(caught.value)
