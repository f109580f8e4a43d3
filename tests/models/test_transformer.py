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
