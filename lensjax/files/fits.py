"""Reads images from FITS files; needs astropy, which is imported when it is used."""

import contextlib
import gzip
import io
import math
import pathlib
import re
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import IO, Any

import numpy as np

from lensjax.errors import AmbiguousError, UnusableError
from lensjax.files.containers import Facts
from lensjax.files.file_image import (
    FileImage,
    convert_blocks,
    images_per_block,
    layout_question,
    resolve_layout,
    stack_shape,
)
from lensjax.files.limits import Limits
from lensjax.files.packages import require_packages
from lensjax.files.plane_reading import bad_pixels, read_planes
from lensjax.files.planes import Flags, Plane, PlaneRules

_ZERO_POINTS = ("MAGZERO", "MAGZPT", "ZEROPT", "ZP", "PHOTZP", "MAGZP")
_EXPOSURES = ("EXPTIME", "EXPOSURE", "TEXPTIME")
_PIXEL_SCALES = ("PIXSCALE", "PIXELSCL")
# Keywords of the linear part of a world coordinate system. Distortions need tables from other
# HDUs and hardly change the scale.
_LINEAR_WCS = re.compile(r"WCSAXES|(CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA)\d|(CD|PC)\d_\d")
_SCALING_WCS = re.compile(r"CDELT\d|(CD|PC)\d_\d")
_GZIP = b"\x1f\x8b"
# A cube of so many planes is as often one image of many bands as a stack of images.
_FEWEST, _MOST = 4, 7
_MOST_HDUS = 1000
_GZIP_BLOCK = 2**22
_TILE_BYTES_PER_PIXEL = 24  # of a tile while it is decompressed, measured: at most 20


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


def _celestial(header: Any) -> Any:
    """The linear part of the celestial world coordinate system of an HDU, None if it has none."""
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    linear = Header()
    for key in header:
        if _LINEAR_WCS.fullmatch(key):
            value = header[key]
            linear[key] = value[:8] if key.startswith("CTYPE") else value  # without "-SIP"
    if not any(map(_SCALING_WCS.fullmatch, linear)):
        return None
    try:
        celestial = WCS(linear).celestial
    except Exception:  # wcslib raises many kinds; an image needs no world coordinates
        return None
    return celestial if celestial.naxis == 2 else None


def _pixel_scale(celestial: Any) -> float | None:
    """The side of a pixel in arcsec; for pixels that are not square the root of their area."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    if celestial is None:
        return None
    try:
        scale = math.sqrt(math.prod(proj_plane_pixel_scales(celestial))) * 3600
    except Exception:  # as above
        return None
    return scale if 0 < scale < math.inf else None


def _facts(headers: Sequence[Any], systems: Sequence[Any]) -> Facts:
    scale = _number(headers, _PIXEL_SCALES, 0.0)
    for celestial in systems:
        scale = scale or _pixel_scale(celestial)
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


def _check_data(hdu: Any, size: int | None, limits: Limits) -> None:
    """Refuses a file that is too short for its data, and tiles that do not fit in memory."""
    tile = getattr(hdu, "tile_shape", None)
    if tile is not None:
        limits.check(
            _TILE_BYTES_PER_PIXEL * math.prod(int(side) for side in tile),
            "is compressed in tiles that take",
        )
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


def _check_cube(shape: tuple[int, ...], layout: str) -> None:
    """Asks whether a cube of a few planes has bands or images of their own."""
    if layout == "auto" and len(shape) == 3 and _FEWEST < shape[0] <= _MOST < min(shape[1:]):
        said = f"one image of {shape[0]} bands or {shape[0]} images"
        raise layout_question(shape, said, "CHW")


def _read_hdu(
    hdu: Any,
    primary: Any,
    layout: str,
    size: int | None,
    limits: Limits,
    flags: Flags | None,
) -> Iterator[FileImage]:
    with _quiet():
        _check_cube(tuple(map(int, hdu.shape)), layout)
        layout = resolve_layout(tuple(map(int, hdu.shape)), layout)
        shape = stack_shape(tuple(map(int, hdu.shape)), layout)
        _check_data(hdu, size, limits)
        limits.check_image(shape[1:], np.dtype(np.float64))
        headers = (hdu.header,) if hdu.header is primary else (hdu.header, primary)
        systems = [_celestial(header) for header in headers]
        facts, parameters = _facts(headers, systems), _parameters(headers)
        class_name = _text(headers, ("CLASS", "LABEL"))
        integer = _is_integer(hdu.header)
        blank = hdu.header.get("BLANK")
        if integer and blank is not None:
            blank = int(blank) + int(hdu.header.get("BZERO", 0))
    stored = _blocks(hdu, shape, None if flags else blank)
    if flags is not None:
        stored = (bad_pixels(block, flags) for block in stored)
    blocks = convert_blocks(stored, layout, shape[0])
    for row, (place, pixels) in enumerate(blocks):
        yield FileImage(
            pixels, dict(parameters), class_name, place, *facts, integer, row, wcs=systems[0]
        )


def _forwards(hdus: Any) -> Iterator[Any]:
    """Yields the HDUs; a forged length would send astropy back to earlier ones without end."""
    last = -1
    for number, hdu in enumerate(hdus):
        if number >= _MOST_HDUS:
            raise UnusableError(f"has more than {_MOST_HDUS} HDUs")
        if not hasattr(hdu, "fileinfo"):
            raise UnusableError(f"is damaged: the header of HDU {number} cannot be read")
        start = hdu.fileinfo()["hdrLoc"]
        if start <= last:
            raise UnusableError("is damaged: the length of an HDU points backwards")
        last = start
        yield hdu


def _image_hdus(fits: Any, hdus: Any) -> list[tuple[int, Any]]:
    """The number and the HDU of each plane."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kinds = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
        planes = [
            (index, hdu)
            for index, hdu in enumerate(_forwards(hdus))
            if isinstance(hdu, kinds) and hdu.is_image and len(hdu.shape) >= 2
        ]
    for warning in caught:
        text = str(warning.message)
        if "truncated" in text or "corrupted" in text:  # astropy goes on without the rest
            raise UnusableError(f"is damaged: {text}")
    if not planes:
        raise UnusableError("holds no image: no HDU has data of two or more axes")
    return planes


