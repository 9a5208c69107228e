"""Simulated degradations by their definitions."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from tests.fakes.training import seeded  # noqa: E402
from training.degradations import DEGRADATIONS, degrade, draw_kinds  # noqa: E402


@pytest.mark.parametrize(("modality", "kind"), [(m, k) for m, kinds in DEGRADATIONS.items() for k in kinds])
def test_every_degradation_changes_its_images_alone_and_repeats_by_its_seed(modality, kind: str) -> None:
    clean = 0.1 + 0.8 * torch.rand(3, 1 if modality == "infrared" else 3, 48, 64, generator=seeded())
    kinds = [(kind,), (), (kind,)]
    first, second = (degrade(clean, modality, kinds, seeded(6)) for _ in range(2))
    other = degrade(clean, modality, kinds, seeded(7))
    assert first.shape == clean.shape
    assert first.dtype == torch.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, second)
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1], clean[1])
    changed = (first - clean)[[0, 2]].abs()
    assert changed.amax((1, 2, 3)).min() > 0.05 if kind == "dead_pixels" else changed.mean((1, 2, 3)).min() > 0.002


def test_what_degradations_do() -> None:
    clean = 0.2 + 0.6 * torch.rand(16, 3, 64, 64, generator=seeded())

    def made(kind: str, x=clean, modality="visible"):
        return degrade(x, modality, [(kind,)] * len(x), seeded(1))

    assert (made("low_light").mean((1, 2, 3)) < 0.75 * clean.mean((1, 2, 3))).all()
    assert (made("overexposure").mean((1, 2, 3)) > 1.05 * clean.mean((1, 2, 3))).all()
    assert (made("blur").std((1, 2, 3)) < clean.std((1, 2, 3))).all()
    assert (made("haze").std((1, 2, 3)) < clean.std((1, 2, 3))).float().mean() > 0.9
    assert (made("rain") - 0.88 * clean).amax((1, 2, 3)).min() > 0.05
    grey = clean[:, :1]
    assert (made("low_contrast", grey, "infrared").std((1, 2, 3)) < 0.8 * grey.std((1, 2, 3))).all()
    striped = made("stripes", torch.full_like(grey, 0.5), "infrared")
    columns, noise = striped.mean(dim=2), striped.std(dim=2).mean(dim=-1)
    assert (columns.std(dim=-1) > 0.01).all()
    assert striped.std(dim=3).min() > 0.005
    assert noise.min() < 0.01  # the same in every row, but for a pixel's own noise: none to much
    assert noise.max() > 0.03


def test_blur_keeps_a_flat_image_and_its_edges() -> None:
    flat = torch.full((8, 1, 40, 40), 0.4)
    blurred = degrade(flat, "infrared", [("blur",)] * 8, seeded())
    torch.testing.assert_close(blurred, flat, atol=1e-3, rtol=0)


def test_kinds_are_drawn_in_their_shares_and_never_two_exposures() -> None:
    generator = seeded()
    drawn = [draw_kinds(list(DEGRADATIONS["visible"]), generator, clean=0.2, mixed=0.3) for _ in range(4000)]
    assert not any({"overexposure", other} <= set(names) for names in drawn for other in ("low_light", "haze"))
    counts = [len(draw_kinds(list(DEGRADATIONS["infrared"]), generator, clean=0.2, mixed=0.3)) for _ in range(4000)]
    for count, share in ((0, 0.2), (1, 0.5), (2, 0.3)):
        assert counts.count(count) / len(counts) == pytest.approx(share, abs=0.03)
    weighted = [draw_kinds(["rain", "rain", "rain", "haze", "overexposure"], generator, 0, 0.5) for _ in range(4000)]
    assert sum(len(kinds) == 2 for kinds in weighted) / 4000 == pytest.approx(0.5, abs=0.03)
    assert all(len(set(kinds)) == len(kinds) for kinds in weighted)
    assert sum(kinds[0] == "rain" for kinds in weighted) / 4000 == pytest.approx(0.6, abs=0.03)
    assert {draw_kinds(["haze", "overexposure"], generator, 0, 1) for _ in range(50)} == {("haze",), ("overexposure",)}


def test_what_thermal_cameras_do() -> None:
    clean = 0.3 + 0.3 * torch.rand(24, 1, 64, 64, generator=seeded())
    clean[:, :, 20:24, 30:34] = 0.9  # 16 of 4096 pixels are hot

    def made(kind: str, x=clean):
        return degrade(x, "infrared", [(kind,)] * len(x), seeded(2))

    flat = torch.full_like(clean, 0.5)
    lines = made("rows", flat) - flat
    torch.testing.assert_close(lines, lines[..., :1].expand_as(lines))
    assert (lines[:, 0, :, 0].std(1) > 0.005).all()
    dead = made("dead_pixels") != clean
    share = dead.float().mean((1, 2, 3))
    assert share.min() < 0.003 < share.max() < 0.03
    assert (share > 0).float().mean() > 0.8
    other = made("another_agc")
    slope = (other - other.mean((2, 3), keepdim=True)) / (clean - clean.mean((2, 3), keepdim=True))
    gains = slope.flatten(1).median(dim=1).values
    assert ((gains > 0.19) & (gains < 0.81)).all()
    hot = made("hot_target")
    target, around = hot[:, 0, 20:24, 30:34].mean((1, 2)), hot[:, 0, :16].mean((1, 2))
    pressed = hot[:, 0, :16].std((1, 2)) / clean[:, 0, :16].std((1, 2))
    assert (target - around > 0.2).all()
    assert (pressed < 0.85).all()
    smooth = made("shading", flat) - flat
    assert (smooth.diff(dim=3).abs().amax((1, 2, 3)) < 0.25 * smooth.abs().amax((1, 2, 3))).all()


def test_jpeg_costs_fine_detail_and_keeps_flat_colours() -> None:
    flat = torch.tensor([0.2, 0.5, 0.8])[None, :, None, None].expand(4, 3, 32, 32)
    torch.testing.assert_close(degrade(flat, "visible", [("jpeg",)] * 4, seeded()), flat, atol=0.02, rtol=0)
    noise = torch.rand(4, 3, 32, 32, generator=seeded())
    coded = degrade(noise, "visible", [("jpeg",)] * 4, seeded())
    assert (coded.std((1, 2, 3)) < 0.97 * noise.std((1, 2, 3))).all()
    again = degrade(noise.flip(1), "visible", [("jpeg",)] * 4, seeded())
    assert (again.flip(1) - noise).abs().mean() == pytest.approx((coded - noise).abs().mean().item(), rel=0.2)


def test_half_of_rain_is_mixed_with_the_scene_and_half_added_to_it() -> None:
    rainy = DEGRADATIONS["visible"]["rain"](torch.ones(64, 3, 48, 48), seeded(5))
    mixed = rainy.amax((1, 2, 3)) <= 1
    assert 0.3 < mixed.float().mean() < 0.7
    assert rainy[mixed].amin((1, 2, 3)).max() < 0.97  # between its streaks such a scene is dimmed
