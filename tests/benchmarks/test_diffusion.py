"""The benchmark of the diffusion's parts: rows of what a bundle was trained on, and means over seeds."""

from types import SimpleNamespace

import pytest

from benchmarks.diffusion import STEPS, rows_of, summary, variant_of
from cled_edge.errors import OptionError

GAINS = {"infrared": [1.0, 3.0], "visible": [5.0]}


def bundle(name: str, modalities: list[str] | None) -> SimpleNamespace:
    data = {} if modalities is None else {"modalities": modalities}
    training = {"recipe": {"data": data, "restore": {"iterations": 600}}}
    return SimpleNamespace(path="x", manifest=SimpleNamespace(name=name, training=training))


@pytest.mark.parametrize(("modalities", "rows"), [(None, 2), (["infrared", "visible"], 2), (["visible"], 1)])
def test_a_bundle_is_scored_by_the_modalities_that_it_was_trained_on(modalities, rows: int) -> None:
    found = rows_of(variant_of(bundle("rddm09-unshared-2", modalities)), 3, GAINS)
    assert len(found) == rows
    assert {(row["variant"], row["seed"]) for row in found} == {("rddm09-unshared", "2")}
    assert found[-1] | {"gain_db": 5.0, "images": 1, "modality": "visible"} == found[-1]
    if rows == 2:
        assert (found[0]["gain_db"], found[0]["images"]) == (2.0, 2)


def test_means_and_deviations_are_over_seeds() -> None:
    found = []
    for seed, shift in ((1, 0.0), (2, 2.0)):
        for steps in STEPS:
            gains = {name: [value + shift + steps for value in values] for name, values in GAINS.items()}
            found += rows_of(variant_of(bundle(f"diffuir-{seed}", None)), steps, gains)
    infrared, visible = summary([*reversed(found)])
    assert (infrared["modality"], visible["modality"]) == ("infrared", "visible")
    assert [infrared[f"gain_db_{steps}"] for steps in STEPS] == [4.0, 5.0, 6.0, 8.0]
    assert infrared["seeds"] == 2
    assert infrared["deviation_db_3"] == pytest.approx(1.41)
    (alone,) = summary(rows_of(variant_of(bundle("diffuir-1", ["visible"])), 3, GAINS) + [
        row for steps in (1, 2, 5) for row in rows_of(variant_of(bundle("diffuir-1", ["visible"])), steps, GAINS)
    ])  # fmt: skip
    assert alone["deviation_db_3"] is None


def test_a_bundle_that_is_no_variant_is_refused_before_anything_is_measured() -> None:
    assert variant_of(bundle("rddm09-1", None))[:2] == ("rddm09", "1")
    for name in ("nano", "rddm09-", "-1", "rddm09-unshared"):
        with pytest.raises(OptionError, match="needed VARIANT-SEED, such as rddm09-1"):
            variant_of(bundle(name, None))
    with pytest.raises(OptionError, match="export it with --name"):
        variant_of(SimpleNamespace(path="x", manifest=SimpleNamespace(name="rddm09-1", training={})))
