"""Plain definitions, one loop at a time, that tests compare the package with. Slow, obvious, and independent.

Nothing here imports the package.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Documents in trec_eval's order: score descending, then the bytes of the id descending."""
    return sorted(scores, key=lambda d: (scores[d], d.encode()), reverse=True)


# --- metrics: of one query, from its ranked documents and its judgements

Grades = Mapping[str, int]  # document → grade


def reciprocal_rank(documents: Sequence[str], grades: Grades, k: int | None = None, threshold: int = 1) -> float:
    for rank, document in enumerate(documents[:k], start=1):
        if grades.get(document, 0) >= threshold:
            return 1 / rank
    return 0.0


def recall(documents: Sequence[str], grades: Grades, k: int | None = None, threshold: int = 1) -> float:
    relevant = [d for d, grade in grades.items() if grade >= threshold]
    found = [d for d in relevant if d in documents[:k]]
    return len(found) / len(relevant) if relevant else 0.0


def success(documents: Sequence[str], grades: Grades, k: int | None = None, threshold: int = 1) -> float:
    return float(any(grades.get(d, 0) >= threshold for d in documents[:k]))


def ndcg(documents: Sequence[str], grades: Grades, k: int | None = None, threshold: int = 1) -> float:
    def gain(ordered_grades: Sequence[int]) -> float:
        return sum(max(g, 0) / math.log2(rank + 1) for rank, g in enumerate(ordered_grades[:k], start=1))

    ideal = gain(sorted(grades.values(), reverse=True))
    return gain([grades.get(d, 0) for d in documents]) / ideal if ideal else 0.0


def average_precision(documents: Sequence[str], grades: Grades, k: int | None = None, threshold: int = 1) -> float:
    relevant = sum(grade >= threshold for grade in grades.values())
    hits, total = 0, 0.0
    for rank, document in enumerate(documents[:k], start=1):
        if grades.get(document, 0) >= threshold:
            hits += 1
            total += hits / rank
    return total / relevant if relevant else 0.0


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


# --- losses: numbers are 0-dimensional tensors in double precision, so that torch derives the gradient


def similarity(query: Tensor, document: Tensor, name: str) -> Tensor:
    if name == "euclidean":
        return -((query - document) ** 2).sum().sqrt()
    product = (query * document).sum()
    return product if name == "dot" else product / ((query**2).sum().sqrt() * (document**2).sum().sqrt())


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum() if terms else torch.zeros((), dtype=torch.float64)


def mean_of(terms: Sequence[Tensor]) -> Tensor:
    """0 of no terms."""
    return sum_of(terms) / max(len(terms), 1)


Scores = Sequence[Sequence[Tensor]]  # of each query with each document of the batch
Mask = Sequence[Sequence[bool]]


def in_batch_loss(scores: Scores, mask: Mask, temperature: Tensor | float, symmetric: bool) -> Tensor:
    count = len(scores)

    def cross_entropy(positive: Tensor, negatives: Sequence[Tensor]) -> Tensor:
        share = torch.exp(positive / temperature) / sum_of([torch.exp(s / temperature) for s in (positive, *negatives)])
        return -torch.log(share)

    rows, columns = [], []
    for i in range(count):
        rows.append(cross_entropy(scores[i][i], [s for s, m in zip(scores[i], mask[i], strict=True) if m]))
    for j in range(count):
        columns.append(cross_entropy(scores[j][j], [scores[i][j] for i in range(count) if mask[i][j]]))
    return (mean_of(rows) + mean_of(columns)) / 2 if symmetric else mean_of(rows)


def triplet_loss(scores: Scores, mask: Mask, margin: float, softness: float, select: str) -> Tensor:
    losses = []
    for i, row in enumerate(scores):
        positive, negatives = row[i], [s for s, m in zip(row, mask[i], strict=True) if m]
        if select == "semi_hard":
            negatives = [s for s in negatives if positive - margin < s < positive]
        terms = []
        for negative in negatives:
            gap = margin - positive + negative
            terms.append(softness * torch.log(1 + torch.exp(gap / softness)) if softness else torch.clamp(gap, min=0))
        if terms and select != "all":
            hardest = max(s.item() for s in negatives)
            terms = [mean_of([t for t, s in zip(terms, negatives, strict=True) if s.item() == hardest])]
        losses += terms
    return mean_of(losses)


