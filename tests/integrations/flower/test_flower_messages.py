"""What a server's own caller may not ask for, terms that are refused, and how messages are read."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cohorts import NODES
from memory_grid import MemoryGrid, client_app, initial_arrays, over_the_wire, train
from secagg.errors import InputError, ParameterError
from secagg.integrations.flower import SecAggGrid, secagg_mod
from secagg.integrations.flower.envelope import Envelope, content_digest


def test_train_messages_that_differ_are_refused():
    inner = MemoryGrid(client_app(secagg_mod()), NODES)
    asked = [
        Message(RecordDict({"arrays": initial_arrays(), "config": ConfigRecord({"node": node})}), node, "train")
        for node in NODES
    ]
    with pytest.raises(InputError, match="same train message"):
        SecAggGrid(inner).send_and_receive(asked)
    assert inner.exchanges == []


def test_mixed_repeated_and_pushed_train_messages_are_refused():
    grid = SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES))
    content = RecordDict({"arrays": initial_arrays()})
    training = [Message(content, node, "train") for node in NODES]
    with pytest.raises(InputError, match="together"):
        grid.send_and_receive([*training, Message(content, 11, "query")])
    with pytest.raises(InputError, match="twice"):
        grid.send_and_receive([*training, Message(content, 11, "train")])
    with pytest.raises(InputError, match="send_and_receive"):
        grid.push_messages(training)
    with pytest.raises(InputError, match="own"):
        grid.send_and_receive([Message(RecordDict({**content, "secagg": ConfigRecord()}), 11, "train")])
    with pytest.raises(InputError, match="one ArrayRecord"):
        grid.send_and_receive([Message(RecordDict(), 11, "train")])
    with pytest.raises(InputError, match="float"):
        grid.send_and_receive([Message(RecordDict({"arrays": ArrayRecord([np.arange(3)])}), 11, "train")])


def test_actions_of_a_train_function_are_kept():
    def app(node):
        made = ClientApp(mods=[secagg_mod()])

        @made.train("fine_tune")
        def _train(message, context):
            return train(message, context.node_id)

        return made

    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    grid = SecAggGrid(MemoryGrid(app, NODES))
    replies = list(grid.send_and_receive([Message(content, node, "train.fine_tune") for node in NODES]))
    assert not any(reply.has_error() for reply in replies)
    assert {reply.metadata.message_type for reply in replies} == {"train.fine_tune"}
    assert set(content) == {"arrays", "config"}


@pytest.mark.parametrize(
    "terms",
    [
        {"clip": 0},
        {"bits": 0},
        {"min_clients": 1},
        {"metrics": {"loss": 0.0}},
        {"metrics": {"num-examples": 1.0}},
        {"metrics": ["loss"]},
        {"metrics": {"loss": "large"}},
        {"max_weight": 0},
        {"dropout": 1.0},
        {"corrupt": -0.1},
        {"protocol": "none"},
        {"weighted_by": 1},
        {"pipelined": 1},
        {"threat": "none"},
        {"threat": "malicious-server", "pipelined": True},
    ],
)
def test_terms_are_checked_when_they_are_given(terms):
    with pytest.raises(ParameterError):
        secagg_mod(**terms)
    with pytest.raises(ParameterError):
        SecAggGrid(MemoryGrid(client_app(), NODES), **terms)


def test_an_empty_model_and_an_empty_array_are_summed():
    content = RecordDict({"arrays": ArrayRecord({"none": Array(np.zeros((0, 3)))}), "config": ConfigRecord()})
    grid = SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES))
    replies = list(grid.send_and_receive([Message(content, node, "train") for node in NODES]))
    assert all(reply.content["arrays"]["none"].numpy().shape == (0, 3) for reply in replies)


def test_an_envelope_is_read_as_it_was_written():
    for envelope in (
        Envelope(step="join", payload=b"p", params=b"q", content=bytes(32)),
        Envelope(step="answer", payload=b"p"),
        Envelope(step="fixed"),
    ):
        beside = RecordDict({"metrics": MetricRecord({"a": 1})})
        assert Envelope.take_from(envelope.put_into(beside)) == envelope
        assert set(beside) == {"metrics"}


def digest_of(records, *, run_id=1, message_type="train"):
    return content_digest(run_id, message_type, RecordDict(records))


def test_a_digest_tells_every_difference_of_a_message_and_no_order():
    array = np.arange(6, dtype=np.float32)
    base = {
        "arrays": ArrayRecord({"a": Array(array), "b": Array(array)}),
        "config": ConfigRecord({"x": 1, "y": [1, 2]}),
    }
    others = [
        base | {"arrays": ArrayRecord({"a": Array(array), "c": Array(array)})},
        base | {"arrays": ArrayRecord({"a": Array(array), "b": Array(array.reshape(2, 3))})},
        base | {"arrays": ArrayRecord({"a": Array(array), "b": Array(array.astype(np.float64))})},
        base | {"arrays": ArrayRecord({"a": Array(array), "b": Array(array + 1)})},
        base | {"config": ConfigRecord({"x": 1.0, "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": True, "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": "1", "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": b"1", "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": 1, "y": [2, 1]})},
        base | {"config": ConfigRecord({"x": 1, "z": [1, 2]})},
        {"arrays": base["arrays"], "configs": base["config"]},
        base | {"more": ConfigRecord()},
    ]
    digests = [digest_of(one) for one in (base, *others)]
    digests += [digest_of(base, run_id=2), digest_of(base, message_type="train.fine")]
    assert len(set(digests)) == len(digests)
    turned = {
        "config": ConfigRecord({"y": [1, 2], "x": 1}),
        "arrays": ArrayRecord({"b": Array(array), "a": Array(array)}),
    }
    assert digest_of(turned) == digests[0]


def test_a_digest_is_the_same_on_both_ends_of_the_wire():
    content = RecordDict({"config": ConfigRecord({"lr": np.float64(0.1), "n": [], "s": ["é"], "b": b"\x00"})})
    sent = over_the_wire(Message(content, 11, "train")).content
    assert content_digest(1, "train", sent) == content_digest(1, "train", content)
