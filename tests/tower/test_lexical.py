"""The lexical half of a vector: what it is, that it follows from the words alone, and that every step carries it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_train import fit
from torch import Tensor
from tower.test_recurrent import DIM, random_batch
from tower.test_towers import average, word_table

from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.ragged import Ragged
from two_tower.run import Run
from two_tower.tower._lexical import LexicalHalf
from two_tower.tower.base import WordTable
from two_tower.tower.recurrent import RecurrentTower

DIMS = 128


def half(words: list[str], dims: int = DIMS) -> LexicalHalf:
    table = WordTable(len(words), 2)
    table.spelling = words
    return LexicalHalf(table, dims, 0.5)


def test_both_halves_have_their_length_and_the_lexical_one_is_the_weighted_mean_of_the_words() -> None:
    tower, plain, batch = average(lexical_dims=DIMS, lexical_scale=0.3), average(), random_batch(20, 9)
    out, meaning = tower(batch).detach(), plain(batch).detach()
    assert tower.dim == out.shape[1] == DIM + DIMS
    torch.testing.assert_close(out[:, :DIM], F.normalize(meaning, dim=1))
    table, weights = tower.lexical.rows(), tower.words.log_weights.detach().exp()
    for vector, text in zip(out[:, DIM:], batch.to_lists(), strict=True):
        total = sum((weights[i] * table[i] for i in text), torch.zeros(DIMS))
        torch.testing.assert_close(vector, 0.3 * F.normalize(total, dim=0), atol=1e-5, rtol=1e-5)


def test_other_devices_and_dtypes_get_the_same() -> None:
    tower, batch = average(lexical_dims=DIMS), random_batch(20, 9)
    torch.testing.assert_close(tower.double()(batch).float(), average(lexical_dims=DIMS)(batch))


def test_a_words_vector_follows_from_its_spelling_alone() -> None:
    one, two = half(["", "été", "a", "word"]).rows(), half(["word", "", "zebra", "été"]).rows()
    assert torch.equal(one[[1, 3]], two[[3, 0]])
    assert not one[0].any()  # the unknown word
    assert one[1:].abs().min() == 1
    assert torch.equal(half(["word"], 64).rows(), one[3:, :64])


def test_different_words_are_nearly_orthogonal() -> None:
    table = half([f"word{i}" for i in range(1000)]).rows()
    cosines = table @ table.T / DIMS
    others = cosines[~torch.eye(1000, dtype=torch.bool)]
    assert float(others.mean().abs()) < 0.001
    assert float(others.std()) == pytest.approx(DIMS**-0.5, rel=0.05)


def test_nothing_of_it_is_stored_and_it_takes_no_gradient() -> None:
    tower = average(lexical_dims=DIMS)
    assert tower.state_dict().keys() == average().state_dict().keys()
    tower(Ragged.from_lists([[1, 2]]))[:, DIM:].sum().backward()
    assert not any(p.grad.to_dense().any() for p in tower.parameters())


def test_a_recurrent_tower_has_it_too() -> None:
    tower = RecurrentTower(word_table(), DIM, "gru", refine=True, lexical_dims=DIMS)
    batch = random_batch(20, 9)
    torch.testing.assert_close(tower(batch)[:, DIM:], average(lexical_dims=DIMS)(batch)[:, DIM:])


def test_wrong_values_are_refused() -> None:
    for wrong, message in (({"lexical_dims": 100}, "a multiple of 64"), ({"lexical_scale": 0.0}, "above 0")):
        with pytest.raises(ValueError, match=message):
            average(**{"lexical_dims": DIMS, **wrong})


@pytest.mark.parametrize(
    "overrides",
    [
        ["cross_batch_memory=16", "cross_batch_start=1"],
        ["tower=gru", "tower.refine=true", "similarity=dot", "shared_towers=false", "embedding.pull=1"],
        ["loss=matryoshka", "similarity=euclidean"],
    ],
)
def test_a_run_trains_and_serves_with_it(overrides: list[str], collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", f"tower.lexical_dims={DIMS}", *overrides)
    encoder, other = Encoder.load(Run(tmp_path / "run")), Encoder.load(Run(tmp_path / "run"))
    words = encoder.tokenizer.vocabulary[2:5]
    texts = [" ".join(words), "", words[0]]
    vectors = encoder.documents(texts)
    assert vectors.shape == (3, 16 + DIMS)
    np.testing.assert_array_equal(vectors, other.documents(texts))
    assert not vectors[1].any()
    own = torch.from_numpy(vectors)[[0, 2]]
    assert _lengths(own[:, 16:]) == pytest.approx(0.5 * _lengths(own[:, :16]), rel=1e-5)


def _lengths(vectors: Tensor) -> np.ndarray:
    return vectors.norm(dim=1).numpy()


def test_a_wrong_number_of_dimensions_is_named(collection: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tower\.lexical_dims=100 must be a multiple of 64"):
        fit(collection, tmp_path / "run", "tower.lexical_dims=100")
