"""The version of the simulation: other pixels, labels or parameters need another number.

`python tests/data/test_catalogue.py` writes the stored lenses anew; that belongs to
a raised `catalogue.SIMULATION_VERSION`, and to nothing else.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from lensjax import prng
from lensjax.data import catalogue, parameters, raytracing, simulator
from lensjax.data.catalogue import SIMULATED_SETS, SimulatedSet

pytestmark = pytest.mark.usefixtures("quick_compiles")
STORED = pathlib.Path(__file__).resolve().parent / "stored" / "simulation_version.npz"
# Every sixth pixel along both axes, and the image's flux, which no changed pixel escapes.
STRIDE = 6
# Of the image's peak and of its flux; another processor or compiler rounds by a few 1e-6. Shot
# noise is a Poisson draw in Model I: a count more or less where a rounding tips it.
TOLERANCE = 3e-5


class Lenses(NamedTuple):
    """Some lenses of one class in one set: pixels `[N, h, w]`, flux `[N]`, parameters `[N, P]`."""

    pixels: np.ndarray
    flux: np.ndarray
    vectors: np.ndarray


# 30 lenses. Noise does not depend on the class, and without sub-structure nothing is conserved.
PLAIN = [f"deeplense/{model}" for model in ("model_i", "model_ii", "model_iii")]
CASES = [
    *((name, class_name, 2) for name in PLAIN for class_name in simulator.CLASS_NAMES),
    *((f"{name}_noisy", "cdm", 2) for name in PLAIN),
    *(("deeplense/model_ii_conserved", class_name, 3) for class_name in ("axion", "cdm")),
]


def rendered(name: str, class_name: str, num: int) -> Lenses:
    """Renders the first lenses of a class in the training split of a set."""
    source = SIMULATED_SETS[name]
    label = simulator.CLASS_NAMES.index(class_name)
    base = prng.key(0, f"deeplense/{source.survey.name}", catalogue.SPLIT_INDEX["train"], label)
    # The body of the jitted function, so that a smaller chunk is compiled here and nowhere else.
    body: Any = parameters.simulate_chunk
    simulate = functools.partial(body.__wrapped__, source=source, class_name=class_name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "CHUNK", num)
        images, vectors = map(np.asarray, jax.jit(simulate)(base, 0))
    return Lenses(images[:, ::STRIDE, ::STRIDE], images.sum(axis=(1, 2)), vectors)


def differences(name: str, found: Lenses, stored: Lenses) -> list[str]:
    """Returns which parts of some lenses differ by more than rounding."""
    peak = stored.pixels.max(axis=(1, 2), keepdims=True)
    counts = 1.0 if name == "deeplense/model_i_noisy" else 0.0  # a Poisson draw may tip by one
    same = {
        "pixels": np.abs(found.pixels - stored.pixels) <= TOLERANCE * peak + counts,
        "flux": np.abs(found.flux / stored.flux - 1) <= TOLERANCE,
        "parameters": np.isclose(
            found.vectors, stored.vectors, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
        ),
    }
    return [part for part, agree in same.items() if not agree.all()]


def stored_lenses(name: str, class_name: str) -> Lenses:
    with np.load(STORED) as content:
        return Lenses(*(content[f"{name}/{class_name}/{part}"] for part in Lenses._fields))


def test_the_stored_lenses_are_of_this_version():
    assert sum(num for _, _, num in CASES) == 30
    with np.load(STORED) as content:
        assert int(content["version"]) == catalogue.SIMULATION_VERSION, (
            "SIMULATION_VERSION was raised: write the stored lenses anew, see the top of this file"
        )


# Every set, class and kind of noise; `test_simulator.py` has each model with each class.
NIGHTLY = {
    *(("deeplense/model_i", name) for name in ("cdm", "no_sub")),
    *(("deeplense/model_iii", name) for name in ("axion", "no_sub")),
    ("deeplense/model_iii_noisy", "cdm"),
    ("deeplense/model_ii_conserved", "cdm"),
}


@pytest.mark.parametrize(
    ("name", "class_name", "num"),
    [pytest.param(*case, marks=[pytest.mark.nightly] * (case[:2] in NIGHTLY)) for case in CASES],
)
def test_the_same_version_makes_the_same_lenses(name, class_name, num):
    found = rendered(name, class_name, num)
    assert differences(name, found, stored_lenses(name, class_name)) == [], (
        "the simulator makes other lenses than SIMULATION_VERSION stands for: raise it, so that "
        "sets on disk are known to be stale, or restore what changed"
    )


@pytest.mark.parametrize(
    ("owner", "constant", "value", "part"),
    [
        pytest.param(simulator, "LENS_E1", 0.1002, "pixels", marks=pytest.mark.nightly),
        (simulator, "SOURCE_POSITION_LIMIT", 0.3501, "parameters"),
        pytest.param(raytracing, "_CORE", 1e-3, "pixels", marks=pytest.mark.nightly),
        (raytracing, "SIGMA_PER_FWHM", raytracing.SIGMA_PER_FWHM * 1.001, "pixels"),
    ],
)
def test_a_changed_constant_is_noticed(monkeypatch, owner, constant, value, part):
    monkeypatch.setattr(owner, constant, value)
    raytracing._image_matrix.cache_clear()
    jax.clear_caches()
    try:
        found = rendered("deeplense/model_ii", "no_sub", 2)
    finally:
        raytracing._image_matrix.cache_clear()
        jax.clear_caches()
    assert part in differences(
        "deeplense/model_ii", found, stored_lenses("deeplense/model_ii", "no_sub")
    )


def test_fingerprints_are_those_on_the_disks_of_users():
    """A new field of a survey or a set must not change them; a new constant must."""
    assert {name.partition("/")[2]: one.fingerprint for name, one in SIMULATED_SETS.items()} == {
        "model_i": "simulation-1-ce342d06f478",
        "model_ii": "simulation-1-0980f8acd34b",
        "model_iii": "simulation-1-4df9f7d85192",
        "model_i_noisy": "simulation-1-f14ac631111e",
        "model_ii_noisy": "simulation-1-cb3d73285d6b",
        "model_iii_noisy": "simulation-1-d7651c9ac6a5",
        "model_ii_conserved": "simulation-1-268bc8b1274d",
        "model_i_mini": "simulation-1-89adec3ea562",
        "model_ii_mini": "simulation-1-d5571d6f8927",
        "model_iii_mini": "simulation-1-b41e4e2e0615",
        "model_i_noisy_mini": "simulation-1-d5dd859c4d0c",
        "model_ii_noisy_mini": "simulation-1-06420218d7b8",
        "model_iii_noisy_mini": "simulation-1-80f690446487",
        "model_ii_conserved_mini": "simulation-1-e0f0c41a6922",
    }


def test_a_set_carries_its_own_counts_and_constants(monkeypatch):
    fingerprints = {one.fingerprint for one in SIMULATED_SETS.values()}
    assert len(fingerprints) == len(SIMULATED_SETS)
    before = SIMULATED_SETS["deeplense/model_ii_mini"].fingerprint
    full = SIMULATED_SETS["deeplense/model_ii"].fingerprint
    monkeypatch.setitem(catalogue.IMAGES_PER_CLASS, "mini", {"train": 7, "test": 2})
    assert SIMULATED_SETS["deeplense/model_ii_mini"].fingerprint != before
    assert SIMULATED_SETS["deeplense/model_ii"].fingerprint == full


def test_hashes_of_0_1_0_stand_for_version_1_alone(monkeypatch):
    source: SimulatedSet = SIMULATED_SETS["deeplense/model_iii"]
    of_set, of_part = "c5b6bc2a447c337f", "5498de9c2e6a5043"
    for written, same in ((of_set, True), (of_part, True), ("0123abcd", False), ("", False)):
        assert catalogue.is_same_content(written, source.fingerprint) is same
    assert catalogue.is_same_content(source.fingerprint, source.fingerprint)
    other = SIMULATED_SETS["deeplense/model_ii"].fingerprint
    assert not catalogue.is_same_content(other, source.fingerprint)
    assert not catalogue.is_same_content(of_set, "fingerprint of a folder")
    monkeypatch.setattr(catalogue, "SIMULATION_VERSION", 2)
    assert not catalogue.is_same_content(of_set, source.fingerprint)


def write_stored_lenses() -> None:
    arrays: dict[str, Any] = {"version": np.asarray(catalogue.SIMULATION_VERSION)}
    for name, class_name, num in CASES:
        lenses = rendered(name, class_name, num)
        arrays |= {f"{name}/{class_name}/{part}": v for part, v in lenses._asdict().items()}
    np.savez_compressed(STORED, **arrays)


if __name__ == "__main__":
    write_stored_lenses()
