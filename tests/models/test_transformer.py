import copy

import pytest
import torch
import torch.nn.functional as F

from samaritan.models.transformer import TokenAttention, TwoWayTransformer


def test_token_attention_is_the_textbook_formula(randn, no_grad):
    module, q, k, v = TokenAttention(8, 4, 2), randn(2, 3, 8), randn(2, 5, 8), randn(2, 5, 8)
    heads = []
    for head in (slice(0, 2), slice(2, 4)):
        logits = module.q_proj(q)[..., head] @ module.k_proj(k)[..., head].mT / 2**0.5
        heads.append(logits.softmax(-1) @ module.v_proj(v)[..., head])
    expected = module.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(module(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_first_self_attention_replaces_the_tokens(randn, no_grad):
    first, second = TwoWayTransformer(2, 8, 2, 16).layers
    image, pe, tokens = randn(1, 6, 8), randn(1, 6, 8), randn(1, 3, 8)
    for layer in (first, second):
        layer.norm1.bias.normal_()
        layer.self_attn.out_proj.weight.zero_()
        layer.self_attn.out_proj.bias.zero_()
    seen = {}
    for layer in (first, second):
        layer.norm1.register_forward_hook(lambda m, _, out: seen.update({m: out}))
        layer(tokens, image, tokens, pe)
    assert torch.equal(seen[first.norm1], first.norm1.bias.expand(1, 3, 8))
    own = F.layer_norm(tokens, (8,), second.norm1.weight, second.norm1.bias)
    torch.testing.assert_close(seen[second.norm1], own)


def test_image_code_of_one_serves_a_batch(randn, no_grad):
    module = TwoWayTransformer(2, 8, 2, 16)
    image, pe, tokens = randn(3, 6, 8), randn(1, 6, 8), randn(3, 2, 8)
    shared = module(image, pe, tokens)
    repeated = module(image, pe.repeat(3, 1, 1), tokens)
    for a, b in zip(shared, repeated, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def plainly(module, q, k, v):
    """The textbook formula of `TokenAttention`."""
    parts = zip((module.q_proj, module.k_proj, module.v_proj), (q, k, v), strict=True)
    q, k, v = (
        F.linear(x, p.weight, p.bias).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        for p, x in parts
    )
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    out = (weights @ v).transpose(1, 2).flatten(2)
    return F.linear(out, module.out_proj.weight, module.out_proj.bias)


@pytest.mark.parametrize("queries", [3, 50])
@pytest.mark.parametrize("keys", [5, 40])
@pytest.mark.parametrize("batches", [(2, 2), (1, 4), (4, 1), (1, 1)])
def test_few_tokens_attend_as_many_do(randn, queries, keys, batches):
    module = TokenAttention(24, 16, 2)  # 8 channels a head: 3 and 5 are few, 40 and 50 are not
    q, k, v = (
        randn(batches[0], queries, 24),
        randn(batches[1], keys, 24),
        randn(batches[1], keys, 24),
    )
    expected = plainly(copy.deepcopy(module).double(), q.double(), k.double(), v.double())
    assert expected.shape[0] == max(batches)
    torch.testing.assert_close(module(q, k, v).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 40), (40, 5)])
def test_gradients_of_few_tokens_are_those_of_the_formula(randn, sizes):
    module = TokenAttention(24, 16, 2)
    q, k = randn(2, sizes[0], 24).requires_grad_(), randn(2, sizes[1], 24).requires_grad_()
    inputs = [q, k, *module.parameters()]
    way_back = randn(2, sizes[0], 24)
    found = torch.autograd.grad(module(q, k, k), inputs, way_back)
    again = copy.deepcopy(module).double()
    q2, k2 = q.detach().double().requires_grad_(), k.detach().double().requires_grad_()
    expected = torch.autograd.grad(
        plainly(again, q2, k2, k2), [q2, k2, *again.parameters()], way_back.double()
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj", "out_proj"])
def test_what_stands_beside_a_projection_is_seen_by_few_tokens_too(randn, no_grad, part):
    module, q, k = TokenAttention(24, 16, 2), randn(2, 3, 24), randn(2, 40, 24)
    before, back = module(q, k, k), module(k, q, q)
    getattr(module, part).register_forward_hook(lambda m, args, out: out * 1.5)
    assert (module(q, k, k) - before).abs().max() > 1e-4
    assert (module(k, q, q) - back).abs().max() > 1e-4


@pytest.mark.parametrize("code", [1, 3])
def test_an_image_that_many_sets_share_is_as_one_for_each(randn, no_grad, code):
    module = TwoWayTransformer(2, 32, 2, 16)
    image, pe, tokens = randn(1, 60, 32), randn(code, 60, 32), randn(3, 4, 32)
    shared = module(image, pe, tokens)
    repeated = module(image.repeat(3, 1, 1), pe, tokens)
    for a, b in zip(shared, repeated, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
