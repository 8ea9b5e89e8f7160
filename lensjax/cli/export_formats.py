"""Images of a split as npy, FITS or HDF5 files, with all facts about them.

Images of one band are `[H, W]` in npy and FITS files. Of several bands, npy files have
`[H, W, C]`, and FITS files an extension for each band behind an empty primary unit.

Rows run upwards in y in every format, as in `LensSplit`; FITS readers draw them so, and most others
need `origin="lower"`.
"""

import csv
import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.errors import DataError

TABLE_FILE = "parameters.csv"
FILE_FORMATS = ("npy", "fits")  # a file per image
FORMATS = (*FILE_FORMATS, "hdf5")
_HDF5_BYTES = 1 << 14  # of a file without images
_BLOCK_BYTES = 4096  # of a disk, and about what the header of a FITS unit takes
_BLOCK = 1024  # images in memory besides the split itself
# FITS's names for our units; a unit of the user's own files is written as it was read.
_FITS_UNITS = {"counts/s": "count/s", "counts": "count"}
_NO_UNITS = ("arbitrary", "unknown")
_LONGEST_EXTNAME = 60  # letters: a text in one card has 68, and some are for a number


@dataclasses.dataclass(frozen=True)
class Description:
    """The facts that hold for all images of an export.

    Attributes:
      info: the data set, or that of the network which generated the images.
      factor: by which flux was multiplied.
      seed: for generated images; None for a data set.
      weights_sha256: SHA-256 of the network that generated the images; None for a data set.
    """

    info: DatasetInfo
    factor: float
    seed: int | None = None
    weights_sha256: str | None = None

    @property
    def unit(self) -> str:
        """The unit of a pixel's value in the files."""
        return self.info.flux_unit + (f" x {self.factor:g}" if self.factor != 1 else "")

    @property
    def zero_point_mag(self) -> float | None:
        """Magnitude of the value 1 in the files."""
        zero_point = self.info.zero_point_mag
        return None if zero_point is None else zero_point + 2.5 * math.log10(self.factor)

    def facts(self) -> dict[str, Any]:
        """The facts that are known, as plain values by name."""
        values = {
            "data_set": self.info.name,
            "fingerprint": self.info.fingerprint,
            "flux_unit": self.unit,
            "scale_factor": self.factor,
            "pixel_scale_arcsec": self.info.pixel_scale_arcsec,
            "psf_fwhm_arcsec": self.info.psf_fwhm_arcsec,
            "zero_point_mag": self.zero_point_mag,
            "seed": self.seed,
            "weights_sha256": self.weights_sha256,
        }
        return {name: value for name, value in values.items() if value is not None}


# The packages of a format besides numpy; both come with the extra `files`.
PACKAGES = {"hdf5": ("h5py",), "fits": ("astropy",)}


def _class_names(split: LensSplit) -> list[str]:
    """A name for each label, that of the null label empty."""
    return [*split.info.class_names, ""]


def is_plain_name(name: str) -> bool:
    """Says whether a text, of any origin, is the name of something directly in a folder."""
    return "/" not in name and name not in ("", ".", "..")


def check_class_names(info: DatasetInfo) -> None:
    """Checks that each class can have a folder of its name.

    Raises:
      DataError: for a class that cannot.
    """
    for name in info.class_names:
        if not is_plain_name(name):
            raise DataError(f"class {name!r} cannot be the name of a folder; rename it")


def _file_names(split: LensSplit, suffix: str) -> list[str]:
    """The name of each image's file, with its class's folder where it has a class."""
    names = _class_names(split)
    return [
        (pathlib.PurePath(names[label]) / f"{index:06d}.{suffix}").as_posix()
        for index, label in enumerate(split.labels)
    ]


def scaled(images: np.ndarray, factor: float) -> np.ndarray:
    """Images times a factor, as float32."""
    return np.asarray(images, np.float32) * np.float32(factor)


