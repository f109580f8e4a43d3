import pytest
import torch

from samaritan.models import windows


@pytest.mark.parametrize(
    ("grid", "window"),
    [((7, 5), (3, 3)), ((4, 5, 3), (2, 3, 4)), ((6, 6), (3, 3)), ((2, 9), (4, 4))],
)
def test_regions_cover_every_token_once(grid, window):
    seen = torch.zeros(grid)
    for place, size in windows.regions(grid, window):
        seen[place] += 1
        assert all((p.stop - p.start) % s == 0 for p, s in zip(place, size, strict=True))
    assert (seen == 1).all()


@pytest.mark.parametrize(("grid", "size"), [((6, 4), (3, 2)), ((4, 6, 2), (2, 3, 1))])
def test_join_undoes_cut(grid, size, randn):
    heads, channels = 2, 5
    qkv = randn(3, *grid, 3 * heads * channels)
    for i, part in enumerate(windows.cut(qkv, size, heads)):
        expected = qkv.unflatten(-1, (3, heads * channels))[..., i, :]
        assert torch.equal(windows.join(part, (3, *grid)), expected)


def test_windows_hold_neighbours():
    tokens = torch.arange(4 * 6).reshape(1, 4, 6, 1).expand(1, 4, 6, 3)
    q, _, _ = windows.cut(tokens, (2, 3), heads=1)
    assert q.shape == (4, 1, 2, 3, 1)
    assert q[1, 0, :, :, 0].tolist() == [[3, 4, 5], [9, 10, 11]]


def test_fill_pads_at_the_end_with_the_value_of_each_head(randn):
    tokens, value = randn(2, 3, 2, 4, 5), randn(3, 5)
    full = windows.fill(tokens, (3, 4), value)
    assert torch.equal(full[:, :, :2], tokens)
    assert torch.equal(full[:, :, 2], value[:, None].expand(2, 3, 4, 5))
    assert windows.fill(tokens, (2, 4), value) is tokens
