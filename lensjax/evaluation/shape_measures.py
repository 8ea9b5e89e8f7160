"""Fluxes, shapes, profiles, spectra and colours compared with real images, without a lens model.

Of images of several bands, each band is measured by itself: the names of its quantities end with
its name in brackets.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lensjax.evaluation.rows import ALL, Row, Setting
from lensjax.metrics.colours import (
    APERTURE_SHARE,
    LEAST_SOFTENING,
    measure_colours,
    softenings,
)
from lensjax.metrics.shapes import FRAME_SHARE, REGION_THRESHOLD, measure_shapes
from lensjax.metrics.spectra import power_spectra, radial_profiles
from lensjax.metrics.two_sample import (
    MIN_COUNT,
    NUM_PERMUTATIONS,
    NUM_SPLITS,
    Distance,
    compare,
    compare_vectors,
    largest_distance,
)

# Quantities that mean nothing without the images' flux.
_OF_FLUX = ("total_flux", "peak", "frame_rms")
_TINY = 1e-30


def beside_floor(distance: Distance | None, name: str) -> dict[str, float]:
    """A distance and its floor as numbers by name; {} for None."""
    if distance is None:
        return {}
    return {
        name: distance.value,
        f"{name}_floor": distance.floor_mean,
        f"{name}_floor_sd": distance.floor_std,
        f"{name}_z": distance.z,
        f"{name}_p": distance.p,
        f"{name}_limit": distance.limit,
    }


def beside_real(real: np.ndarray, values: np.ndarray, seed: int) -> dict[str, Any] | None:
    """Compares the distribution of values `[N]` with that of real values `[M]`.

    None for fewer than 20 of either, which have no floor. `z` belongs to the Wasserstein distance.
    """
    if min(len(real), len(values)) < MIN_COUNT:
        return None
    comparison = compare(real, values, seed)
    return {
        "z": comparison.wasserstein.z if comparison.wasserstein else None,
        **beside_floor(comparison.ks, "ks"),
        **beside_floor(comparison.wasserstein, "wasserstein"),
        "real_mean": comparison.real_mean,
        "real_sd": comparison.real_std,
        "mean": comparison.generated_mean,
        "sd": comparison.generated_std,
        "note": comparison.note,
    }


def vectors_beside_real(
    real: np.ndarray, values: np.ndarray, seed: int, num_permutations: int = 199
) -> dict[str, Any] | None:
    """Compares the distributions of vectors `[N, K]` and of real vectors; None for fewer than 20.

    `z` belongs to the mean Wasserstein distance of the components.
    """
    if min(len(real), len(values)) < MIN_COUNT:
        return None
    comparison = compare_vectors(real, values, seed, num_permutations=num_permutations)
    return {
        "z": comparison.mean.z,
        **beside_floor(comparison.mean, "wasserstein"),
        **beside_floor(comparison.max_z, "largest_z"),
    }


def log_spectra(images: np.ndarray) -> np.ndarray:
    """Log10 of the power spectra of images `[N, H, W]`, float64 `[N, K]`."""
    return np.log10(np.maximum(power_spectra(images).astype(np.float64), _TINY))


def real_of(real: Row, group: str) -> np.ndarray:
    """The real images that a group is compared with, `[N, H, W, C]`."""
    return real.images if group == ALL else real.of(group)


def by_band(images: np.ndarray, setting: Setting) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each band of images `[N, H, W, C]` as `[N, H, W]`, with the end of its names."""
    bands = setting.info.bands
    for number, band in enumerate(bands):
        yield f" ({band})" if len(bands) > 1 else "", images[..., number]


def _quantities_of_band(images: np.ndarray, setting: Setting) -> Mapping[str, np.ndarray]:
    scale = setting.info.pixel_scale_arcsec or 1.0
    measured = measure_shapes(images, scale)
    skipped = () if setting.in_flux else _OF_FLUX
    return {
        **{name: values for name, values in measured.items() if name not in skipped},
        "radial_profile": radial_profiles(images, scale)[1],
        "power_spectrum": log_spectra(images),
    }


def colours_of(
    images: np.ndarray, originals: np.ndarray, setting: Setting
) -> dict[str, np.ndarray]:
    """The colours of images by name, `[N]` each; {} for one band or where flux has lost its zero.

    Args:
      images: `[N, H, W, C]`.
      originals: the real images that they are compared with.
      setting: shared by all rows.
    """
    if images.shape[-1] < 2 or setting.settings.image_scale == "minmax":
        return {}
    bands, values = setting.info.bands, measure_colours(images, softenings(originals))
    return {
        f"colour ({bands[number]} - {bands[number + 1]})": column
        for number, column in enumerate(values.T)
    }


def _quantities(
    images: np.ndarray, originals: np.ndarray, setting: Setting
) -> Mapping[str, np.ndarray]:
    quantities = {
        f"{name}{end}": values
        for end, plane in by_band(images, setting)
        for name, values in _quantities_of_band(plane, setting).items()
    }
    return quantities | colours_of(images, originals, setting)


def shapes(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """For each group and quantity, its distribution compared with that of real images.

    `largest` is the test of all quantities of a group together; a group with too few images has
    none of them.
    """
    comparisons: dict[str, Any] = {}
    seed = setting.settings.seed
    for group in row.groups:
        images, originals = row.of(group), real_of(real, group)
        comparisons[group] = {}
        if min(len(images), len(originals)) < MIN_COUNT:
            continue
        theirs, ours = (_quantities(one, originals, setting) for one in (originals, images))
        for name, values in ours.items():
            compare_fn = vectors_beside_real if values.ndim == 2 else beside_real
            comparisons[group][name] = compare_fn(theirs[name], values, seed)
        comparisons[group]["largest"] = largest_distance(theirs, ours, seed)._asdict()
    return comparisons


def protocol(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `shapes` depend on."""
    unit = "arcsec" if setting.info.pixel_scale_arcsec else "pixels"
    of_colours = {
        "bands": list(setting.info.bands),
        "colour": "difference of asinh magnitudes (Lupton et al. 1999) of neighbouring bands in a "
        f"circle of {APERTURE_SHARE:g} of the shorter side; softening: noise of that flux in real "
        f"images, at least {LEAST_SOFTENING:g} of its median",
    }
    return {
        "before_any_8_bit_map": True,
        "flux": setting.info.flux_unit if setting.in_flux else "not tested",
        "lengths": unit,
        "region": f"3x3 means above {REGION_THRESHOLD:g} of their peak",
        "frame": f"outer {FRAME_SHARE:g} of the side",
        "floor": f"{NUM_SPLITS} disjoint random parts of the real images, scaled to the sizes",
        "p": f"{NUM_PERMUTATIONS} permutations of the pooled sample",
        "z": "(Wasserstein distance - floor mean) / floor s.d.",
        "largest": "the quantity whose distance is the largest in s.d. of permuted ones; p: share "
        "of the permutations with so large a one",
        **(of_colours if len(setting.info.bands) > 1 else {}),
    }
