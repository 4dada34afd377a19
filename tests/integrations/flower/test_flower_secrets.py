"""What never leaves a client: its metrics, its weight, the text of an exception."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.clientapp import ClientApp

from cohorts import NODES, faults_of, start
from memory_grid import MemoryGrid, client_app, train
from secagg.identity_files import new_seal_key, read_seal_key
from secagg.integrations.flower import NodeSecrets, SecAggGrid, secagg_mod
from secagg.integrations.flower.state import ContextStore, Kept

RECORD = "patient Jane Roe, 4711"


@pytest.mark.parametrize("error", [ValueError(RECORD), KeyError(RECORD), SystemError(RECORD)])
def test_an_exception_of_the_app_is_told_by_its_type_alone(error):
    def app(node):
        made = ClientApp(mods=[secagg_mod()])

        @made.train()
        def _train(message, context):
            if context.node_id == 13:
                raise error
            return train(message, context.node_id)

        return made

    faults = faults_of(app=app)
    assert RECORD not in repr(faults)
    assert type(error).__name__ in faults[13]


def test_an_exception_of_our_own_is_told_by_its_type_alone(monkeypatch):
    def broken(self):
        raise RuntimeError(RECORD)

    monkeypatch.setattr(ContextStore, "take", broken)
    faults = faults_of()
    assert RECORD not in repr(faults)
    assert ["RuntimeError" in faults[node] for node in NODES] == [True] * 5


BAD_REPLIES = {
    "no metrics": (lambda content: content.pop("metrics"), "MetricRecord"),
    "two models": (lambda content: content.update({"more": ArrayRecord([np.zeros(1)])}), "ArrayRecord"),
    "no model": (lambda content: content.pop("arrays"), "ArrayRecord"),
    "no weight": (lambda content: content["metrics"].pop("num-examples"), "whole number"),
    "half a weight": (lambda content: content["metrics"].update({"num-examples": 1234.5}), "whole number"),
    "weights": (lambda content: content["metrics"].update({"num-examples": [1234, 1]}), "whole number"),
    "no examples": (lambda content: content["metrics"].update({"num-examples": 0}), "max_weight"),
    "below": (lambda content: content["metrics"].update({"num-examples": -1234}), "max_weight"),
    "too many": (lambda content: content["metrics"].update({"num-examples": 1234567}), "max_weight"),
    "not finite": (lambda content: content["arrays"].update({"bias": Array(np.array([np.nan, 1234.5]))}), "finite"),
    "infinite": (lambda content: content["arrays"].update({"bias": Array(np.array([np.inf, 1234.5]))}), "finite"),
    "integers": (lambda content: content["arrays"].update({"bias": Array(np.array([1234, 1]))}), "float"),
    "a shape": (lambda content: content["arrays"].update({"bias": Array(np.zeros(3))}), "shapes"),
    "a name": (lambda content: content["arrays"].update({"b": Array(np.zeros(2))}), "names"),
    "a tensor": (
        lambda content: content["arrays"].update({"bias": Array(dtype="f", shape=(2,), stype="torch", data=b"1234")}),
        "NumPy",
    ),
    "no loss": (lambda content: content["metrics"].pop("loss"), "'loss'"),
    "loss": (lambda content: content["metrics"].update({"loss": float("inf")}), "'loss'"),
    "losses": (lambda content: content["metrics"].update({"loss": [1234.5]}), "'loss'"),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_a_train_reply_that_does_not_fit_is_refused_without_its_values(name):
    spoil, named = BAD_REPLIES[name]

    def app(node):
        made = ClientApp(mods=[secagg_mod(metrics={"loss": 9.0})])

        @made.train()
        def _train(message, context):
            reply = train(message, context.node_id)
            if context.node_id == 13:
                spoil(reply.content)
            return reply

        return made

    faults = faults_of(app=app, metrics={"loss": 9.0})
    assert set(faults) == {13}
    assert named in faults[13]
    assert "1234" not in faults[13]


def test_what_a_client_sends_holds_neither_its_metrics_nor_its_weight(tmp_path):
    sent = {}

    def script(delivery):
        reply = delivery.answer()
        sent[delivery.node, delivery.kind] = reply
        return [reply]

    inner = MemoryGrid(client_app(secagg_mod()), NODES, script=script)
    start(SecAggGrid(inner))
    for reply in sent.values():
        assert set(reply.content) == {"secagg", "secagg.payload"}
        assert dict(reply.content["secagg"]) == {"version": 1, "step": "answer"}


def test_secrets_have_no_repr(tmp_path):
    new_seal_key(tmp_path / "seal")
    key = read_seal_key(tmp_path / "seal")
    shown = repr(NodeSecrets(seal_key=key)) + repr(
        Kept(invitation=bytes(32), content=bytes(32), params=b"params", session=key)
    )
    assert key.hex() not in shown
    assert repr(key) not in shown