def _plane(number: int, hdu: Any) -> Plane:
    name = "" if hdu.name == "PRIMARY" else str(hdu.name)
    return Plane(number, name, int(hdu.ver), tuple(map(int, hdu.shape)), True)


@contextlib.contextmanager
def _content(path: pathlib.Path, size: int | None, limits: Limits) -> Iterator[IO[bytes]]:
    """The file, or what a gzip of it holds, whose size the gzip does not say truly."""
    with open(path, "rb") as file:
        if size is not None or file.read(2) != _GZIP:
            file.seek(0)
            yield file
            return
    content = io.BytesIO()
    with gzip.open(path) as stream:
        while block := stream.read(_GZIP_BLOCK):
            content.write(block)
            limits.check(content.tell(), "unpacks to more than")
    content.seek(0)
    yield content


def read_fits(
    path: pathlib.Path,
    layout: str,
    size: int | None,
    rules: PlaneRules,
    limits: Limits,
) -> Iterator[FileImage]:
    """Reads the images of a FITS file; see `image_files.read_images`.

    Which extensions are images: see `planes.choose`.

    Rows of FITS run upwards in y, as ours do: the first stored row is the lowest, and nothing is
    flipped. BSCALE and BZERO are applied, and pixels that BLANK marks become NaN. A keyword that an
    extension lacks is taken from the primary header.

    Args:
      path: the file.
      layout: one of `LAYOUTS`, for every HDU.
      size: size of the file in bytes; None if it is compressed as a whole.
      rules: which planes are wanted.
      limits: of memory and time.
    """
    fits = _astropy_fits()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_content(path, size, limits))
        # Sections are read piece by piece without a map too; a map refuses BSCALE, BZERO and BLANK.
        with _quiet():
            hdus = stack.enter_context(fits.open(file, memmap=False))
        by_plane = {_plane(number, hdu): hdu for number, hdu in _image_hdus(fits, hdus)}

        def read(plane: Plane, flags: Flags | None) -> Generator[FileImage, None, None]:
            flags = flags or rules.flags
            primary = hdus[0].header
            try:
                yield from _read_hdu(by_plane[plane], primary, layout, size, limits, flags)
            except UnusableError as error:
                if isinstance(error, AmbiguousError):
                    raise
                raise UnusableError(f"({plane}) {error}") from error

        yield from read_planes(list(by_plane), rules, limits, read)
