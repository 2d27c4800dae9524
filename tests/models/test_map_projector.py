"""The projector in front of a classifier that reads another network's last map."""

import pytest
import torch

from headshare_hf.models.map_projector import MapProjector


def test_projector_is_a_bottleneck():
    projector = MapProjector(in_channels=6, out_channels=8, reduction=4)
    found = projector(torch.randn(2, 6, 5, 5))
    assert found.shape == (2, 8, 5, 5) and found.min() >= 0
    weights = [tuple(each.weight.shape) for each in projector.modules() if isinstance(each, torch.nn.Conv2d)]
    assert weights == [(2, 6, 1, 1), (2, 2, 3, 3), (8, 2, 1, 1)]
    # Convolutions without bias, and two numbers a channel for each normalisation.
    assert sum(p.numel() for p in projector.parameters()) == 12 + 36 + 16 + 2 * (2 + 2 + 8)


def test_a_larger_map_is_averaged_down_to_the_size_of_the_teacher_first():
    maps = torch.randn(2, 6, 8, 8)
    projector = MapProjector(6, 8, size=(4, 4)).eval()
    pooled = torch.nn.functional.avg_pool2d(maps, 2)
    torch.testing.assert_close(projector(maps), projector.layers(pooled))
    assert projector(maps[:, :, :3]).shape == (2, 8, 3, 4)


@pytest.mark.parametrize("reduction", [0, 9])
def test_a_reduction_that_leaves_no_channel_is_refused(reduction):
    with pytest.raises(ValueError, match=f"`reduction` is {reduction}; it must be between 1 and `out_channels`, 8"):
        MapProjector(6, 8, reduction)
