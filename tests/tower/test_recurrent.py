"""Recurrent towers: every text's own states, whatever the batch, the direction, the order and the threads."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower.base import WordTable
from two_tower.tower.recurrent import RecurrentTower

WORDS, DIM = 50, 16
CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
POOLINGS = ("last", "mean", "max", "attention")
Case = tuple[str, str, bool]
# Every pair of two settings' values occurs.
ARRAY = [(c, p, bool((i + j) % 2)) for (i, c), (j, p) in itertools.product(enumerate(CELLS), enumerate(POOLINGS))]
CASES = pytest.mark.parametrize("case", ARRAY, ids=str)


def make(cell: str, pooling: str = "mean", bidirectional: bool = False, **settings: Any) -> RecurrentTower:  # noqa: ANN401
    torch.manual_seed(1)
    words = WordTable(WORDS, DIM)
    words.initialize(torch.randn(WORDS, DIM), None)
    settings = {"dim": 8, **settings}
    tower = RecurrentTower(words, cell=cell, pooling=pooling, bidirectional=bidirectional, **settings)
    if pooling == "attention":
        nn.init.normal_(tower.attention)
    return tower


def random_batch(texts: int, longest: int) -> Ragged:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, longest, (texts,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Ragged(torch.randint(0, WORDS, (int(offsets[-1]),), generator=generator, dtype=torch.int32), offsets)


def plain_states(network: nn.RNNBase, cell: str, inputs: list[Tensor]) -> list[Tensor]:
    step = CELLS[cell](network.input_size, network.hidden_size)
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in network.state_dict().items()})
    state: Any = None
    states = []
    for x in inputs:
        state = step(x.unsqueeze(0), state)
        states.append((state[0] if cell == "lstm" else state)[0])
    return states


def plain_vector(tower: RecurrentTower, cell: str, pooling: str, text: list[int]) -> Tensor:
    inputs = [tower.words.vectors[i] for i in text]
    for layer, network in enumerate(tower.forwards):
        directions = [plain_states(network, cell, inputs)]
        if tower.backwards:
            directions.append(plain_states(tower.backwards[layer], cell, inputs[::-1])[::-1])
        inputs = [torch.cat(pair) for pair in zip(*directions, strict=True)]
    states = torch.stack(inputs)
    if pooling == "last":
        return torch.cat([directions[0][-1], *(backwards[0] for backwards in directions[1:])])
    if pooling == "attention":
        return (states @ tower.attention).softmax(0) @ states
    return states.mean(0) if pooling == "mean" else states.amax(0)


@CASES
def test_states_equal_a_loop_over_each_text(case: Case) -> None:
    """The backward direction starts at each text's own last word, not at a column of the batch."""
    tower = make(*case, layers=2)
    texts = [[4, 8, 15], [16], [23, 42, 4, 8, 15, 16], [1, 2], [49] * 7]
    out = tower(Ragged.from_lists(texts))
    for row, text in zip(out, texts, strict=True):
        torch.testing.assert_close(row, plain_vector(tower, *case[:2], text), atol=1e-5, rtol=1e-5)


@CASES
def test_gradients_equal_those_of_the_librarys_packed_sequences(case: Case) -> None:
    torch.set_num_threads(2)
    tower, batch = make(*case, layers=2, hidden=5), random_batch(40, 12)
    library = copy.deepcopy(tower).double()  # another dtype takes the path of other devices
    upstream = torch.randn(len(batch), 8)
    outs = tower(batch), library(batch)
    assert not library(Ragged.from_lists([[], []])).any()
    torch.testing.assert_close(outs[0].double(), outs[1], atol=1e-6, rtol=1e-5)
    outs[0].backward(upstream)
    outs[1].backward(upstream.double())
    for (name, ours), theirs in zip(tower.named_parameters(), library.parameters(), strict=True):
        if ours.requires_grad:
            expected = theirs.grad.to_dense()
            scale = float(expected.abs().max())
            torch.testing.assert_close(ours.grad.to_dense().double(), expected, atol=1e-5 * scale, rtol=0, msg=name)
    assert tower.words.vectors.grad.coalesce().indices().tolist() == [sorted({*batch.ids.tolist()})]
    assert not tower.words.log_weights.requires_grad


@pytest.mark.parametrize("cell", CELLS)
def test_training_repeats_bit_for_bit_at_any_number_of_threads(cell: str) -> None:
    batch, results = random_batch(40, 12), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        tower = make(cell, "mean", True)
        tower(batch).square().sum().backward()
        results.append([p.grad.to_dense() for p in tower.parameters() if p.requires_grad])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_is_near_and_independent_of_the_batch_and_never_trains(cell: str) -> None:
    tower, low = (make(cell, "mean", True, encode_dtype=d, dim=64) for d in ("float32", "bfloat16"))
    low.load_state_dict(tower.state_dict())
    batch = random_batch(30, 30)
    with torch.inference_mode():
        exact, near = (nn.functional.normalize(t(batch)) for t in (tower, low))
        alone = nn.functional.normalize(torch.cat([low(batch.slice(i, i + 1)) for i in range(len(batch))]))
    assert not torch.equal(exact, near)
    torch.testing.assert_close(near, exact, atol=5e-3, rtol=0)
    # Both read the same factors; a last bit of a float32 sum may round one of them the other way.
    torch.testing.assert_close(near, alone, atol=1e-3, rtol=0)
    assert torch.equal(tower(batch), low(batch))


def test_a_diverged_network_shows() -> None:
    for cell in CELLS:
        tower = make(cell, "last", False)
        tower.forwards[0].weight_ih_l0.data[:] = torch.nan
        assert tower(Ragged.from_lists([[1, 2]])).isnan().all(), cell


def test_attention_starts_as_the_mean_and_bears_large_scores() -> None:
    words, batch, outs = make("gru").words, random_batch(10, 9), []
    for pooling in ("mean", "attention"):
        torch.manual_seed(0)
        tower = RecurrentTower(words, 8, pooling=pooling)
        outs.append(tower(batch))
    torch.testing.assert_close(*outs)
    nn.init.normal_(tower.attention, std=1e4)
    assert tower(batch).isfinite().all()


def test_another_number_of_states_is_projected() -> None:
    for bidirectional, states in ((False, 6), (True, 12)):
        tower = make("lstm", bidirectional=bidirectional, hidden=6, dim=5)
        assert tower(random_batch(3, 5)).shape == (3, 5)
        assert tower.projection.weight.shape == (5, states)
        assert isinstance(make("lstm", bidirectional=bidirectional).projection, nn.Identity)
    make("gru", bidirectional=True, dim=7, hidden=4)
    with pytest.raises(ValueError, match=r"^dim=7 must be even"):
        make("gru", bidirectional=True, dim=7)


def test_dropout_works_between_layers_in_training_only() -> None:
    tower, batch = make("gru", layers=2, dropout=0.5), random_batch(5, 9)
    assert not torch.equal(tower(batch), tower(batch))
    tower.eval()
    assert torch.equal(tower(batch), tower(batch))
