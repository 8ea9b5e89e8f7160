"""What the description of a data set may hold where it comes from a JSON file."""

import math
from collections.abc import Mapping
from typing import Any

from lensjax.files.json_file import (
    NAME,
    NUMBER,
    POSITIVE,
    TEXT,
    YES_OR_NO,
    Rule,
    number,
    whole,
)

_MAX_SIDE = 2**14
_MAX_IMAGE_BYTES = 2**30
_MAX_NAMES = 10_000


def _is_image_shape(value: Any) -> bool:
    sides = whole(1, _MAX_SIDE).several(3)
    return sides.accepts(value) and 4 * math.prod(value) <= _MAX_IMAGE_BYTES


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_NAMES
        and all(map(NAME.accepts, value))
        and len(set(value)) == len(value)
    )


IMAGE_SHAPE = Rule(
    _is_image_shape,
    f"[H, W, C], integers from 1 to {_MAX_SIDE:,} whose product is at most "
    f"{_MAX_IMAGE_BYTES // 4:,}",
)
NAMES = Rule(_are_names, f"a list of at most {_MAX_NAMES:,} different names")
# Other programs and older versions do not write the fields that may be missing.
FACTS: Mapping[str, Rule] = {
    "fingerprint": NAME,
    "flux_unit": TEXT,
    "class_names": NAMES,
    "minimum": NUMBER.or_missing(),
    "maximum": NUMBER.or_missing(),
    "published_scale": POSITIVE.or_missing(1.0),
    "pixel_scale_arcsec": number(1e-9, 1e6).or_null(),
    "psf_fwhm_arcsec": number(0, 1e6).or_null(),
    "zero_point_mag": number(-1000, 1000).or_null(),
    "masked": YES_OR_NO.or_missing(False),
    "integer": YES_OR_NO.or_missing(False),
    "has_variance": YES_OR_NO.or_missing(False),
}


def facts_of_channels(channels: int) -> dict[str, Rule]:
    """The rules of facts about images with so many channels."""
    return {
        "band_names": NAME.several(0, channels).or_missing([]),
        "band_zero_points_mag": number(-1000, 1000).several(0, channels).or_missing([]),
    }
