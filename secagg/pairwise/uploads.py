"""Masked inputs at the server: each is checked, then added to the one running accumulator and dropped.

So memory does not grow with the cohort. Inputs that arrived together are added by several threads, each of which owns a
range of the accumulator. Source: CCS 2017 figure 4, round 2; SPEC "Server".
"""

from __future__ import annotations

import hmac
import itertools
import os
from collections.abc import Collection
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from secagg.encoding.ring import unpack_add
from secagg.errors import PeerFault
from secagg.pairwise.identifiers import accepted_digest, beacon_digest
from secagg.pairwise.messages import FORMATS, Bytes, MaskedInput
from secagg.pairwise.server_states import CollectingInputs, Round
from secagg.pairwise.server_steps import relay_for

# Bytes of inputs below which starting a thread costs more than it saves
_THREADING_BYTES = 1 << 21
# Every range starts a byte of the packed bodies, whatever the ring's width, and a cache line of the accumulator
_RANGE_WORDS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Upload:
    """A masked input that was checked and is not added yet.

    Attributes:
        position: its sender's place in the roster.
        packed: the vector, a view of what the transport delivered.
        signed: the vector's hash and its signature; empty when semi-honest.
    """

    position: int
    packed: Bytes
    signed: bytes


def check_input(
    current: Round, state: CollectingInputs, position: int, body: memoryview, signed: bytes = b""
) -> Upload:
    """Check a masked input; ``signed`` is its vector's hash and its signature, where there is one.

    Raises:
        DecodeError: the body is not d + 1 values of b bits, or its padding is not zero.
        PeerFault: it was masked for other relayed shares than this client was sent, so its masks would stay in the sum;
            or under another beacon than this server's.
    """
    params = current.params
    message = MaskedInput.decode(
        body,
        count=params.dimension + 1,
        ring_bits=params.ring_bits,
        accepted_bytes=FORMATS[params.threat].accepted_bytes,
    )
    if signed:
        relayed = relay_for(state, position).encode()
        if not hmac.compare_digest(
            message.accepted, accepted_digest(state.session_id, beacon_digest(state.beacon), relayed)
        ):
            drawn = "" if state.beacon is None else ", or it used another beacon than this server"
            raise PeerFault(
                int(current.ids[position]), f"its input is masked for other shares than it was relayed{drawn}"
            )
    return Upload(position=position, packed=message.packed, signed=signed)


def add_inputs(
    current: Round,
    state: CollectingInputs,
    uploads: Collection[Upload],
    *,
    pool: Executor | None = None,
    ranges: int = 1,
) -> None:
    """Add inputs that were checked, of distinct clients, to the accumulator, and count them as received.

    With a ``pool``, it and this thread take ``ranges`` ranges of the accumulator where that is worth its while. Where
    this is interrupted, the accumulator holds nothing of use.
    """
    count, bits = len(state.accumulator), current.params.ring_bits

    def add_range(first: int, last: int) -> None:
        part = state.accumulator[first:last]
        for upload in uploads:
            unpack_add(upload.packed[first * bits // 8 : (last * bits + 7) // 8], part, bits)

    if pool is None or sum(upload.packed.size for upload in uploads) < _THREADING_BYTES:
        add_range(0, count)
    else:
        ranges = min(ranges, os.cpu_count() or 1)
        bounds = [count * part // ranges // _RANGE_WORDS * _RANGE_WORDS for part in range(ranges)] + [count]
        others = [pool.submit(add_range, *span) for span in itertools.pairwise(bounds[1:])]
        add_range(0, bounds[1])
        for done in others:
            done.result()
    for upload in uploads:
        if upload.signed:
            state.signed.uploads[upload.position] = np.frombuffer(upload.signed, dtype=np.uint8)
        state.received[upload.position] = True
