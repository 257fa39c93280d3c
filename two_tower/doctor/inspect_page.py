"""What the facts of a collection say to a person: warnings, and a page of 80 columns, in a pipe too."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from two_tower.console import say

Facts = Mapping[str, Any]

MAX_CUT = MAX_UNKNOWN = 0.05  # rates above which something is worth a thought
# Pairs that share less than this many times what chance has them share do not belong together. English text has
# 2.1 to 4.6: medical answers, MS MARCO, documentation.
LITTLE_SHARED = 1.5
ENOUGH_PAIRS = 50  # from which on a mean share says something
LABEL, COLUMN, BINS, WIDTH = 29, 12, 18, 80  # characters


def warnings(facts: Facts) -> list[dict[str, str]]:
    """What is worth a thought in what `two_tower.doctor.facts.inspect_source` gives: id, evidence, remedy."""
    train = facts["source"]["train_split"]
    found = [*_of_source(facts), *_of_passages(facts["passages"])]
    for name, split in facts["splits"].items():
        found += _of_queries(name, split, name == train)
        found += _of_judgements(name, split, name == train, facts["source"]["exclude_same_id"])
    found += _of_triplets(facts["triplets"])
    return [dict(zip(("id", "evidence", "remedy"), warning, strict=True)) for warning in found]


# A warning: its id, the evidence, the remedy.
_Warnings = Iterator[tuple[str, str, str]]


def _of_source(facts: Facts) -> _Warnings:
    source, existing = facts["source"], list(facts["splits"])
    on_texts = (facts["triplets"] or {}).get("kind") == "texts"  # which need no training split
    for role, use in (("train", "train on"), ("validation", "validate on")):
        split = source[f"{role}_split"]
        if split not in existing and not (role == "train" and on_texts):
            evidence = f"there is no split {split} to {use}; splits: {', '.join(existing) or 'none'}"
            remedy = f"choose one with data.{role}_split=NAME, or make one of some queries of another split"
            yield f"no_{role}_split", evidence, remedy
    for file, bad in facts["bad_rows"].items():
        kinds = ", ".join(f"{kind['count']:,} with {name}" for name, kind in bad["kinds"].items())
        first = next(iter(bad["kinds"].values()))["examples"][0]
        evidence = f"{bad['count']:,} rows of {file} were left out: {kinds} (the first: {first})"
        yield "bad_rows", evidence, "correct the file, or leave it so if these rows do not matter"


def _of_passages(passages: Facts) -> _Warnings:
    count, copies, cut = passages["count"], passages["duplicates"], passages["cut"]
    if passages["empty"]["count"]:
        evidence = _some(passages["empty"], count, "passages have no word at all")
        yield "empty_passages", evidence, "remove them, or look for a wrong column: no search can find them"
    if copies["texts"]:
        evidence = f"{copies['texts']:,} of {count:,} passages are equal to another one, in {copies['groups']:,} "
        evidence += f"groups ({'; '.join(' = '.join(group) for group in copies['examples'])})"
        remedy = "keep one of each: a search shows all copies, and no model can tell which of them was judged"
        yield "duplicate_passages", evidence, remedy
    if cut["rate"] > MAX_CUT:
        evidence = f"{_percent(cut['rate'])} of the passages are longer than {cut['limit']} tokens, and "
        evidence += f"{_percent(cut['token_rate'])} of all tokens are cut off"
        remedy = "split long passages, or raise tokenizer.document_tokens "
        remedy += f"(95 % have at most {passages['lengths']['p95']:,})"
        yield "cut_passages", evidence, remedy


def _of_queries(name: str, split: Facts, is_train: bool) -> _Warnings:
    count, copies, cut, unknown = split["count"], split["duplicates"], split["cut"], split["unknown"]
    if unknown["texts"]:
        evidence = f"{unknown['texts']:,} of {count:,} {name} queries have no word of the vocabulary"
        remedy = "lower tokenizer.min_frequency, or remove them: a model of words cannot answer them"
        yield "queries_without_known_word", evidence, remedy
    if unknown["rate"] > MAX_UNKNOWN and not is_train:
        evidence = f"{_percent(unknown['rate'])} of the words of the {name} queries are not in the vocabulary"
        remedy = "give more text of the same kind and language, or lower tokenizer.min_frequency"
        yield "unknown_words", evidence, remedy
    if copies["texts"] and not is_train:  # training takes them for one query with the positives of all
        evidence = f"{copies['texts']:,} of {count:,} {name} queries are equal to another one "
        evidence += f"({'; '.join(' = '.join(group) for group in copies['examples'])})"
        remedy = "join them to one query with all its relevant passages: each counts, and has the others' answers as "
        remedy += "wrong"
        yield "duplicate_queries", evidence, remedy
    if cut["rate"] > MAX_CUT:
        evidence = f"{_percent(cut['rate'])} of the {name} queries are longer than {cut['limit']} tokens"
        yield "cut_queries", evidence, f"raise tokenizer.query_tokens (95 % have at most {split['lengths']['p95']:,})"
    leaked = split["leakage"]
    if leaked is not None and leaked["count"]:
        same = f"{leaked['with_same_positive']:,} with the same relevant passage"
        evidence = _some(leaked, count, f"{name} queries are also training queries, {same}")
        evidence += f": figures on {name} are too good"
        yield "leakage", evidence, "remove them from one of the two splits"


def _of_judgements(name: str, split: Facts, is_train: bool, exclude_same_id: bool) -> _Warnings:
    without, own_answer = split["without_positives"], split["answered_by_themselves"]
    if split["unknown_ids"]:
        evidence = f"{split['unknown_ids']:,} judgements of {name} name a query or passage that does not exist: such "
        evidence += "a passage counts as missed, as in trec_eval, and such a query is left out"
        remedy = "look for ids that are written in another way, or for a part of the corpus that is missing"
        yield "unknown_ids", evidence, remedy
    if without["count"]:
        evidence = _some(without, split["count"], f"{name} queries have no relevant passage")
        remedy = "remove them: nobody trains on them, and they score 0 in every metric"
        yield "queries_without_positives", evidence, remedy
    if split["own_passages"]["count"] and not exclude_same_id:
        evidence = _some(split["own_passages"], split["count"], f"{name} queries are passages themselves")
        evidence += ": each finds itself first"
        yield "own_passages", evidence, "data.exclude_same_id=true, which does not rank it, as the field does"
    if own_answer["count"]:
        evidence = _some(own_answer, split["count"], f"{name} queries are equal to their relevant passage")
        remedy = "look for a wrong column; such pairs teach nothing and are found by any model"
        yield "answered_by_themselves", evidence, remedy
    if split["unjudged_copies"] and not is_train:
        evidence = f"{split['unjudged_copies']:,} of {split['positives']:,} relevant passages of {name} have a copy "
        evidence += "in the corpus that is not judged"
        remedy = "judge the copies too, or remove them: a search that finds the copy is counted wrong"
        yield "unjudged_copies", evidence, remedy
    yield from _of_overlap(f"the {name} queries", split["overlap"])


def _of_overlap(whose: str, overlap: Facts) -> _Warnings:
    chance, parts = overlap["shared_by_chance"], overlap["parts"]
    low = [i for i, shared in enumerate(parts) if shared <= LITTLE_SHARED * chance]
    if not low or overlap["pairs"] < ENOUGH_PAIRS:
        return
    shared, total = sum(parts[i] for i in low) / len(low), len(parts)
    place = f", {low[0] / total:.0%} to {(low[-1] + 1) / total:.0%} of them," if len(low) < total else ""
    evidence = f"relevant passages repeat {_percent(shared)} of the words of {whose}{place} and other queries' "
    evidence += f"passages {_percent(chance)}"
    remedy = "look whether queries and passages belong together: rows may have slipped, or a column may be wrong"
    yield "no_common_words", evidence, remedy


# Kind of triplet → its label on the page, what is wrong with it, what to do.
_TRIPLETS = {
    "positive_is_negative": (
        "positive equal to negative", "have a negative that is equal to the positive",
        "remove them: they teach nothing",
    ),
    "negative_is_relevant": (
        "negative that is relevant", "have a negative that is a relevant passage of the query",
        "remove them: they teach the opposite",
    ),
    "positive_not_relevant": (
        "positive that is not relevant", "have a positive that is not judged relevant to the query",
        "look whether positives and negatives are exchanged, or the triplets belong to other judgements",
    ),
    "positive_is_query": (
        "positive equal to the query", "have the query itself as positive",
        "look for a wrong column: they teach nothing",
    ),
}  # fmt: skip


def _of_triplets(triplets: Facts | None) -> _Warnings:
    if triplets is None:
        return
    count = triplets["count"]
    if triplets["unknown_ids"]:
        evidence = f"{triplets['unknown_ids']:,} of {count:,} triplets name a passage that does not exist, or a query "
        evidence += "that is not of the training split, and are left out"
        remedy = "leave it so if they are of another split; else look for ids that are written in another way"
        yield "triplets_left_out", evidence, remedy
    for kind, (_, what, remedy) in _TRIPLETS.items():
        if triplets[kind]["count"]:
            yield kind, _some(triplets[kind], count, f"triplets {what}"), remedy
    yield from _of_overlap("the triplets' queries", triplets["overlap"])


def _some(found: Facts, count: int, what: str) -> str:
    """How many of all are what, and the examples in brackets."""
    examples = [" ".join(e) if isinstance(e, list) else str(e) for e in found["examples"]]
    more = " …" if found["count"] > len(examples) else ""
    return f"{found['count']:,} of {count:,} {what} ({', '.join(examples)}{more})"


def _percent(rate: float) -> str:
    """One decimal; a rate that is not 0 never looks like 0."""
    return f"{100 * rate:.1f} %" if rate == 0 or rate >= 0.0005 else "< 0.1 %"


def show(facts: Facts) -> None:
    """Print what `two_tower.doctor.facts.inspect` found."""
    source, passages, splits = facts["source"], facts["passages"], facts["splits"]
    words, languages = facts["vocabulary"]["words"], facts["vocabulary"]["languages"]
    found = f" ({', '.join(languages)})" if languages else ""
    say(f"{source['name']}: {passages['count']:,} passages, a vocabulary of {words:,} words{found}", "bold")
    say(f"fingerprint {source['fingerprint']}", "dim")
    _table("", {"passages": passages, **splits}, _TEXT_ROWS)
    if splits:
        _table("Queries and relevant passages", splits, _QUERY_ROWS)
    _histograms("Tokens per passage", {"passages": passages["lengths"]["histogram"]})
    _histograms("Tokens per query", {name: split["lengths"]["histogram"] for name, split in splits.items()})
    triplets = facts["triplets"]
    if triplets is not None:
        read = f"the first {triplets['count']:,} are looked at" if triplets["sample"] else f"{triplets['count']:,}"
        say(f"\nTriplets of {triplets['kind']}: {read}", "bold")
        counts = {label: triplets[kind]["count"] for kind, (label, _, _) in _TRIPLETS.items()}
        for label, count in {"of unknown ids, left out": triplets["unknown_ids"], **counts}.items():
            say(f"{label:<{LABEL}}{count:>{COLUMN},}")
    bad_rows = [
        f"{kind['count']:,} of {file} with {name}: {'; '.join(kind['examples'])}"
        for file, bad in facts["bad_rows"].items()
        for name, kind in bad["kinds"].items()
    ]
    _show_list("Bad rows that were left out", bad_rows)
    _show_list("Said while reading", facts["notices"])
    told = [" ".join(f"{w[key][0].upper()}{w[key][1:]}." for key in ("evidence", "remedy")) for w in facts["warnings"]]
    _show_list("Warnings", told, style="yellow")
    if not told:
        say("\nNothing to warn of.")


_Rows = dict[str, Callable[[Facts], float | str]]

_TEXT_ROWS: _Rows = {
    "texts": lambda f: f["count"],
    "  without any word": lambda f: f["empty"]["count"],
    "  equal to another one": lambda f: f["duplicates"]["texts"],
    "tokens": lambda f: f["tokens"],
    "  least of a text": lambda f: f["lengths"]["min"],
    "  median": lambda f: f["lengths"]["median"],
    "  mean": lambda f: f"{f['lengths']['mean']:,.1f}",
    "  95 % of texts have at most": lambda f: f["lengths"]["p95"],
    "  99 % of texts have at most": lambda f: f["lengths"]["p99"],
    "  most": lambda f: f["lengths"]["max"],
    "tokens kept of a text": lambda f: f["cut"]["limit"],
    "  texts that are longer": lambda f: _percent(f["cut"]["rate"]),
    "  tokens cut off": lambda f: _percent(f["cut"]["token_rate"]),
    "words not in the vocabulary": lambda f: _percent(f["unknown"]["rate"]),
    "  texts without a known word": lambda f: f["unknown"]["texts"],
}

_QUERY_ROWS: _Rows = {
    "judgements": lambda f: f["judgements"],
    "  of unknown ids": lambda f: f["unknown_ids"],
    "relevant": lambda f: f["positives"],
    "  of a query, mean": lambda f: f"{f['positives_per_query']['mean']:.2f}",
    "  of a query, most": lambda f: f["positives_per_query"]["max"],
    "  with a copy, not judged": lambda f: f["unjudged_copies"],
    "  equal to the query": lambda f: f["answered_by_themselves"]["count"],
    "queries without any": lambda f: f["without_positives"]["count"],
    "queries also in training": lambda f: "–" if f["leakage"] is None else f["leakage"]["count"],
    "  with the same passage": lambda f: "–" if f["leakage"] is None else f["leakage"]["with_same_positive"],
    "words found in the passage": lambda f: _percent(f["overlap"]["shared"]),
    "  in another query's passage": lambda f: _percent(f["overlap"]["shared_by_chance"]),
    "no common word": lambda f: _percent(f["overlap"]["nothing_shared"]),
    "  with another's passage": lambda f: _percent(f["overlap"]["nothing_shared_by_chance"]),
    "pairs compared for that": lambda f: f["overlap"]["pairs"],
}


def _table(title: str, columns: Mapping[str, Facts], rows: _Rows) -> None:
    say(f"\n{title:<{LABEL}}" + "".join(f"{name:>{COLUMN}}" for name in columns), "bold")
    for label, value in rows.items():
        values = (value(column) for column in columns.values())
        say(f"{label:<{LABEL}}" + "".join(f"{v if isinstance(v, str) else f'{v:,}':>{COLUMN}}" for v in values))


def _histograms(title: str, histograms: Mapping[str, Mapping[str, list[int]]]) -> None:
    """One bar chart per column; the bins are those of `distribution`, so they fit together."""
    bins = sorted({span for h in histograms.values() for span in zip(h["edges"], h["edges"][1:], strict=False)})
    if not bins:
        return
    width = (WIDTH - BINS) // len(histograms)
    names = (f"{name:<{width}}" for name in histograms if len(histograms) > 1)
    say(f"\n{title:<{BINS}}{''.join(names)}".rstrip(), "bold")
    shares = [
        {low: n / sum(h["counts"]) for low, n in zip(h["edges"], h["counts"], strict=False)}
        for h in histograms.values()
    ]
    for low, high in bins:
        label = str(low) if high == low + 1 else f"{low}–{high - 1}"
        bars = (f"{_bar(s.get(low, 0.0), max(s.values()), width - 9):<{width}}" for s in shares)
        say(f"{label:>{BINS - 2}}  {''.join(bars)}".rstrip())


def _bar(share: float, largest: float, width: int) -> str:
    if not share:
        return ""
    eighths = round(8 * width * share / largest)
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return f"{bar} {_percent(share)}".strip()


def _show_list(title: str, lines: Sequence[str], style: str | None = None) -> None:
    if lines:
        say(f"\n{title}", "bold")
    wrapper = textwrap.TextWrapper(WIDTH, "- ", "  ", break_long_words=False, break_on_hyphens=False)
    for line in lines:
        say(wrapper.fill(line), style)
