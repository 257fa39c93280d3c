"""Text → unit vectors with a GRU tower of 128 dimensions, its last state: `Encoder.documents` and torch's own GRU.

The peer gets the same weights, this package's tokenizer, and texts sorted by length in padded batches. The tower
with ``tower.encode_dtype=bfloat16`` is compared with the peer in float32, and with the peer all in bfloat16, which
rounds the states too: its vectors differ by 0.003, ours by 0.0003.
"""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import torch

from benchmarks.inputs import tokenizer
from benchmarks.measure import Call, Row, alternate, compare, require_equal
from benchmarks.recurrent import TOLERANCE, encoder, padded, words_only

# Texts that the peer takes at once: which is better depends on the machine.
BATCHES = (64, 256)


def run(quick: bool = False) -> list[Row]:
    """The rows ``encode_gru``, ``encode_gru_bfloat16`` and ``encode_gru_bfloat16_torch``."""
    texts = words_only(quick)
    column = pa.array(texts)
    ours = {name: encoder("gru", "last", tokenizer(quick), name) for name in ("float32", "bfloat16")}
    exact = ours["float32"].documents(column)
    require_equal("vectors in bfloat16", exact, ours["bfloat16"].documents(column), TOLERANCE[torch.bfloat16])
    contestants: dict[str, Call] = {f"ours, {name}": partial(e.documents, column) for name, e in ours.items()}
    peers: dict[torch.dtype, list[str]] = {}
    for dtype, tolerance in TOLERANCE.items():
        for size in BATCHES:
            name = f"padded nn.GRU, {str(dtype).removeprefix('torch.')}, batch {size}"
            peers.setdefault(dtype, []).append(name)
            peer = padded(ours["float32"], size, dtype)
            require_equal(f"vectors of {name}", exact, peer(texts), tolerance)
            contestants[name] = partial(peer, texts)
    rates = alternate(contestants, len(texts), rounds=3, quick=quick)
    return [
        compare("encode_gru", "passages/s", rates, "ours, float32", peers[torch.float32]),
        compare("encode_gru_bfloat16", "passages/s", rates, "ours, bfloat16", peers[torch.float32]),
        compare("encode_gru_bfloat16_torch", "passages/s", rates, "ours, bfloat16", peers[torch.bfloat16]),
    ]
