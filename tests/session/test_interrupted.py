"""A call that is cut off anywhere and made again: the exact sum, or an end that is told; never a sum counted twice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cohort import Cohort, deterministic, plan
from interruptions import every_cut
from secagg import IN_MEMORY, ClientSession, InputNeeded, LocalProtocolError, ServerSession, StaleMessage, TooFewClients

ONE = 0
"""The client whose calls are cut."""


@functools.cache
def parameters(threat: str):
    return plan(4, 3, threat=threat)


def codes() -> np.ndarray:
    return np.arange(12).reshape(4, 3)


@dataclass
class Table:
    """A cohort at the opening of a stage, as it was saved, and the requests that are out."""

    cohort: Cohort
    requests: dict[int, bytes]
    reply: Any = None

    def replies(self, *others: int) -> list[tuple[int, bytes]]:
        return [(one, self.cohort.answer(one, self.requests[one])) for one in others]

    def finish(self) -> None:
        """Take the round to its end from whatever was taken in, and compare its sum."""
        server = self.cohort.server
        while server.stage is not None:
            for one, request in server.requests().items():
                if one in server.waiting_for:
                    server.receive(one, self.cohort.answer(one, request))
            server.advance()
        result = server.result
        assert result.survivors == (0, 1, 2, 3)
        assert (result.total == codes().sum(axis=0)).all()


@functools.cache
def saved_at(threat: str, stage: str) -> tuple[bytes, tuple[bytes, ...]]:
    params = parameters(threat)
    cohort = Cohort(params, codes() * params.encoding.step - params.encoding.clip, context=b"round")
    while cohort.server.stage != stage:
        cohort.run_stage()
    return cohort.server.save(seal_key=None), tuple(cohort.clients[one].save(seal_key=None) for one in range(4))


def at(threat: str, stage: str) -> Table:
    params = parameters(threat)
    cohort = Cohort(params, codes() * params.encoding.step - params.encoding.clip, context=b"round")
    server, clients = saved_at(threat, stage)
    cohort.server = ServerSession.restore(server, credentials=cohort.directory, keep=IN_MEMORY)
    for one, saved in enumerate(clients):
        cohort.clients[one] = ClientSession.restore(
            saved, one, credentials=cohort.identities.get(one), randomness=deterministic(f"{one} again"), keep=IN_MEMORY
        )
    return Table(cohort, dict(cohort.server.requests()))


STAGES = {
    "semi-honest": ("advertise_keys", "share_keys", "masked_input", "unmask"),
    "malicious-server": ("advertise_keys", "share_keys", "masked_input", "check_consistency", "unmask"),
}
PLACES = [(threat, stage) for threat, stages in STAGES.items() for stage in stages]


def each_stage(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize(("threat", "stage"), PLACES, ids=["-".join(one) for one in PLACES])(test)


@each_stage
def test_a_client_whose_receive_is_cut_off_answers_the_same_request(threat, stage):
    def receive(table: Table) -> object:
        return table.cohort.clients[ONE].receive(table.requests[ONE])

    for table in every_cut(lambda: at(threat, stage), receive):
        table.finish()


@pytest.mark.parametrize("threat", STAGES)
def test_a_client_whose_submit_is_cut_off_has_submitted_or_not(threat):
    def ready() -> Table:
        table = at(threat, "masked_input")
        assert isinstance(table.cohort.clients[ONE].receive(table.requests[ONE]), InputNeeded)
        return table

    def submit(table: Table) -> object:
        return table.cohort.clients[ONE].submit(table.cohort.vectors[ONE])

    submitted = 0
    for table in every_cut(ready, submit):
        try:
            submit(table)
        except LocalProtocolError as refused:
            assert "submitted once" in str(refused)  # noqa: PT017 - the vector is in, and the request brings it again
            submitted += 1
        table.finish()
    assert submitted


@each_stage
def test_a_server_whose_receive_is_cut_off_counts_the_reply_once_or_ends(threat, stage):
    def replied() -> Table:
        table = at(threat, stage)
        table.reply = table.replies(ONE)[0]
        return table

    def receive(table: Table) -> None:
        table.cohort.server.receive(*table.reply)

    ended = 0
    for table in every_cut(replied, receive):
        try:
            receive(table)
        except StaleMessage:
            pass
        except LocalProtocolError as refused:
            assert "aborted" in str(refused)  # noqa: PT017
            ended += 1
            continue
        table.finish()
    assert bool(ended) == (stage == "masked_input")


@pytest.mark.parametrize("buffer", [bytes, memoryview])  # what is no bytes is added at once, one by one
@each_stage
def test_a_server_whose_receive_all_is_cut_off_counts_each_reply_once_or_ends(threat, stage, buffer):
    def replied() -> Table:
        table = at(threat, stage)
        table.reply = [(one, buffer(reply)) for one, reply in table.replies(0, 1)]
        return table

    def receive_all(table: Table) -> object:
        return table.cohort.server.receive_all(table.reply)

    for table in every_cut(replied, receive_all, step=1 if stage == "masked_input" else 5):
        try:
            refused = receive_all(table)
        except LocalProtocolError as ended:
            assert "aborted" in str(ended)  # noqa: PT017
            continue
        assert all(isinstance(one, StaleMessage) for one in refused)
        table.finish()


@each_stage
def test_a_server_whose_advance_is_cut_off_has_closed_the_stage_or_not(threat, stage):
    def all_in() -> Table:
        table = at(threat, stage)
        table.cohort.server.receive_all(table.replies(0, 1, 2, 3))
        return table

    def advance(table: Table) -> object:
        return table.cohort.server.advance()

    for table in every_cut(all_in, advance):
        if table.cohort.server.stage == stage:
            advance(table)
        elif table.cohort.server.stage is not None:
            with pytest.raises(TooFewClients):
                advance(table)
        table.finish()


@pytest.mark.parametrize("threat", STAGES)
def test_a_save_that_is_cut_off_leaves_the_session_open(threat):
    def save(table: Table) -> None:
        table.cohort.server.save(seal_key=None)
        table.cohort.clients[ONE].save(seal_key=None)

    for table in every_cut(lambda: at(threat, "masked_input"), save, step=17):
        save(table)
        table.finish()


@pytest.mark.slow
@each_stage
def test_cut_off_between_any_two_instructions(threat, stage):
    def replied() -> Table:
        table = at(threat, stage)
        table.reply = table.replies(0, 1, 2)
        return table

    def receive_all(table: Table) -> object:
        return table.cohort.server.receive_all(table.reply)

    for table in every_cut(replied, receive_all, opcodes=True, step=7):
        try:
            receive_all(table)
        except LocalProtocolError:
            continue
        table.finish()
    for table in every_cut(lambda: at(threat, stage), lambda table: table.replies(ONE), opcodes=True, step=7):
        table.finish()


def test_cut_off_while_the_graph_is_drawn_from_a_beacon():
    params = plan(40, 1, threat="malicious-server", protocol="secagg+", dropout=0.1)
    vectors = np.arange(40)[:, None] * params.encoding.step - params.encoding.clip
    cohort = Cohort(params, vectors, context=b"round")
    cohort.run_stage()
    server, request = cohort.server.save(seal_key=None), cohort.server.requests()[ONE]
    cohort.clients[ONE].receive(request)
    client = cohort.clients[ONE].save(seal_key=None)

    def restored() -> tuple[ServerSession, ClientSession]:
        return (
            ServerSession.restore(server, credentials=cohort.directory, keep=IN_MEMORY),
            ClientSession.restore(client, ONE, credentials=cohort.identities[ONE], keep=IN_MEMORY),
        )

    def draw(pair: tuple[ServerSession, ClientSession]) -> None:
        pair[0].use_beacon(cohort.beacon)
        pair[1].use_beacon(cohort.beacon)

    for cut_server, cut_client in every_cut(restored, draw, step=4):
        if cut_server.beacon_needed:
            cut_server.use_beacon(cohort.beacon)
        try:
            reply = cut_client.use_beacon(cohort.beacon)
        except LocalProtocolError:
            reply = cut_client.receive(request)
        cut_server.receive(ONE, reply.payload)