def loss_diagnostics(scores: Scores, mask: Mask, margin: float) -> dict[str, float]:
    rows = [[s.item() for s in row] for row in scores]
    negatives = [[s for s, m in zip(row, marks, strict=True) if m] for row, marks in zip(rows, mask, strict=True)]
    pairs = [(rows[i][i], s) for i in range(len(rows)) for s in negatives[i]]
    judged = [(rows[i][i], max(found)) for i, found in enumerate(negatives) if found]
    return {
        "positive_similarity": sum(row[i] for i, row in enumerate(rows)) / len(rows),
        "negative_similarity": sum(s for _, s in pairs) / max(len(pairs), 1),
        "accuracy": sum(positive > best for positive, best in judged) / max(len(judged), 1),
        "idle_queries": 1 - len(judged) / len(rows),
        "active_triplets": sum(positive - s < margin for positive, s in pairs) / max(len(pairs), 1),
        "chance_loss": sum(math.log(1 + len(found)) for found in negatives) / len(negatives),
    }


# --- distillation: of scores (B, N), a mask, the student's and the teacher's vectors of queries and documents

Vectors = tuple[Tensor, Tensor]


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum_of([x * y for x, y in zip(a, b, strict=True)])


def distil_cosine(scores: Tensor, mask: Tensor, student: Vectors, teacher: Vectors, t: float) -> Tensor:
    return sum_of(
        [mean_of([1 - dot(x, y) / x.norm() for x, y in zip(*sides, strict=True)])
         for sides in zip(student, teacher, strict=True)]
    )  # fmt: skip


def distil_kl(scores: Tensor, mask: Tensor, student: Vectors, teacher: Vectors, t: float) -> Tensor:
    terms = []
    for i, row in enumerate(scores):
        taught = [float(dot(teacher[0][i], y)) / t for y in teacher[1]]
        powers = [math.exp(v - max(taught)) for v in taught]
        p = [power / sum(powers) for power in powers]
        log_sum = torch.logsumexp(row / t, 0)
        terms.append(sum_of([p[j] * (math.log(p[j]) - (row[j] / t - log_sum)) for j in range(len(row))]))
    return mean_of(terms)


def distil_contrastive(scores: Tensor, mask: Tensor, student: Vectors, teacher: Vectors, t: float) -> Tensor:
    terms, taught = [], teacher[1]
    for i, own in enumerate(student[1]):
        rivals = [j for j in range(len(taught)) if j == i or float(dot(taught[i], taught[j])) < 0.9999]
        logits = torch.stack([dot(own / own.norm(), taught[j]) / t for j in rivals])
        terms.append(torch.logsumexp(logits, 0) - logits[rivals.index(i)])
    return mean_of(terms)


def distil_margin(scores: Tensor, mask: Tensor, student: Vectors, teacher: Vectors, t: float) -> Tensor:
    terms = []
    for i, j in mask.nonzero().tolist():
        wanted = dot(teacher[0][i], teacher[1][i]) - dot(teacher[0][i], teacher[1][j])
        terms.append((scores[i, i] - scores[i, j] - wanted) ** 2)
    return mean_of(terms)


DISTILLATION = {"cosine": distil_cosine, "kl": distil_kl, "contrastive": distil_contrastive, "margin": distil_margin}


def margin_mse(scores: Tensor, margins: Tensor, t: float) -> Tensor:
    """The own negatives of query i are the documents B + i G and following."""
    count, given = margins.shape
    return mean_of(
        [((scores[i, i] - scores[i, count + i * given + g]) / t - margins[i, g]) ** 2
         for i in range(count) for g in range(given)]
    )  # fmt: skip
