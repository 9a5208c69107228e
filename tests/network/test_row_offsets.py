"""Row offsets: of a patch's layout, nothing before training, and a pattern that a short training finds."""

import torch

from cled_edge.network.blocks import patches_from_images
from cled_edge.network.row_offsets import RowOffsets
from training.fit_rows import loss_of, patterned


def scenes(seed: int, count: int = 8) -> torch.Tensor:
    """Return images with a horizon each, (N, 3, 64, 64) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    horizon = torch.randint(16, 48, (count, 1, 1, 1), generator=generator)
    rows = torch.arange(64)[None, None, :, None]
    grey = 0.5 * (rows > horizon).float() - 0.2 + 0.02 * torch.randn(count, 1, 64, 64, generator=generator)
    return grey.expand(-1, 3, -1, -1)


def test_before_training_nothing_is_taken_off() -> None:
    offsets = RowOffsets(4)(patches_from_images(scenes(0) + 1, 4))
    assert offsets.shape == (8, 48, 16, 1)
    assert offsets.abs().max() == 0


def test_an_offset_is_that_of_a_row_of_pixels_in_all_columns_and_colours() -> None:
    net = RowOffsets(4)
    torch.nn.init.normal_(net.tell.weight)
    light = patches_from_images(scenes(0) + 1, 4)
    with torch.no_grad():
        told, spread = net.told(light), net(light)
    wanted = told.reshape(8, 1, 64, 1).expand(-1, 3, -1, 4)
    torch.testing.assert_close(spread, patches_from_images(wanted, 4))


def test_a_short_training_tells_a_pattern_from_a_horizon() -> None:
    torch.manual_seed(0)
    net = RowOffsets(4)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for iteration in range(150):
        loss = loss_of(net, patterned(scenes(iteration), torch.Generator().manual_seed(iteration)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_patterns_are_added_to_infrared_more_often_and_their_offsets_are_told() -> None:
    images = scenes(0, 400)
    made = patterned(images, torch.Generator().manual_seed(1))
    has = made.offsets.abs().amax(dim=(1, 2, 3)) > 0
    assert 0.45 < float(has[::2].float().mean()) < 0.75
    assert 0.01 < float(has[1::2].float().mean()) < 0.2
    inside = (images + made.offsets).abs() < 0.99
    torch.testing.assert_close(made.images[inside], (images + made.offsets)[inside], atol=0.5 / 127.5, rtol=0)
