import torch

from samaritan.models.layers import ChannelNorm, PatchEmbed


def test_channel_norm_normalises_each_position_by_itself(randn):
    norm, x = ChannelNorm(6), randn(2, 6, 3, 4, 5)
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / torch.sqrt(var + 1e-6)
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


def test_channel_norm_scales_by_channel(randn):
    norm, x = ChannelNorm(3), randn(1, 3, 4)
    plain = norm(x)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2, 3]))
        norm.bias.copy_(torch.tensor([0.0, 0, 5]))
    expected = plain * torch.tensor([1.0, 2, 3])[:, None] + torch.tensor([0.0, 0, 5])[:, None]
    torch.testing.assert_close(norm(x), expected)


def test_patches_stand_on_their_grid(randn):
    embed, x = PatchEmbed(2, 5, (4, 8)), randn(1, 2, 12, 16)
    tokens = embed(x)
    assert tokens.shape == (1, 3, 2, 5)
    alone = embed(x[:, :, 4:8, 8:16])
    torch.testing.assert_close(tokens[:, 1:2, 1:2], alone)
