"""What columns and fields are usually called, in every kind of source, best first.

Names are compared without case, and with ``-`` and blanks as ``_``.
"""

from __future__ import annotations

from collections.abc import Iterable

ID = ("_id", "id", "docid", "doc_id", "passage_id", "document_id", "pid")
TITLE = ("title", "passage_title", "document_title")
TEXT = ("text", "passage", "document", "contents", "content", "body", "abstract", "passage_text", "document_text")
QUERY_ID = ("_id", "id", "qid", "query_id", "question_id", "topic_id")
QUERY = ("query", "question", "anchor", "query_text", "search_query", "q", "sentence1")
POSITIVE = (
    "positive", "positives", "pos", "positive_passage", "passage", "document", "context", "answer", "answers", "text",
    "passage_text", "response", "contents", "content", "body", "sentence2",
)  # fmt: skip
NEGATIVE = ("negative", "hard_negative", "negative_passage", "negative_1")
PASSAGE_ID = ("passage_id", "pid", "docid", "doc_id", "document_id", "positive_id", "corpus_id")
# Of judgements.
JUDGED_QUERY = ("query_id", "qid", "query", "topic_id", "topic", "question_id")
JUDGED_PASSAGE = (
    "corpus_id", "document_id", "doc_id", "docid", "docno", "passage_id", "pid", "did", "doc", "document", "passage",
)  # fmt: skip
GRADE = ("score", "grade", "relevance", "relevancy", "rel", "label", "judgment", "judgement", "relevant")
JUDGED = (JUDGED_QUERY, JUDGED_PASSAGE, GRADE)


def plain(name: str) -> str:
    """A name as names are compared."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def first_of(usual: Iterable[str], names: Iterable[str]) -> str | None:
    """The column among ``names`` that is called by the best of the usual names, or None."""
    known = {plain(name): name for name in reversed(list(names))}
    return next((known[name] for name in usual if name in known), None)


KNOWN = frozenset((*ID, *TITLE, *TEXT, *QUERY_ID, *QUERY, *POSITIVE, *NEGATIVE, *PASSAGE_ID))
