"""Reads images from FITS files; needs astropy, which is imported when it is used."""

import contextlib
import dataclasses
import math
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.containers import Facts
from lensjax.files.file_image import (
    FileImage,
    convert_blocks,
    images_per_block,
    resolve_layout,
    stack_shape,
)
from lensjax.files.packages import require_packages

_ZERO_POINTS = ("MAGZERO", "MAGZPT", "ZEROPT", "ZP", "PHOTZP", "MAGZP")
_EXPOSURES = ("EXPTIME", "EXPOSURE", "TEXPTIME")
_PIXEL_SCALES = ("PIXSCALE", "PIXELSCL")
# Keywords of the linear part of a world coordinate system. Distortions need tables from other
# HDUs and hardly change the scale.
_LINEAR_WCS = re.compile(r"WCSAXES|(CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA)\d|(CD|PC)\d_\d")
_SCALING_WCS = re.compile(r"CDELT\d|(CD|PC)\d_\d")
_MAX_TILE_PIXELS = 2**28


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _astropy_fits() -> Any:
    require_packages("a FITS file", "files", "astropy")
    with _quiet():
        from astropy.io import fits
    return fits


def _values(headers: Sequence[Any], keys: Sequence[str]) -> Iterator[Any]:
    """Yields the values of the keywords, first from the HDU itself, then from the primary one."""
    for header in headers:
        yield from (header[key] for key in keys if key in header)


def _number(headers: Sequence[Any], keys: Sequence[str], above: float) -> float | None:
    for value in _values(headers, keys):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and above < value < math.inf:
            return float(value)
    return None


def _text(headers: Sequence[Any], keys: Sequence[str]) -> str | None:
    for value in _values(headers, keys):
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _wcs_pixel_scale(header: Any) -> float | None:
    """The side of a pixel in arcsec along the celestial axes, None if there are none.

    For pixels that are not square it is the square root of their area.
    """
    from astropy.io.fits import Header
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    linear = Header()
    for key in header:
        if _LINEAR_WCS.fullmatch(key):
            value = header[key]
            linear[key] = value[:8] if key.startswith("CTYPE") else value  # without "-SIP"
    if not any(map(_SCALING_WCS.fullmatch, linear)):
        return None
    try:
        celestial = WCS(linear).celestial
        scales = proj_plane_pixel_scales(celestial) if celestial.naxis == 2 else ()
    except Exception:  # wcslib raises many kinds; an image needs no pixel scale
        return None
    scale = math.sqrt(math.prod(scales)) * 3600 if len(scales) else 0.0
    return scale if 0 < scale < math.inf else None


def _facts(headers: Sequence[Any]) -> Facts:
    scale = _number(headers, _PIXEL_SCALES, 0.0)
    for header in headers:
        scale = scale or _wcs_pixel_scale(header)
    return Facts(_text(headers, ("BUNIT",)), scale, _number(headers, ("PSFFWHM",), 0.0))


def _parameters(headers: Sequence[Any]) -> dict[str, float]:
    values = {
        "zero_point_mag": _number(headers, _ZERO_POINTS, -math.inf),
        "exposure_time_s": _number(headers, _EXPOSURES, 0.0),
    }
    return {name: value for name, value in values.items() if value is not None}


def _is_integer(header: Any) -> bool:
    """Whether pixels are still integers after BSCALE and BZERO."""
    scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
    return header["BITPIX"] > 0 and scale == 1 and zero == int(zero)


def _check_data(hdu: Any, size: int | None) -> None:
    """Refuses a file that is too short for its data, and tiles that do not fit in memory."""
    tile = getattr(hdu, "tile_shape", None)
    if tile is not None:
        if math.prod(int(side) for side in tile) > _MAX_TILE_PIXELS:
            raise UnusableError(f"is compressed in tiles of more than {_MAX_TILE_PIXELS} pixels")
        return
    end = hdu.fileinfo()["datLoc"] + math.prod(hdu.shape) * abs(hdu.header["BITPIX"]) // 8
    if size is not None and end > size:
        raise UnusableError(f"is truncated: it has {size} bytes, its headers promise {end}")


def _blanked(block: np.ndarray, blank: int | None) -> np.ndarray:
    """Replaces BLANK by NaN in unsigned integers, where astropy leaves it in."""
    if blank is None or block.dtype.kind not in "iu":
        return block
    return np.where(block == blank, np.nan, block)