def image_blocks(split: LensSplit, factor: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the first index and the images of each block; they may be mapped from a file."""
    for start in range(0, len(split), _BLOCK):
        yield start, scaled(split.images[start : start + _BLOCK], factor)


class _Planes(NamedTuple):
    """What is known about the pixels of one image, in the scale of the export.

    Attributes:
      image: float32 `[H, W, C]`.
      variance: the same; None for a set without variances.
      mask: uint8 `[H, W, C]`, 1 for pixels that are not to be used; None for a set without masks.
    """

    image: np.ndarray
    variance: np.ndarray | None
    mask: np.ndarray | None


def _planes(split: LensSplit, index: int, image: np.ndarray, factor: float) -> _Planes:
    variance = None if split.variance is None else scaled(split.variance[index], factor**2)
    mask = None if split.mask is None else split.mask[index].astype(np.uint8)
    return _Planes(image, variance, mask)


def _write_table(split: LensSplit, path: pathlib.Path, names: list[str]) -> None:
    class_names = _class_names(split)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "class_name", *split.info.parameter_names])
        for name, label, vector in zip(names, split.labels, split.parameters, strict=True):
            # str of a float32 has as many digits as it takes to read the same number again.
            cells = ["" if np.isnan(value) else str(value) for value in vector]
            writer.writerow([name, int(label), class_names[label], *cells])


def write_files(
    split: LensSplit,
    folder: pathlib.Path,
    description: Description,
    file_format: str,
    advance: Callable[[int], Any],
) -> None:
    """Writes a file per image and `parameters.csv`.

    Variances and masks are extensions of the FITS file, or `NAME_variance.npy` and `NAME_mask.npy`.

    Args:
      split: the images.
      folder: where the files and the classes' folders go.
      description: the facts that hold for all images.
      file_format: one of `FILE_FORMATS`.
      advance: called with the number of images that were written.

    Raises:
      DataError: for a class whose name cannot be a folder's.
    """
    check_class_names(split.info)
    names = _file_names(split, file_format)
    for name in {pathlib.PurePath(name).parent for name in names}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    write = _fits_writer(split, description) if file_format == "fits" else _write_npy
    for start, images in image_blocks(split, description.factor):
        for offset, image in enumerate(images):
            index = start + offset
            planes = _planes(split, index, image, description.factor)
            write(folder / names[index], planes, index)
            advance(1)
    _write_table(split, folder / TABLE_FILE, names)


def _write_npy(path: pathlib.Path, planes: _Planes, index: int) -> None:
    for name, plane in planes._asdict().items():
        if plane is not None:
            own = path if name == "image" else path.with_name(f"{path.stem}_{name}.npy")
            np.save(own, plane[..., 0] if plane.shape[-1] == 1 else plane)


def _ascii(text: str) -> str:
    """A text in the characters that FITS allows."""
    return text.encode("ascii", "backslashreplace").decode()


def _fact_cards(description: Description) -> list[Any]:
    """The header cards that all images share, without those about axes."""
    facts = description.facts()
    cards: list[Any] = [
        ("DATASET", _ascii(facts["data_set"])),
        ("DATAFP", facts["fingerprint"], "fingerprint of the data set"),
        ("FLUXFACT", facts["scale_factor"], "flux was multiplied by this"),
    ]
    unit = facts["flux_unit"]
    if unit not in _NO_UNITS and description.factor == 1:
        cards.append(("BUNIT", _ascii(_FITS_UNITS.get(unit, unit)), "flux per pixel"))
    for keyword, name, comment in (
        ("PSFFWHM", "psf_fwhm_arcsec", "[arcsec] of the point-spread function"),
        ("MAGZERO", "zero_point_mag", "magnitude of the value 1"),
        ("SEED", "seed", "of the generated images"),
        ("WSHA256", "weights_sha256", ""),  # with its 64 digits the card is full
    ):
        if name in facts:
            cards.append((keyword, facts[name], comment))
    pixel = description.info.pixel_scale_arcsec
    if pixel is not None:
        cards.append(("PIXSCALE", pixel, "[arcsec] side of a pixel"))
    return cards


def _axis_cards(info: DatasetInfo) -> list[Any]:
    """The header cards of the axes of an image; none where the side of a pixel is not known."""
    height, width = info.image_shape[:2]
    pixel = info.pixel_scale_arcsec
    cards: list[Any] = []
    # Offsets from the lens along plain axes: these lenses lie nowhere on the sky, so that a
    # projection such as RA---TAN would claim a place and a direction that they do not have.
    for axis, name, size in ((1, "x", width), (2, "y", height)) if pixel is not None else ():
        cards += [
            (f"CTYPE{axis}", "LINEAR"),
            (f"CNAME{axis}", name),
            (f"CUNIT{axis}", "arcsec"),
            (f"CRPIX{axis}", (size + 1) / 2),
            (f"CRVAL{axis}", 0.0),
            (f"CDELT{axis}", pixel),
        ]
    return cards


def extension_names(band_names: Sequence[str]) -> list[str]:
    """The FITS extension of each band: its name in letters that every reader takes.

    A name of which nothing is left becomes `BAND2` for the second band; one that readers, which
    ignore case, could not tell from an earlier one gets its number.
    """
    names: list[str] = []
    taken = {"PRIMARY"}
    for number, band in enumerate(band_names, start=1):
        name = re.sub(r"[^A-Za-z0-9.+-]+", "_", band).strip("_")[:_LONGEST_EXTNAME]
        name = name or f"BAND{number}"
        while name.upper() in taken:
            name += f"_{number}"
        taken.add(name.upper())
        names.append(name)
    return names


def _fits_writer(
    split: LensSplit, description: Description
) -> Callable[[pathlib.Path, _Planes, int], None]:
    """Makes the function that writes an image: one band as the primary image, else by extension.

    Extensions `VARIANCE` and `MASK`, or those of each band, follow.
    """
    from astropy.io import fits

    facts = [fits.Card(*card) for card in _fact_cards(description)]
    axes = [fits.Card(*card) for card in _axis_cards(description.info)]
    extensions = extension_names(split.info.band_names or [""] * split.info.image_shape[-1])
    # The zero point of the set, where there is one, is among the facts.
    shift = 2.5 * math.log10(description.factor)
    known = () if description.zero_point_mag is not None else split.info.band_zero_points_mag
    zero_points = [
        fits.Card("MAGZERO", value + shift, "magnitude of the value 1") for value in known
    ]
    names = split.info.parameter_names
    class_names = _class_names(split)
    exposure = names.index("exposure_time_s") if "exposure_time_s" in names else None

    def further(planes: _Planes, channel: int, band: str) -> Iterator[Any]:
        for name in ("variance", "mask"):
            plane = getattr(planes, name)
            if plane is not None:
                own = fits.Card("EXTNAME", "_".join(filter(None, (band, name.upper()))))
                content = np.ascontiguousarray(plane[..., channel])
                yield fits.ImageHDU(content, fits.Header([*axes, own]))

    def write(path: pathlib.Path, planes: _Planes, index: int) -> None:
        label, vector = split.labels[index], split.parameters[index]
        cards = [fits.Card("LABEL", int(label))]
        if class_names[label]:
            cards.append(fits.Card("CLASS", _ascii(class_names[label])))
        if exposure is not None and np.isfinite(vector[exposure]):
            cards.append(fits.Card("EXPTIME", float(vector[exposure]), "[s]"))
        # The card's number is the float32 itself, not its shortest text.
        cards += [
            fits.Card(f"HIERARCH {name.upper()}", float(value))
            for name, value in zip(names, vector, strict=True)
            if np.isfinite(value)
        ]
        bands = [np.ascontiguousarray(band) for band in np.moveaxis(planes.image, -1, 0)]
        if len(bands) == 1:
            units = [fits.PrimaryHDU(bands[0], fits.Header([*facts, *axes, *cards]))]
            units += further(planes, 0, "")
        else:
            units = [fits.PrimaryHDU(None, fits.Header([*facts, *cards]))]
            named = zip(bands, split.info.bands, extensions, strict=True)
            for channel, (plane, band, name) in enumerate(named):
                # As a card, because astropy's own argument writes capitals.
                own = [fits.Card("EXTNAME", name), fits.Card("BAND", _ascii(band))]
                own += zero_points[channel : channel + 1]
                header = fits.Header([*facts, *axes, *cards, *own])
                units += [fits.ImageHDU(plane, header), *further(planes, channel, name)]
        fits.HDUList(units).writeto(path, output_verify="exception")

    return write


def export_size(
    info: DatasetInfo, num_images: int, file_format: str, *, planes: bool = True
) -> tuple[float, int]:
    """The approximate bytes and files that an export takes on disk.

    Args:
      info: the data set.
      num_images: the number of its images.
      file_format: one of `FORMATS`.
      planes: whether variances and masks are written too.
    """
    variance, mask = planes and info.has_variance, planes and info.masked
    num_planes = 1 + variance + mask
    pixels = math.prod(info.image_shape)
    per_image = 4.0 * (pixels * (1 + variance + 0.25 * mask) + len(info.parameter_names) + 1)
    if file_format == "hdf5":
        return num_images * per_image + 2 * _HDF5_BYTES, 2
    if file_format == "npy":
        return num_images * (per_image + _BLOCK_BYTES * num_planes), num_images * num_planes
    units = 1 + num_planes * info.image_shape[-1]
    return num_images * (per_image + _BLOCK_BYTES * units), num_images
