"""Text → unit vectors with an LSTM tower of 128 dimensions: `Encoder.documents`, Sentence Transformers and torch.

Sentence Transformers' own modules (`WordEmbeddings`, `LSTM`, `Pooling`) with the same weights read the same words
and take the mean of the states. A second row compares with torch's LSTM on padded batches of texts sorted by length,
whose last states are taken; it has this package's tokenizer. The third is ``tower.encode_dtype=bfloat16`` against
Sentence Transformers.
"""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import torch

from benchmarks.inputs import tokenizer
from benchmarks.measure import Call, Row, alternate, compare, require_equal
from benchmarks.recurrent import DIM, TOLERANCE, Encode, encoder, padded, words_only
from two_tower.encode import Encoder
from two_tower.tower.recurrent import RecurrentTower

NEEDS = ("sentence_transformers",)
# Texts that a peer takes at once: which is better depends on the machine.
BATCHES = (32, 128, 512)


def peer_lstm(ours: Encoder, batch_size: int, device: str = "cpu") -> Encode:
    """Sentence Transformers' modules with an encoder's weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import LSTM, Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    tower = ours.model.document_tower
    assert isinstance(tower, RecurrentTower)
    splitter = WhitespaceTokenizer(ours.tokenizer.vocabulary, stop_words=(), do_lower_case=True)
    network = LSTM(DIM, DIM, bidirectional=False)
    network.encoder.load_state_dict(tower.forwards[0].state_dict())
    words = WordEmbeddings(splitter, tower.words.vectors.detach().numpy())
    model = SentenceTransformer(modules=[words, network, Pooling(DIM, "mean")], device=device)
    return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True)


def run(quick: bool = False) -> list[Row]:
    """The rows ``encode_lstm``, ``encode_lstm_torch`` and ``encode_lstm_bfloat16``."""
    texts, words = words_only(quick), tokenizer(quick)
    column, mean, last = pa.array(texts), encoder("lstm", "mean", words), encoder("lstm", "last", words)
    low = encoder("lstm", "mean", words, "bfloat16")
    exact = mean.documents(column), last.documents(column)
    require_equal("vectors in bfloat16", exact[0], low.documents(column), TOLERANCE[torch.bfloat16])
    library = {f"Sentence Transformers LSTM, batch {size}": peer_lstm(mean, size) for size in BATCHES}
    plain = {f"padded nn.LSTM, batch {size}": padded(last, size) for size in BATCHES}
    for vectors, peers in zip(exact, (library, plain), strict=True):
        for name, peer in peers.items():
            require_equal(f"vectors of {name}", vectors, peer(texts), TOLERANCE[torch.float32])
    contestants: dict[str, Call] = {name: partial(peer, texts) for name, peer in {**library, **plain}.items()}
    ours = {"ours": mean, "ours, last": last, "ours, bfloat16": low}
    contestants |= {name: partial(e.documents, column) for name, e in ours.items()}
    rates = alternate(contestants, len(texts), rounds=3, quick=quick)
    return [
        compare("encode_lstm", "passages/s", rates, "ours", library),
        compare("encode_lstm_torch", "passages/s", rates, "ours, last", plain),
        compare("encode_lstm_bfloat16", "passages/s", rates, "ours, bfloat16", library),
    ]