def _blocks(hdu: Any, shape: tuple[int, ...], blank: int | None) -> Iterator[np.ndarray]:
    """Reads an HDU as a stack of this shape, in blocks `[n, ...]`."""
    if len(hdu.shape) < len(shape):
        with _quiet():
            image = np.asarray(hdu.section[:])
        yield _blanked(image, blank)[None]
        return
    step = images_per_block(shape, np.dtype(np.float64))
    for start in range(0, shape[0], step):
        with _quiet():
            block = np.asarray(hdu.section[start : start + step])
        yield _blanked(block, blank)


def _read_hdu(hdu: Any, primary: Any, layout: str, size: int | None) -> Iterator[FileImage]:
    with _quiet():
        layout = resolve_layout(tuple(map(int, hdu.shape)), layout)
        shape = stack_shape(tuple(map(int, hdu.shape)), layout)
        _check_data(hdu, size)
        headers = (hdu.header,) if hdu.header is primary else (hdu.header, primary)
        facts, parameters = _facts(headers), _parameters(headers)
        class_name = _text(headers, ("CLASS", "LABEL"))
        integer = _is_integer(hdu.header)
        blank = hdu.header.get("BLANK")
        if integer and blank is not None:
            blank = int(blank) + int(hdu.header.get("BZERO", 0))
    for place, pixels in convert_blocks(_blocks(hdu, shape, blank), layout, shape[0]):
        yield FileImage(pixels, dict(parameters), class_name, place, *facts, integer)


def _forwards(hdus: Any) -> Iterator[Any]:
    """Yields the HDUs; a forged length would send astropy back to earlier ones without end."""
    last = -1
    for number, hdu in enumerate(hdus):
        if not hasattr(hdu, "fileinfo"):
            raise UnusableError(f"is damaged: the header of HDU {number} cannot be read")
        start = hdu.fileinfo()["hdrLoc"]
        if start <= last:
            raise UnusableError("is damaged: the length of an HDU points backwards")
        last = start
        yield hdu


def _image_hdus(fits: Any, hdus: Any) -> list[tuple[int, Any]]:
    """The number and the HDU of each image."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
        images = [
            (index, hdu)
            for index, hdu in enumerate(_forwards(hdus))
            if isinstance(hdu, kinds) and hdu.is_image and len(hdu.shape) >= 2
        ]
    for warning in caught:
        text = str(warning.message)
        if "truncated" in text or "corrupted" in text:  # astropy goes on without the rest
            raise UnusableError(f"is damaged: {text}")
    if not images:
        raise UnusableError("holds no image: no HDU has data of two or more axes")
    return _science(images)


def _science(images: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The images without the planes of errors, weights and flags that stand beside them."""
    science = [(index, hdu) for index, hdu in images if hdu.name.upper() == "SCI"]
    chosen = science or [
        (index, hdu) for index, hdu in images if hdu.name.upper() not in _AUXILIARY
    ]
    if not chosen:
        names = ", ".join(hdu.name for _, hdu in images)
        raise UnusableError(f"holds no image: its extensions are {names}")
    return chosen


# Extensions that describe an image but hold none; instruments call the image itself SCI.
_AUXILIARY = (
    *("ERR", "ERROR", "UNCERT", "SIGMA", "RMS", "VAR", "VARIANCE", "IVAR", "WHT", "WEIGHT", "WGT"),
    *("DQ", "MASK", "FLAG", "FLAGS", "CON", "CTX", "SAMP", "TIME", "EXPMAP", "PSF"),
)


def read_fits(path: pathlib.Path, layout: str, size: int | None) -> Iterator[FileImage]:
    """Reads all images of a FITS file; see `image_files.read_images`.

    Where an extension is called SCI, only SCI extensions are read. Extensions of errors, weights,
    flags and the like (`_AUXILIARY`) are never read.

    Rows of FITS run upwards in y, as ours do: the first stored row is the lowest, and nothing is
    flipped. BSCALE and BZERO are applied, and pixels that BLANK marks become NaN. A keyword that an
    extension lacks is taken from the primary header.

    Args:
      path: the file.
      layout: one of `LAYOUTS`, for every HDU.
      size: size of the file in bytes; None if it is compressed as a whole.
    """
    fits = _astropy_fits()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))  # astropy leaves it open if it fails
        # Sections are read piece by piece without a map too; a map refuses BSCALE, BZERO and BLANK.
        with _quiet():
            hdus = stack.enter_context(fits.open(file, memmap=False))
        images = _image_hdus(fits, hdus)
        for number, hdu in images:
            try:
                for image in _read_hdu(hdu, hdus[0].header, layout, size):
                    yield _placed(image, number) if len(images) > 1 else image
            except UnusableError as error:
                raise UnusableError(f"(HDU {number}) {error}") from error


def _placed(image: FileImage, number: int) -> FileImage:
    return dataclasses.replace(image, place=f"HDU {number} {image.place}".rstrip())
