"""A homomorphic sum whose calls are cut off anywhere, or find the key busy, and are made again: the exact sum."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import secagg
from federation import Federation, key_pair, plan
from interruptions import every_cut
from secagg import IN_MEMORY, ClientSession, LocalProtocolError, StaleMessage

PARAMS = {holder: plan(3, 3, key_holder=holder) for holder in ("decryptor", "clients")}
ROWS = np.eye(3)
holders = pytest.mark.parametrize("holder", PARAMS)


def exact_total(params: secagg.HEParams) -> list[int]:
    """Of each coordinate one client sends +clip, the largest code, and two send -clip, which is code 0."""
    return [params.encoding.largest_code] * 3


class Opened:
    """A federation with two uploads in and the third at hand, as it was saved."""

    def __init__(self, holder: str) -> None:
        params = PARAMS[holder]
        self.federation = Federation(params)
        self.uploads = [self.federation.upload(one, 2 * ROWS[one] - 1) for one in range(3)]
        for one in range(2):
            self.federation.send(one, self.uploads[one])
        self.saved = self.federation.server.save(seal_key=None)
        self.saved_decryptor = (
            None if self.federation.decryptor is None else self.federation.decryptor.save(seal_key=None)
        )
        self.saved_client = self.federation.clients[0].save(seal_key=None)
        self.fresh_client = self.federation.client(2).save(seal_key=None)
        self.saved_key = self.federation.key.save(seal_key=None)

    def again(self) -> Federation:
        federation = self.federation
        federation.server = federation.restored_server(self.saved)
        federation.key = secagg.DecryptionKey.restore(self.saved_key, keep=IN_MEMORY)
        if self.saved_decryptor is not None:
            federation.decryptor = federation.restored_decryptor(self.saved_decryptor)
        else:
            federation.clients[0] = federation.restored_client(0, self.saved_client)
        return federation

    def closed(self) -> Federation:
        federation = self.again()
        federation.send(2, self.uploads[2])
        federation.server.advance()
        return federation


@pytest.fixture(scope="module")
def opened() -> dict[str, Opened]:
    return {holder: Opened(holder) for holder in PARAMS}


def check(federation: Federation) -> None:
    if federation.decryptor is None:
        federation.clients[0].receive(federation.server.requests()[0])
        total = federation.clients[0].result.total
    else:
        federation.server.receive_from(
            "decryptor", federation.decryptor.release(federation.server.party_requests()["decryptor"])
        )
        total = federation.server.result.total
    assert total.tolist() == exact_total(federation.params)


@holders
def test_an_upload_whose_adding_is_cut_off_counts_once(opened, holder):
    upload = opened[holder].uploads[2]

    def receive(federation: Federation) -> None:
        federation.server.receive(2, upload)

    for federation in every_cut(opened[holder].again, receive):
        try:
            receive(federation)
        except StaleMessage:
            assert federation.server.survivors == (0, 1, 2)
        if federation.decryptor is not None:
            federation.decryptor.receive(2, upload)
        federation.server.advance()
        check(federation)


def test_an_upload_whose_adding_at_the_decryptor_is_cut_off_counts_once(opened):
    upload = opened["decryptor"].uploads[2]

    def receive(federation: Federation) -> None:
        federation.decryptor.receive(2, upload)

    for federation in every_cut(opened["decryptor"].again, receive):
        federation.server.receive(2, upload)
        try:
            receive(federation)
        except StaleMessage:
            assert federation.decryptor.survivors == (0, 1, 2)
        federation.server.advance()
        check(federation)


def test_a_release_that_is_cut_off_is_given_when_it_is_asked_for_again(opened):
    def release(federation: Federation) -> None:
        federation.decryptor.release(federation.server.party_requests()["decryptor"])

    for federation in every_cut(opened["decryptor"].closed, release):
        check(federation)
        assert federation.key.released == 1
        assert not federation.key.retired


def test_a_decryption_that_is_cut_off_at_a_client_is_made_again(opened):
    def decrypt(federation: Federation) -> None:
        federation.clients[0].receive(federation.server.requests()[0])

    for federation in every_cut(opened["clients"].closed, decrypt):
        check(federation)
        assert federation.key.released == 1


def test_a_release_that_is_cut_off_on_its_way_in_is_taken_again(opened):
    answers = {}

    def closed() -> Federation:
        federation = opened["decryptor"].closed()
        answers[id(federation)] = federation.decryptor.release(federation.server.party_requests()["decryptor"])
        return federation

    def accept(federation: Federation) -> None:
        federation.server.receive_from("decryptor", answers[id(federation)])

    for federation in every_cut(closed, accept):
        try:
            accept(federation)
        except LocalProtocolError as refused:
            assert "taken in once" in str(refused)  # noqa: PT017
        assert federation.server.result.total.tolist() == exact_total(federation.params)


@holders
def test_a_submit_that_is_cut_off_was_made_or_was_not(opened, holder):
    federation = opened[holder].again()

    def ready() -> ClientSession:
        client = federation.client(2)
        client.receive(federation.server.requests()[2])
        return client

    def submit(client: ClientSession) -> object:
        return client.submit(np.zeros(3))

    for client in every_cut(ready, submit, step=3):
        try:
            upload = submit(client).payload
        except LocalProtocolError:
            upload = client.receive(federation.server.requests()[2]).payload
        federation = opened[holder].again()
        federation.server.receive(2, upload)


def test_a_busy_key_ends_no_sum():
    params = PARAMS["decryptor"]
    key = secagg.DecryptionKey.restore(key_pair(params), keep=IN_MEMORY)
    federations = [Federation(params, key=key) for _ in range(6)]
    for federation in federations:
        federation.collect(2 * ROWS - 1)
        federation.server.advance()
    start, busy = threading.Barrier(len(federations)), []

    def release(federation: Federation) -> None:
        start.wait()
        while True:
            try:
                federation.decryptor.release(federation.server.party_requests()["decryptor"])
                return
            except LocalProtocolError as refused:
                busy.append(str(refused))

    threads = [threading.Thread(target=release, args=(federation,)) for federation in federations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another thread" in one for one in busy)
    for federation in federations:
        check(federation)
    assert key.released == len(federations)


def test_a_key_in_use_says_so_and_takes_nothing():
    federation = Federation(PARAMS["decryptor"])
    federation.collect(2 * ROWS - 1)
    federation.server.advance()
    inside = object()
    federation.key._entry.enter(inside)
    with pytest.raises(LocalProtocolError, match="another thread"):
        federation.decryptor.release(federation.server.party_requests()["decryptor"])
    federation.key._entry.leave(inside)
    assert federation.key.released == 0
    check(federation)


def test_a_key_is_not_called_back_from_retirement():
    key = Federation(PARAMS["decryptor"]).key
    with pytest.raises(AttributeError):
        key.retired = False


def test_a_keys_budget_is_not_set_back():
    key = Federation(PARAMS["decryptor"]).key
    for name in ("params", "public"):
        with pytest.raises(AttributeError):
            setattr(key, name, getattr(key, name))
