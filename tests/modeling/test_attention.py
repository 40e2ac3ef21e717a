"""Every way of attention gives what a softmax over each segment alone gives, values and gradients."""

import inspect

import pytest
import torch

from pair_pkg.modeling import attention
from pair_pkg.modeling.attention import attend, usable_kernel
from pair_pkg.modeling.layout import Layout

H, E = 3, 8
LENGTHS = [40, 40, 37, 20, 9, 9, 2]
WANTED = torch.tensor([0, 39, 45, 80, 116, 117, 140, 146, 147, 156])
LIMITS = {"a group for each length": 0, "some groups": 2_000, "one group, as on a GPU": 1_000_000}


@pytest.fixture(params=LIMITS.values(), ids=LIMITS)
def rectangles(request, monkeypatch):
    """How many rectangles a batch becomes."""
    monkeypatch.setattr("pair_pkg.modeling.layout.MAX_WASTED_PRODUCTS", request.param)


def qkv(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, sum(LENGTHS), H, E, generator=generator).to(dtype).requires_grad_()


def reference(rows, window=None):
    """Each segment by itself, in float64."""
    outputs = []
    for query, key, value in zip(*(part.double().split(LENGTHS) for part in rows)):
        scores = torch.einsum("qhe,khe->hqk", query, key) * E**-0.5
        place = torch.arange(len(query))
        if window is not None:
            scores = scores.masked_fill((place[:, None] - place).abs() > window, float("-inf"))
        outputs.append(torch.einsum("hqk,khe->qhe", scores.softmax(-1), value))
    return torch.cat(outputs)


def assert_same(rows, ours, expected, atol):
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((ours.double() * weights).sum(), rows)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), rows)
    torch.testing.assert_close(ours.double(), expected, atol=atol, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=4 * atol, rtol=0)


@pytest.mark.parametrize("plain", [True, False], ids=["plain products", "fused kernel"])
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)], ids=str)
@pytest.mark.parametrize("window", [None, 4])
def test_all_queries(rectangles, monkeypatch, plain, dtype, atol, window):
    monkeypatch.setattr(attention, "_plain_products_serve", lambda *_: plain)
    rows, layout = qkv(dtype), Layout(LENGTHS)
    ours = attend(*rows, layout, layout, scale=E**-0.5, window=window)
    assert_same(rows, ours, reference(rows, window), atol)


@pytest.mark.parametrize("plain", [True, False], ids=["plain products", "fused kernel"])
def test_some_queries(rectangles, monkeypatch, plain):
    """The segment of 20 tokens has no query at all."""
    monkeypatch.setattr(attention, "_plain_products_serve", lambda *_: plain)
    rows, layout = qkv(), Layout(LENGTHS)
    ours = attend(rows[0][WANTED], rows[1], rows[2], layout.select(WANTED), layout, scale=E**-0.5)
    assert_same(rows, ours, reference(rows)[WANTED], 1e-5)


def test_rows_behind_the_last_segment_are_dead(rectangles):
    rows, layout = qkv(), Layout(LENGTHS)
    longer = torch.cat([rows.detach(), torch.full((3, 5, H, E), float("nan"))], dim=1)
    ours = attend(*longer, layout, layout, scale=E**-0.5)
    assert ours[-5:].eq(0).all()
    torch.testing.assert_close(ours[:-5].double(), reference(rows), atol=1e-5, rtol=0)


def test_the_variable_length_kernel_is_told_where_the_segments_lie(monkeypatch):
    """Its stand-in takes its arguments; without a GPU there is no kernel."""

    def kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and window_size == (-1, -1)
        assert max_q >= cu_seq_q.diff().max() and max_k == cu_seq_k.diff().max()
        parts = (rows.tensor_split(ends[1:-1].tolist()) for rows, ends in
                 ((query, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k)))  # fmt: skip
        products = (
            torch.einsum("hqk,khe->qhe", (torch.einsum("qhe,khe->hqk", q, k) * scale).softmax(-1), v)
            for q, k, v in zip(*parts)
        )
        return torch.cat(list(products))

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    monkeypatch.setattr(attention, "_variable_length_kernel_serves", lambda *_: True)
    rows, layout = qkv(), Layout(LENGTHS)
    assert_same(rows, attend(*rows, layout, layout, scale=E**-0.5), reference(rows), 1e-5)
    ours = attend(rows[0][WANTED], rows[1], rows[2], layout.select(WANTED), layout, scale=E**-0.5)
    assert_same(rows, ours, reference(rows)[WANTED], 1e-5)


def test_a_kernel_without_our_keywords_counts_as_none():
    def kernel_of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None): ...

    def kernel_without_a_window(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None): ...

    def kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)): ...

    assert usable_kernel(None) is usable_kernel(kernel_of_torch_2_10) is usable_kernel(kernel_without_a_window) is None
    assert usable_kernel(kernel) is kernel


def test_the_installed_kernel_takes_our_call():
    """Its own signature, bound as ``attend`` calls it; torch before 2.11 may lack some of it."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    if attention.varlen_attn is None:
        assert tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11)
        return
    assert attention.varlen_attn is varlen.varlen_attn
    inspect.signature(varlen.varlen_attn).bind(*"qkv", "q ends", "k ends", 9, 9, scale=1.0, window_size=(-1, -1))


@pytest.mark.parametrize("plain", [True, False], ids=["plain products", "fused kernel"])
def test_dropped_attention_weights_keep_their_mean(monkeypatch, plain):
    if not plain:  # the way of a GPU; a CPU's fused kernel is passed by when there is dropout
        monkeypatch.setattr(attention, "_plain_products_serve", lambda *_: False)
    torch.manual_seed(0)
    rows, layout = qkv().detach(), Layout(LENGTHS)
    draws = torch.stack([attend(*rows, layout, layout, scale=E**-0.5, dropout_probability=0.3) for _ in range(400)])
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws.mean(0).double(), reference(rows), atol=0.35, rtol=0)
    assert (draws.mean(0).double() - reference(rows)).square().mean().sqrt() < 0.04


def test_the_plain_products_are_for_short_segments_in_bfloat16_or_with_dropout():
    serves = attention._plain_products_serve
    short, half = attention.MAX_EXPLICIT_WIDTH, torch.zeros(1, dtype=torch.bfloat16)
    assert serves(half, short, 0.0) and not serves(half, short + 1, 0.0)
    assert not serves(half.float(), short, 0.0) and serves(half.float(), short + 1, 0.1)
