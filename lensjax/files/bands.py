"""Bands of one object as the channels of one image."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.file_image import FileImage

_MAX_OFFSET_PIXELS = 0.1  # between the world coordinates of bands


def band_names(patterns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names of bands: as the user wrote them, or the plane's own where that is a pattern."""
    return tuple(
        name if name and (pattern.isdecimal() or set(pattern) & set("*?[")) else pattern
        for pattern, name in zip(patterns, names, strict=True)
    )


def offset_pixels(first: Any, other: Any, shape: tuple[int, int]) -> float:
    """The largest distance in pixels between two world coordinate systems over an image.

    Args:
      first: astropy's celestial WCS.
      other: another.
      shape: `(H, W)`.
    """
    height, width = shape
    x, y = np.array([0, 0, width - 1, width - 1]), np.array([0, height - 1, 0, height - 1])
    there = other.wcs_world2pix(*first.wcs_pix2world(x, y, 0), 0)
    distance = np.hypot(there[0] - x, there[1] - y)
    return float(np.max(np.where(np.isfinite(distance), distance, np.inf)))


def _check_bands(images: Sequence[FileImage], names: Sequence[str]) -> None:
    """Checks that images of one object can be channels of one image."""
    first = images[0]
    for image, name in zip(images, names, strict=True):
        if image.pixels.shape[-1] != 1:
            raise UnusableError(
                f"has {image.pixels.shape[-1]} channels in band {name}; allowed with "
                "data.bands=channels: one"
            )
        if image.pixels.shape != first.pixels.shape:
            raise UnusableError(
                f"has {'x'.join(map(str, image.pixels.shape[:2]))} pixels in band {name}, but "
                f"{'x'.join(map(str, first.pixels.shape[:2]))} in band {names[0]}; resample them "
                "to one grid"
            )
        if first.wcs is not None and image.wcs is not None:
            offset = offset_pixels(first.wcs, image.wcs, first.pixels.shape[:2])
            if not offset <= _MAX_OFFSET_PIXELS:
                raise UnusableError(
                    f"shows another place of the sky in band {name} than in band {names[0]}: "
                    f"{offset:.3g} pixels apart by their WCS (allowed: {_MAX_OFFSET_PIXELS}); "
                    "resample them to one grid"
                )
        for what in ("class_name", "flux_unit"):
            if getattr(image, what) != getattr(first, what):
                raise UnusableError(
                    f"has the {what.replace('_', ' ')} {getattr(image, what) or 'none'} in band "
                    f"{name}, but {getattr(first, what) or 'none'} in band {names[0]}"
                )
        if (image.variance is None) != (first.variance is None):
            raise UnusableError(f"has a variance in only one of the bands {names[0]} and {name}")


def _common(values: Iterable[float | None]) -> float | None:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _parameters(images: Sequence[FileImage], names: Sequence[str]) -> Mapping[str, float]:
    """Parameters that all bands share under their own names, others with the band's name."""
    merged: dict[str, float] = {}
    for parameter in sorted(set().union(*(image.parameters for image in images))):
        values = [image.parameters.get(parameter) for image in images]
        if len(set(values)) == 1 and values[0] is not None:
            merged[parameter] = values[0]
            continue
        for name, value in zip(names, values, strict=True):
            if value is not None:
                merged[f"{parameter}_{name}"] = value
    return merged


def _joined(arrays: Sequence[np.ndarray | None], missing: np.ndarray) -> np.ndarray | None:
    if all(array is None for array in arrays):
        return None
    return np.concatenate([missing if array is None else array for array in arrays], axis=-1)


def as_channels(images: Sequence[FileImage], names: Sequence[str]) -> FileImage:
    """Makes one image of several bands of an object.

    Args:
      images: of one channel each, in the order of the channels.
      names: of the bands.

    Raises:
      UnusableError: for images of different size, place on the sky (by more than a tenth of a
        pixel), unit or class.
    """
    _check_bands(images, names)
    first = images[0]
    return dataclasses.replace(
        first,
        pixels=np.concatenate([image.pixels for image in images], axis=-1),
        variance=_joined([image.variance for image in images], first.pixels),
        mask=_joined([image.mask for image in images], np.zeros(first.pixels.shape, bool)),
        parameters=_parameters(images, names),
        pixel_scale_arcsec=_common(image.pixel_scale_arcsec for image in images)
        if not any(image.wcs for image in images)
        else first.pixel_scale_arcsec,
        psf_fwhm_arcsec=_common(image.psf_fwhm_arcsec for image in images),
        integer=all(image.integer for image in images),
        band_names=tuple(names),
        plane="+".join(names),
        companions=tuple(name for image in images for name in image.companions),
    )
