from itertools import product

import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.models import Quirks, attending
from samaritan.models.attention import Attention


@pytest.fixture(autouse=True, params=["in pieces", "in the product", "with a mask"])
def way(request, monkeypatch):
    """Attend as processors do, as other devices do, and as those do with many terms."""
    if request.param != "in pieces":
        monkeypatch.setattr(attending, "in_pieces", lambda x: False)
    if request.param == "with a mask":
        monkeypatch.setattr(attending, "_WIDEST", 0)
    return request.param


@pytest.fixture
def make(generator):
    def make_attention(grid, **options):
        module = Attention(12, 2, grid, **options)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
        return module

    return make_attention


def textbook(module, x, window, *, padded=False, scrambled=False):
    """Attention of one image by loops over windows, heads, queries and keys."""
    grid, heads = x.shape[1:-1], module.heads
    tables = [getattr(module, name) for name in module.table_names]
    qkv = module.qkv(x)[0].unflatten(-1, (3, heads, -1))
    bias = module.qkv(torch.zeros(x.shape[-1])).unflatten(-1, (3, heads, -1))
    merged = torch.empty(*grid, heads, qkv.shape[-1])
    cells = list(product(*map(range, grid)))
    for cell, head in product(cells, range(heads)):
        start = [i // w * w for i, w in zip(cell, window, strict=True)]
        own = tuple(i - s for i, s in zip(cell, start, strict=True))

        def at(place, which, start=start, head=head):
            index = tuple(s + i for s, i in zip(start, place, strict=True))
            return qkv[(*index, which, head)] if index in cells else bias[which, head]

        offset = lambda a, i, j, tables=tables: tables[a][i - j + len(tables[a]) // 2]  # noqa: E731
        logits, values = [], []
        for key in product(*map(range, window)):
            inside = tuple(s + i for s, i in zip(start, key, strict=True)) in cells
            if not (inside or padded):
                continue
            q = at(own, 0)
            logit = (q @ at(key, 1)) * len(q) ** -0.5
            if scrambled:
                (x_, y, _), (kx, ky, kz) = own, key
                logit = logit + q @ offset(0, x_, kz)
                logit = logit + at((x_, y, kx), 0) @ offset(1, y, kz)
                logit = logit + at((x_, y, ky), 0) @ offset(2, ky, kz)
            else:
                for a, (i, j) in enumerate(zip(own, key, strict=True)):
                    logit = logit + q @ offset(a, i, j)
            logits.append(logit)
            values.append(at(key, 2))
        merged[(*cell, head)] = torch.stack(logits).softmax(0) @ torch.stack(values)
    return module.proj(merged.flatten(-2))[None]


@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 4)])
def test_global_attention_is_the_textbook_formula(grid, make, randn, no_grad):
    module, x = make(grid), randn(1, *grid, 12)
    torch.testing.assert_close(module(x), textbook(module, x, grid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("grid", "window"), [((5, 3), 2), ((2, 5), 3), ((2, 4, 3), 3)])
def test_windowed_attention_is_the_textbook_formula(grid, window, padded, make, randn, no_grad):
    module = make(grid, window=window, quirks=Quirks(window_padding=padded))
    x = randn(1, *grid, 12)
    expected = textbook(module, x, (window,) * len(grid), padded=padded)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3, 4])
def test_scrambled_bias_is_the_six_loops(window, make, randn, no_grad):
    grid, quirks = (3, 3, 3), Quirks(rel_pos_axes=True, window_padding=True)
    module, x = make(grid, window=window, quirks=quirks), randn(1, *grid, 12)
    size = (window or 3,) * 3
    expected = textbook(module, x, size, padded=True, scrambled=True)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    assert (module(x) - textbook(module, x, size, padded=True)).abs().max() > 0.01


def test_scrambled_bias_needs_a_cube(make, randn):
    module = make((3, 3, 2), quirks=Quirks(rel_pos_axes=True))
    with pytest.raises(ConfigError, match=r"need cubic windows and token grids, not \(3, 3, 2\)"):
        module(randn(1, 3, 3, 2, 12))
    windowed = make((4, 3, 2), window=4, quirks=Quirks(rel_pos_axes=True, window_padding=True))
    assert windowed(randn(1, 4, 3, 2, 12)).shape == (1, 4, 3, 2, 12)


def test_padding_takes_part_only_with_the_quirk(make, randn, no_grad):
    module, x = make((4, 4), window=3), randn(1, 4, 4, 12)
    plain = module(x)
    module.quirks = Quirks(window_padding=True)
    padded = module(x)
    assert torch.allclose(plain[:, :3, :3], padded[:, :3, :3], atol=1e-6)
    assert (plain - padded)[:, 3].abs().max() > 0.01


@pytest.mark.parametrize("quirks", [Quirks(), Quirks(rel_pos_axes=True, window_padding=True)])
@pytest.mark.parametrize("window", [None, 3])
def test_chunks_of_queries_change_nothing(window, quirks, make, randn, no_grad, monkeypatch):
    module, x = make((4, 4, 4), window=window, quirks=quirks), randn(2, 4, 4, 4, 12)
    whole = module(x)
    monkeypatch.setattr(attending, "_MOST_ELEMENTS", 1)
    torch.testing.assert_close(module(x), whole, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_textbook_formula(make, randn):
    module, x = make((3, 4), window=3, quirks=Quirks(window_padding=True)), randn(1, 3, 4, 12)
    target = randn(1, 3, 4, 12)
    ours = torch.autograd.grad((module(x) * target).sum(), list(module.parameters()))
    expected = torch.autograd.grad(
        (textbook(module, x, (3, 3), padded=True) * target).sum(), list(module.parameters())
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_table_of_another_length_is_interpolated(make, randn, no_grad):
    module, x = make((3, 4)), randn(1, 6, 4, 12)
    on_the_fly = module(x)
    module.resize((6, 4))
    assert module.rel_pos_h.shape == (11, 6)
    torch.testing.assert_close(module(x), on_the_fly, rtol=1e-5, atol=1e-6)


def test_attention_runs_in_double_precision(make, randn, no_grad):
    module, x = make((3, 4), window=3, quirks=Quirks(window_padding=True)), randn(1, 3, 4, 12)
    single = module(x)
    torch.testing.assert_close(module.double()(x.double()).float(), single, rtol=1e-4, atol=1e-5)
