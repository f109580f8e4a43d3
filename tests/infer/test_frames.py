"""Low-resolution logits come to full size as torch interpolates them, in whole and in part."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from samaritan.infer.frames import reduce, upsample


@pytest.mark.parametrize(
    ("low", "size"),
    [((5, 4), (20, 12)), ((3, 4, 5), (12, 16, 10)), ((4, 4), (4, 4)), ((1, 3), (7, 9))],
)
def test_upsampling_is_that_of_torch(low: tuple[int, ...], size: tuple[int, ...]) -> None:
    logits = torch.randn(low, generator=torch.Generator().manual_seed(0))
    mode = "bilinear" if len(low) == 2 else "trilinear"
    whole = F.interpolate(logits[None, None], size=size, mode=mode, align_corners=False)[0, 0]
    assert torch.allclose(upsample(logits, size), whole, atol=1e-6)
    thick = tuple(slice(n // 3, n - 1) for n in size)
    face = (slice(size[0] - 2, size[0] - 1), *(slice(0, (n + 1) // 2) for n in size[1:]))
    for part in (thick, face):
        assert torch.allclose(upsample(logits, size, part), whole[part], atol=1e-6)


def test_reducing_averages() -> None:
    values = torch.arange(24.0).reshape(4, 6)
    assert torch.equal(reduce(values, (2, 3))[0, 0], values[:2, :2].mean())
