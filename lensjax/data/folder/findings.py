"""What a user should look at in a folder that can be used: odd pixels and fluxes, copies, facts."""

import collections
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lensjax.data.folder.entries import Listing
from lensjax.data.folder.grouping import TABLE
from lensjax.data.folder.image import ScannedImage, Statement
from lensjax.errors import printable_name

_SHOWN = 5  # images that a line names
EXTREME = 10.0  # times the peak that three quarters of the images stay below
_SIGMAS = 10.0
_MUCH_MASKED, _MUCH_FLUX = 0.2, 0.3
_LEAST_SIGMA = 0.02  # of asinh flux: images of nearly equal flux differ by rounding alone
_NORMAL_MAD = 1.4826  # standard deviation of a normal distribution over its median deviation


def _name(image: ScannedImage, listing: Listing, alone: bool) -> str:
    file = printable_name(listing.files[image.file].path.relative_to(listing.root))
    return file if alone else f"{file} [{image.number}]"


class _Names:
    """Names images by their files, with their numbers where a file has several."""

    def __init__(self, images: Sequence[ScannedImage], listing: Listing) -> None:
        self._counts = collections.Counter(image.file for image in images)
        self._listing = listing

    def __call__(self, image: ScannedImage) -> str:
        return _name(image, self._listing, self._counts[image.file] == 1)

    def some(self, lines: Sequence[str]) -> str:
        """The first few of several, and how many more there are."""
        more = f" and {len(lines) - _SHOWN:,} more" if len(lines) > _SHOWN else ""
        return "; ".join(lines[:_SHOWN]) + more


def _peak(image: ScannedImage) -> float:
    return max(abs(image.minimum), abs(image.maximum))


def _extreme_pixels(images: Sequence[ScannedImage], names: _Names) -> Iterator[str]:
    """Pixels far above the peaks of other images."""
    limit = EXTREME * float(np.quantile([_peak(image) for image in images], 0.75))
    extreme = sorted((image for image in images if _peak(image) > limit), key=_peak, reverse=True)
    if not extreme:
        return
    lines = []
    for image in extreme:
        row, column, _ = np.unravel_index(image.brightest, image.shape)
        value = image.maximum if image.maximum >= -image.minimum else image.minimum
        lines.append(f"{names(image)} has {value:g} in row {row}, column {column}")
    yield (
        f"{len(extreme):,} images have pixels beyond {limit:.4g}, ten times the peak of usual "
        f"images: {names.some(lines)}"
    )


def _unusual_fluxes(images: Sequence[ScannedImage], names: _Names) -> Iterator[str]:
    """Images whose flux lies far from that of all others, in any channel."""
    fluxes = np.array([image.flux for image in images])  # [N, C]
    scale = np.median(np.abs(fluxes), axis=0)
    asinh = np.arcsinh(fluxes / np.where(scale > 0, scale, 1))
    centre = np.median(asinh, axis=0)
    sigma = np.maximum(_NORMAL_MAD * np.median(np.abs(asinh - centre), axis=0), _LEAST_SIGMA)
    away = np.abs(asinh - centre) / sigma
    unusual = np.flatnonzero((away > _SIGMAS).any(axis=1)).tolist()
    if not unusual:
        return
    lines = []
    for index in sorted(unusual, key=lambda index: -away[index].max()):
        channel = int(away[index].argmax())
        lines.append(
            f"{names(images[index])} has {fluxes[index, channel]:.4g}, the median is "
            f"{np.median(fluxes[:, channel]):.4g}"
        )
    yield (
        f"{len(unusual):,} images have a total flux more than {_SIGMAS:g} robust standard "
        f"deviations from the others (in asinh flux): {names.some(lines)}"
    )


def _copies(images: Sequence[ScannedImage], names: _Names) -> Iterator[str]:
    """Equal images under several names."""
    first: dict[bytes, ScannedImage] = {}
    lines = []
    for image in images:
        original = first.setdefault(image.digest, image)
        if original is not image:
            lines.append(f"{names(image)} equals {names(original)}")
    if lines:
        yield f"{len(lines):,} images are copies of others: {names.some(lines)}"


def _differing_facts(statements: Iterable[Statement]) -> Iterator[str]:
    """Facts that the set does not have because its images disagree."""
    for field, words in (
        ("pixel_scale_arcsec", "pixel scales in arcsec"),
        ("psf_fwhm_arcsec", "PSF widths in arcsec"),
        ("zero_point_mag", "zero points in mag"),
    ):
        values = {getattr(statement, field) for statement in statements}
        numbers = sorted(value for value in values if value is not None)
        spread = numbers[-1] - numbers[0] if numbers else 0.0
        if numbers and spread > 1e-6 * max(map(abs, numbers)):
            yield (
                f"the images have different {words}, {numbers[0]:g} to {numbers[-1]:g}; the set "
                "keeps none, and the network sees only the numbers of the pixels"
            )
        elif numbers and None in values:
            yield f"only some images state {words}; the set keeps none"


def _masks(images: Sequence[ScannedImage]) -> Iterator[str]:
    """Masks that leave out too much, or what matters."""
    shares = [image.masked / math.prod(image.shape) for image in images]
    fluxes = [image.masked_flux for image in images]
    share, flux = float(np.median(shares)), float(np.median(fluxes))
    if share > _MUCH_MASKED or flux > _MUCH_FLUX:
        yield (
            f"in half of the images {100 * share:.2g} % of the pixels or more are masked, and "
            f"{100 * flux:.2g} % of the light or more; flags may mark the objects themselves (then "
            "set "
            "data.mask_bits to the bits of bad pixels) or good pixels (then write =good behind the "
            "name of the plane)"
        )


def _table(listing: Listing, grouped: bool) -> Iterator[str]:
    """A table that nobody reads, which may say which images show one object."""
    if (listing.root / TABLE).is_file() and not grouped:
        yield (
            f"{TABLE} is not read; if a column of it names the object of each image, set "
            "data.group to that column"
        )


def warnings_of(
    images: Sequence[ScannedImage],
    listing: Listing,
    statements: Iterable[Statement],
    *,
    grouped: bool,
) -> tuple[str, ...]:
    """Lists what a user should look at, a line each; nothing of it is an error.

    Args:
      images: those that are taken.
      listing: their files.
      statements: what the files state about them.
      grouped: whether the user says which images show one object.
    """
    names, statements = _Names(images, listing), list(statements)
    lines = [
        *_extreme_pixels(images, names),
        *_unusual_fluxes(images, names),
        *_copies(images, names),
        *_masks(images),
        *_differing_facts(statements),
        *_table(listing, grouped),
    ]
    return tuple(lines)
