"""The planes of a file, FITS extensions or arrays of an .npz or HDF5 file, and a choice of them."""

import fnmatch
from collections.abc import Iterable
from typing import NamedTuple

from lensjax.errors import UnusableError
from lensjax.files.plane_names import kind_of

AUTO = "auto"
_SHOWN = 12  # planes that a message lists


class Flags(NamedTuple):
    """How a mask marks bad pixels.

    Attributes:
      good: whether numbers above 0 mark good pixels.
      bits: of a bad pixel; 0 for any number but 0.
    """

    good: bool
    bits: int


class PlaneRules(NamedTuple):
    """Which planes a user wants; the fields of `data` of the same names.

    Attributes:
      planes: names, patterns or numbers of the images; () for the only one.
      variance_planes: of their variances, in the same order, one pattern, or `("auto",)`; a name
        may state its kind, such as `wt=variance`, see `STATED_KINDS`.
      mask_planes: of their masks.
      mask_bits: bits of a mask that mark a bad pixel; 0 for any.
      bands: `images` or `channels`.
      one_plane: whether the file is one plane of an object, so that its only plane is taken,
        whatever its name is.
      flags: how that plane marks bad pixels, if it is a mask; None for any other plane.
    """

    planes: tuple[str, ...] = ()
    variance_planes: tuple[str, ...] = ()
    mask_planes: tuple[str, ...] = ()
    mask_bits: int = 0
    bands: str = "images"
    one_plane: bool = False
    flags: Flags | None = None


class Plane(NamedTuple):
    """One plane of a file.

    Attributes:
      number: of the FITS extension, or the place of the array in the file.
      name: of the extension (EXTNAME) or the array; may be empty.
      version: tells extensions of one name apart (EXTVER).
      shape: its shape.
      is_extension: whether it is a FITS extension, which messages name by its number.
    """

    number: int
    name: str
    version: int
    shape: tuple[int, ...]
    is_extension: bool

    def __str__(self) -> str:
        """Its name in messages, such as `HDU 2 VIS_RMS`."""
        if self.is_extension:
            return f"HDU {self.number} {self.name}".rstrip()
        return repr(self.name)

    def described(self) -> str:
        """Its name, shape, and kind where the name tells it."""
        facts = ["x".join(map(str, self.shape)), kind_of(self.name)]
        said = ", ".join(fact for fact in facts if fact)
        return f"{self} ({said})" if said else str(self)


class Chosen(NamedTuple):
    """An image of a file with the planes that belong to it, and their kinds."""

    image: Plane
    variance: Plane | None
    mask: Plane | None
    variance_kind: str | None = None
    mask_kind: str | None = None

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The planes that are read."""
        return tuple(plane for plane in self[:3] if plane is not None)

    def described(self) -> list[str]:
        """The planes of the variance and the mask with their kinds, for people."""
        pairs = ((self.variance, self.variance_kind), (self.mask, self.mask_kind))
        return [f"{plane} ({kind})" for plane, kind in pairs if plane is not None]


# What a user may write behind the name of a plane whose own name says nothing, or says it wrongly.
STATED_KINDS = {
    "variance": "variance",
    "sigma": "standard deviation",
    "weight": "weight",
    "bad": "mask",
    "good": "map of good pixels",
}


def stated(pattern: str) -> tuple[str, str | None]:
    """A name or pattern, and the kind that the user states behind it.

    Raises:
      UnusableError: for a kind that does not exist.
    """
    name, sign, kind = pattern.partition("=")
    if sign and kind not in STATED_KINDS:
        raise UnusableError(
            f"is read with the plane {pattern!r}, whose kind {kind!r} does not exist; allowed: "
            f"{', '.join(STATED_KINDS)}"
        )
    return name, STATED_KINDS[kind] if sign else None


def listed(planes: Iterable[Plane]) -> str:
    """Planes as one line of a message."""
    described = [plane.described() for plane in planes]
    more = f" and {len(described) - _SHOWN} more" if len(described) > _SHOWN else ""
    return ", ".join(described[:_SHOWN]) + more


def matches(plane: Plane, pattern: str) -> bool:
    """Whether a pattern of a user means a plane: its number, or its name in any case."""
    if pattern.isdecimal() and plane.is_extension and plane.number == int(pattern):
        return True
    name, wanted = plane.name.upper(), pattern.upper()
    return bool(name) and (name == wanted or fnmatch.fnmatchcase(name, wanted))
