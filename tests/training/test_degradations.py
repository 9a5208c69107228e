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
    assert (first - clean)[[0, 2]].abs().mean((1, 2, 3)).min() > 0.002


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
