"""Tokens come back from disk as they were written; prefetching changes nothing but time."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_tower.data.stream.token_store import TokenWriter, read_tokens, token_hashes
from two_tower.ragged import Ragged
from two_tower.threads import prefetch

TEXTS = st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=12)


@given(batches=st.lists(TEXTS, max_size=4))
def test_what_is_written_in_batches_is_read_as_one(
    batches: list[list[list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    with TokenWriter(folder, "texts") as writer:
        for batch in batches:
            writer.append(Ragged.from_lists(batch), pa.array([str(text) for text in batch], pa.string()))
    tokens, hashes, written = read_tokens(folder, "texts")
    texts = [text for batch in batches for text in batch]
    assert tokens.to_lists() == texts
    assert hashes.tolist() == token_hashes(tokens).tolist()
    assert writer.texts == len(texts)
    equal = hashes[:, None] == hashes[None, :]
    assert equal.tolist() == [[a == b for b in texts] for a in texts]
    assert (written[:, None] == written[None, :]).tolist() == equal.tolist()
    assert (written == 0).tolist() == [text == [] for text in texts]


@pytest.mark.parametrize("count", [0, 2])
def test_prefetching_gives_the_same_items_in_order_and_then_the_error(count: int) -> None:
    def items() -> Iterator[int]:
        yield from range(count)
        raise ValueError("a bad row")

    assert list(prefetch(iter(range(count)))) == list(range(count))
    read = prefetch(items())
    assert [next(read) for _ in range(count)] == list(range(count))
    with pytest.raises(ValueError, match="a bad row"):
        next(read)
