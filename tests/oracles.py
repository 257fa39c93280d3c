"""Plain definitions, one loop at a time, that tests compare the package with. Slow, obvious, and independent.

Nothing here imports the package.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

# --- rankings ---------------------------------------------------------------------------------------------


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Documents in trec_eval's order: score descending, then the bytes of the id descending."""
    return sorted(scores, key=lambda d: (scores[d], d.encode()), reverse=True)


# --- metrics: of one query, from its ranked documents and its judgements {document: grade} ----------------


def reciprocal_rank(
    documents: Sequence[str], grades: Mapping[str, int], k: int | None = None, threshold: int = 1
) -> float:
    for rank, document in enumerate(documents[:k], start=1):
        if grades.get(document, 0) >= threshold:
            return 1 / rank
    return 0.0


def recall(documents: Sequence[str], grades: Mapping[str, int], k: int | None = None, threshold: int = 1) -> float:
    relevant = [d for d, grade in grades.items() if grade >= threshold]
    found = [d for d in relevant if d in documents[:k]]
    return len(found) / len(relevant) if relevant else 0.0


def success(documents: Sequence[str], grades: Mapping[str, int], k: int | None = None, threshold: int = 1) -> float:
    return float(any(grades.get(d, 0) >= threshold for d in documents[:k]))


def ndcg(documents: Sequence[str], grades: Mapping[str, int], k: int | None = None, threshold: int = 1) -> float:
    def gain(ordered_grades: Sequence[int]) -> float:
        return sum(max(g, 0) / math.log2(rank + 1) for rank, g in enumerate(ordered_grades[:k], start=1))

    ideal = gain(sorted(grades.values(), reverse=True))
    return gain([grades.get(d, 0) for d in documents]) / ideal if ideal else 0.0


def average_precision(
    documents: Sequence[str], grades: Mapping[str, int], k: int | None = None, threshold: int = 1
) -> float:
    relevant = sum(grade >= threshold for grade in grades.values())
    hits, total = 0, 0.0
    for rank, document in enumerate(documents[:k], start=1):
        if grades.get(document, 0) >= threshold:
            hits += 1
            total += hits / rank
    return total / relevant if relevant else 0.0


# --- BM25 -------------------------------------------------------------------------------------------------


def bm25(documents: Sequence[Sequence[str]], query: Sequence[str], k1: float = 0.9, b: float = 0.4) -> list[float]:
    """Scores of tokenised documents, as Lucene computes them since version 8."""
    mean_length = sum(map(len, documents)) / len(documents)
    frequency = Counter(word for document in documents for word in set(document))
    scores = []
    for document in documents:
        counts, score = Counter(document), 0.0
        for word in query:
            if counts[word]:
                idf = math.log(1 + (len(documents) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                norm = k1 * (1 - b + b * len(document) / mean_length)
                score += idf * counts[word] / (counts[word] + norm)
        scores.append(score)
    return scores
