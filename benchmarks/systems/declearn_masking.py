"""declearn's masking-based aggregation: its X3DH key agreement, encrypter, aggregation and decrypter, unmodified.

Left out, to its advantage: its network and the encoding of its messages (their bytes are counted, their time is not).
The width is 32 bits rather than its default of 64, since narrower masks cost it less and hold the sum as well.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from declearn.aggregator import AveragingAggregator
from declearn.messaging import TrainReply
from declearn.model.sklearn import NumpyVector
from declearn.secagg.masking import MaskingDecrypter, MaskingEncrypter, MaskingSecaggConfigClient
from declearn.secagg.messaging import SecaggTrainReply, aggregate_secagg_messages
from declearn.secagg.utils import IdentityKeys
from declearn.secagg.x3dh import X3DHManager
from declearn.secagg.x3dh.messages import X3DHRequests, X3DHResponses

from benchmarks.systems.catalogue import Setting
from benchmarks.systems.measurement import Meter, Outcome, main

WIDTH = 32


def run(setting: Setting, vectors: list[np.ndarray], meter: Meter) -> Outcome:
    """Agree on pairwise keys, mask, add up, unmask; nobody may drop out."""
    private = [Ed25519PrivateKey.generate() for _ in range(setting.clients)]  # long-lived: made before any round
    public = [key.public_key() for key in private]
    secrets = _agree(setting, private, public, meter)
    aggregator = AveragingAggregator(steps_weighted=False)
    uploads: dict[str, SecaggTrainReply] = {}
    for one in range(setting.clients):
        others = public[:one] + public[one + 1 :]
        config = MaskingSecaggConfigClient(id_keys=IdentityKeys(private[one], trusted=others))
        update = NumpyVector({"weights": vectors[one]})
        with meter.client(one):
            positive, negative = config._setup_rng_seeds_from_symmetric_keys(secrets[one])
            encrypter = MaskingEncrypter(positive, negative, bitsize=WIDTH, clipval=setting.clip)
            reply = TrainReply(1, 1, 0.0, aggregator.prepare_for_sharing(update, n_steps=1), {})
            uploads[str(one)] = SecaggTrainReply.from_cleartext_message(reply, encrypter)
        meter.up[one] += len(uploads[str(one)].serialize())
    with meter.server():
        decrypter = MaskingDecrypter(setting.clients, bitsize=WIDTH, clipval=setting.clip)
        summed = aggregate_secagg_messages(uploads, decrypter).updates
    step = 2 * setting.clip / (2 ** (WIDTH - (setting.clients - 1).bit_length()) - 1)
    return Outcome(
        total=np.asarray(summed.updates.coefs["weights"], dtype=np.float64),
        # A float32 comes back, as one went in
        error_bound=setting.clients * (step + setting.clip * float(np.finfo(np.float32).eps)),
        version=version("declearn"),
        parameters={"neighbours": setting.clients - 1, "bitsize": WIDTH, "clipval": setting.clip},
    )


def _agree(
    setting: Setting, private: list[Ed25519PrivateKey], public: list[object], meter: Meter
) -> list[dict[bytes, bytes]]:
    """Run X3DH between all pairs, half of them begun by either side, as declearn's server draws them."""
    cohort = range(setting.clients)
    managers = []
    for one in cohort:
        with meter.client(one):
            managers.append(X3DHManager(private[one], trusted=public[:one] + public[one + 1 :]))
    begins = np.random.default_rng(0).uniform(size=(setting.clients, setting.clients)) < 0.5
    asked = {one: [j for j in cohort if j != one and begins[min(one, j), max(one, j)] == (one < j)] for one in cohort}
    requests: dict[tuple[int, int], int] = {}
    responses: dict[tuple[int, int], int] = {}
    for one in cohort:
        with meter.client(one):
            requests |= {(one, other): managers[one].create_handshake_request() for other in asked[one]}
        meter.up[one] += len(X3DHRequests([requests[one, other] for other in asked[one]]).serialize())
    for one in cohort:
        received = [other for other in cohort if (other, one) in requests]
        meter.down[one] += len(X3DHRequests([requests[other, one] for other in received]).serialize())
        with meter.client(one):
            responses |= {
                (one, other): managers[one].process_handshake_request(requests[other, one]) for other in received
            }
        meter.up[one] += len(X3DHResponses([responses[one, other] for other in received]).serialize())
    for one in cohort:
        meter.down[one] += len(X3DHResponses([responses[other, one] for other in asked[one]]).serialize())
        with meter.client(one):
            for other in asked[one]:
                managers[one].process_handshake_response(responses[other, one])
    return [manager.secrets for manager in managers]


if __name__ == "__main__":
    main({"declearn": run})
