"""Word embeddings that keep their gradient's memory: torch's gradients to the bit, whatever was written before."""

import copy

import pytest
import torch
from torch import nn

from pair_pkg.modeling.word_gradient import keep_word_gradient

VOCABULARY, WIDTH = 50, 8


@pytest.fixture
def pair():
    """A stock embedding and one of the same weights that keeps its gradient."""
    torch.manual_seed(0)
    stock = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
    kept = copy.deepcopy(stock)
    keep_word_gradient(kept)
    return stock, kept


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, shape, generator=generator), torch.randn(*shape, WIDTH, generator=generator)


def backward(embedding, *batches):
    """One graph that looks up each batch."""
    sum((embedding(ids) * slopes).sum() for ids, slopes in batches).backward()


def test_gradients_of_many_steps_are_those_of_torch(pair):
    optimizers = [torch.optim.AdamW(embedding.parameters(), lr=0.1) for embedding in pair]
    for step in range(6):
        for embedding, optimizer in zip(pair, optimizers):
            optimizer.zero_grad()
            backward(embedding, draw(step, 7 + step))
            nn.utils.clip_grad_norm_(embedding.parameters(), 0.5)  # changes the gradient in place
            optimizer.step()
        assert torch.equal(pair[0].weight.grad, pair[1].weight.grad)
        assert torch.equal(pair[0].weight, pair[1].weight)


def test_accumulated_batches_add_up(pair):
    """So they do behind a step that wrote other rows."""
    for step in range(2):
        for embedding in pair:
            embedding.zero_grad()
            for micro_step in range(3):
                backward(embedding, draw(10 * step + micro_step, 4, 3))
        assert torch.equal(pair[0].weight.grad, pair[1].weight.grad)


def test_two_lookups_in_one_graph(pair):
    for step in range(2):
        for embedding in pair:
            embedding.zero_grad()
            backward(embedding, draw(step, 5), draw(step + 5, 2, 6))
        assert torch.equal(pair[0].weight.grad, pair[1].weight.grad)


def test_gradients_that_are_zeroed_in_place(pair):
    for step in range(2):
        for embedding in pair:
            embedding.zero_grad(set_to_none=False)
            backward(embedding, draw(step, 9))
        assert torch.equal(pair[0].weight.grad, pair[1].weight.grad)


def test_a_gradient_of_someone_else_is_added_to(pair):
    """And the kept rows are still clean afterwards."""
    for embedding in pair:
        embedding.weight.grad = torch.ones_like(embedding.weight)
        backward(embedding, draw(0, 9))
    assert torch.equal(pair[0].weight.grad, pair[1].weight.grad)
    for embedding in pair:
        embedding.zero_grad()
        backward(embedding, draw(1, 9))
    assert torch.equal(pair[0].weight.grad, pair[1].weight.grad)


def test_memory_is_kept(pair):
    _, kept = pair
    places = set()
    for step in range(3):
        kept.zero_grad()
        backward(kept, draw(step, 9))
        places.add(kept.weight.grad.data_ptr())
    assert len(places) == 1


def test_rows_of_a_step_before_are_cleared(pair):
    """The control: without clearing, the second step would hold the first one's rows."""
    _, kept = pair
    for word in (3, 4):
        kept.zero_grad()
        backward(kept, (torch.tensor([word]), torch.ones(1, WIDTH)))
    assert kept.weight.grad[3].abs().sum() == 0 and kept.weight.grad[4].sum() == WIDTH


@pytest.mark.parametrize("case", ["no gradient is asked for", "frozen", "several processes"])
def test_elsewhere_torch_looks_up(pair, case, monkeypatch):
    _, kept = pair
    ids, _ = draw(0, 9)
    if case == "frozen":
        kept.weight.requires_grad_(False)
    if case == "several processes":
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with torch.set_grad_enabled(case != "no gradient is asked for"):
        output = kept(ids)
    assert torch.equal(output, nn.functional.embedding(ids, kept.weight))
    assert "LookUp" not in type(output.grad_fn).__name__


def test_a_copy_has_memory_of_its_own(pair):
    _, kept = pair
    backward(kept, draw(0, 9))
    other = copy.deepcopy(kept)
    before = kept.weight.grad.clone()
    other.zero_grad()
    backward(other, draw(1, 9))
    assert torch.equal(kept.weight.grad, before)
