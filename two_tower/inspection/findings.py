"""What of the facts is worth a thought, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["findings"]

Facts = Mapping[str, Any]

# Rates from which on something is worth a thought.
MUCH_CUT = 0.05
MUCH_UNKNOWN = 0.05
# Pairs that share less than this many times what chance has them share do not belong together. English text has
# 2.1 to 4.6: medical answers, MS MARCO, documentation.
LITTLE_SHARED = 1.5
# Pairs from which on a mean share says something.
ENOUGH_PAIRS = 50


class Finding(NamedTuple):
    """Something that is worth a thought.

    Attributes:
        id: what kind of thing, the same for all collections.
        evidence: what was found, in figures.
        remedy: what to do.
    """

    id: str
    evidence: str
    remedy: str


def findings(facts: Facts) -> list[dict[str, str]]:
    """What is worth a thought, as ``id``, ``evidence`` and ``remedy``.

    Args:
        facts: as `inspect_source` gives them.
    """
    train = facts["source"]["train_split"]
    found = [*_of_source(facts), *_of_passages(facts["passages"])]
    for name, split in facts["splits"].items():
        found += _of_queries(name, split, name == train)
        found += _of_judgements(name, split, name == train)
    if facts["triplets"] is not None:
        found += _of_triplets(facts["triplets"])
    return [finding._asdict() for finding in found]


def _of_source(facts: Facts) -> Iterator[Finding]:
    source, existing = facts["source"], list(facts["splits"])
    listed = ", ".join(existing) or "none"
    for role, use in (("train", "train on"), ("validation", "validate on")):
        split = source[f"{role}_split"]
        if split not in existing and not (role == "train" and (facts["triplets"] or {}).get("kind") == "texts"):
            yield Finding(
                f"no_{role}_split",
                f"there is no split {split} to {use}; splits: {listed}",
                f"choose one with data.{role}_split=NAME, or make one of some queries of another split",
            )
    for file, bad in facts["bad_rows"].items():
        kinds = ", ".join(f"{kind['count']:,} with {name}" for name, kind in bad["kinds"].items())
        first = next(iter(bad["kinds"].values()))["examples"][0]
        yield Finding(
            "bad_rows",
            f"{bad['count']:,} rows of {file} were left out: {kinds} (the first: {first})",
            "correct the file, or leave it so if these rows do not matter",
        )


def _of_passages(passages: Facts) -> Iterator[Finding]:
    count, copies, cut = passages["count"], passages["duplicates"], passages["cut"]
    if passages["empty"]["count"]:
        yield Finding(
            "empty_passages",
            f"{_part(passages['empty'], count)} passages have no word at all{_such_as(passages['empty'])}",
            "remove them, or look for a wrong column: no search can find them",
        )
    if copies["texts"]:
        pairs = "; ".join(" = ".join(group) for group in copies["examples"])
        yield Finding(
            "duplicate_passages",
            f"{copies['texts']:,} of {count:,} passages are equal to another one, in {copies['groups']:,} groups "
            f"({pairs})",
            "keep one of each: a search shows all copies, and no model can tell which of them was judged",
        )
    if cut["rate"] > MUCH_CUT:
        yield Finding(
            "cut_passages",
            f"{_percent(cut['rate'])} of the passages are longer than {cut['limit']} tokens, and "
            f"{_percent(cut['token_rate'])} of all tokens are cut off",
            "split long passages, or raise tokenizer.document_tokens "
            f"(95 % have at most {passages['lengths']['p95']:,})",
        )


def _of_queries(name: str, split: Facts, is_train: bool) -> Iterator[Finding]:
    count, copies, cut, unknown = split["count"], split["duplicates"], split["cut"], split["unknown"]
    if unknown["texts"]:
        yield Finding(
            "queries_without_known_word",
            f"{unknown['texts']:,} of {count:,} {name} queries have no word of the vocabulary",
            "lower tokenizer.min_frequency, or remove them: a model of words cannot answer them",
        )
    if unknown["rate"] > MUCH_UNKNOWN and not is_train:
        yield Finding(
            "unknown_words",
            f"{_percent(unknown['rate'])} of the words of the {name} queries are not in the vocabulary",
            "give more text of the same kind and language, or lower tokenizer.min_frequency",
        )
    if copies["texts"] and not is_train:  # training takes them for one query with the positives of all
        pairs = "; ".join(" = ".join(group) for group in copies["examples"])
        yield Finding(
            "duplicate_queries",
            f"{copies['texts']:,} of {count:,} {name} queries are equal to another one ({pairs})",
            "join them to one query with all its relevant passages: each counts, and has the others' answers as wrong",
        )
    if cut["rate"] > MUCH_CUT:
        yield Finding(
            "cut_queries",
            f"{_percent(cut['rate'])} of the {name} queries are longer than {cut['limit']} tokens",
            f"raise tokenizer.query_tokens (95 % have at most {split['lengths']['p95']:,})",
        )
    leaked = split["leakage"]
    if leaked is not None and leaked["count"]:
        yield Finding(
            "leakage",
            f"{_part(leaked, count)} {name} queries are also training queries, {leaked['with_same_positive']:,} with "
            f"the same relevant passage{_such_as(leaked)}: figures on {name} are too good",
            "remove them from one of the two splits",
        )


def _of_judgements(name: str, split: Facts, is_train: bool) -> Iterator[Finding]:
    without, itself = split["without_positives"], split["answered_by_themselves"]
    if split["unknown_ids"]:
        yield Finding(
            "unknown_ids",
            f"{split['unknown_ids']:,} judgements of {name} name a query or passage that does not exist, and "
            "are left out",
            "look for ids that are written in another way, or for a part of the corpus that is missing",
        )
    if without["count"]:
        yield Finding(
            "queries_without_positives",
            f"{_part(without, split['count'])} {name} queries have no relevant passage{_such_as(without)}",
            "remove them: nobody trains on them, and they score 0 in every metric",
        )
    if itself["count"]:
        yield Finding(
            "answered_by_themselves",
            f"{_part(itself, split['count'])} {name} queries are equal to their relevant passage{_such_as(itself)}",
            "look for a wrong column; such pairs teach nothing and are found by any model",
        )
    if split["unjudged_copies"] and not is_train:
        yield Finding(
            "unjudged_copies",
            f"{split['unjudged_copies']:,} of {split['positives']:,} relevant passages of {name} have a copy in the "
            "corpus that is not judged",
            "judge the copies too, or remove them: a search that finds the copy is counted wrong",
        )
    yield from _of_overlap(f"the {name} queries", split["overlap"])


def _of_overlap(whose: str, overlap: Facts) -> Iterator[Finding]:
    chance, parts = overlap["shared_by_chance"], overlap["parts"]
    low = [i for i, shared in enumerate(parts) if shared <= LITTLE_SHARED * chance]
    if not low or overlap["pairs"] < ENOUGH_PAIRS:
        return
    shared = sum(parts[i] for i in low) / len(low)
    place = (
        "" if len(low) == len(parts) else f", {low[0] / len(parts):.0%} to {(low[-1] + 1) / len(parts):.0%} of them,"
    )
    yield Finding(
        "no_common_words",
        f"relevant passages repeat {_percent(shared)} of the words of {whose}{place} and other queries' passages "
        f"{_percent(chance)}",
        "look whether queries and passages belong together: rows may have slipped, or a column may be wrong",
    )


_TRIPLETS = {
    "positive_is_negative": ("have a negative that is equal to the positive", "remove them: they teach nothing"),
    "negative_is_relevant": (
        "have a negative that is a relevant passage of the query",
        "remove them: they teach the opposite",
    ),
    "positive_not_relevant": (
        "have a positive that is not judged relevant to the query",
        "look whether positives and negatives are exchanged, or the triplets belong to other judgements",
    ),
    "positive_is_query": ("have the query itself as positive", "look for a wrong column: they teach nothing"),
}


def _of_triplets(triplets: Facts) -> Iterator[Finding]:
    count = triplets["count"]
    if triplets["unknown_ids"]:
        yield Finding(
            "triplets_left_out",
            f"{triplets['unknown_ids']:,} of {count:,} triplets name a passage that does not exist, or a query that is "
            "not of the training split, and are left out",
            "leave it so if they are of another split; else look for ids that are written in another way",
        )
    for kind, (what, remedy) in _TRIPLETS.items():
        if triplets[kind]["count"]:
            yield Finding(kind, f"{_part(triplets[kind], count)} triplets {what}{_such_as(triplets[kind])}", remedy)
    yield from _of_overlap("the triplets' queries", triplets["overlap"])


def _part(found: Facts, count: int) -> str:
    return f"{found['count']:,} of {count:,}"


def _such_as(found: Facts) -> str:
    """The examples, in brackets."""
    examples = [" ".join(e) if isinstance(e, list) else str(e) for e in found["examples"]]
    return f" ({', '.join(examples)}{' …' if found['count'] > len(examples) else ''})"


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"
