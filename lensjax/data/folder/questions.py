"""Names of files that say that not every file is an image of an object of its own.

Each question is an error that names what was found and the fields that answer it.
"""

import collections
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lensjax.data.folder.entries import FolderFile, Listing
from lensjax.data.folder.objects import FEW_NAMES, may_be_objects
from lensjax.data.folder.reading import Reading
from lensjax.data.folder.splits import LAYOUTS, split_of
from lensjax.errors import DataError
from lensjax.files.image_files import stem_of
from lensjax.files.plane_names import kind_of, names_plane

_SHOWN = 5
_MOST_VARIANTS = 12
# Bands in the order of their wavelengths; parts of names that tell files of one object apart.
_ORDER = ("u", "g", "r", "vis", "i", "z", "y", "j", "h", "k", "ks")
_BANDS = re.compile(
    r"[ugrizyjhk]|ks|vis|nir[-_]?[yjh]|f\d{3,4}[wmnlpx]{1,2}\d?|nb\d{3,4}|irac\d|ch[1-4]",
    re.IGNORECASE,
)
_EXPOSURES = re.compile(r"(exp|exposure|visit|epoch|dith|dither)\d+", re.IGNORECASE)
_SIGNS = re.compile(r"([-_.])")
_OPTICAL, _INFRARED = set("ugrizy"), set("zyjhk")


def some(names: Iterable[str]) -> str:
    """The first few of several names."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more


def check_names(listing: Listing, reading: Reading) -> None:
    """Asks where names of files say that not every file is an image of an object of its own.

    Args:
      listing: the files.
      reading: says which of these questions the user has answered.

    Raises:
      DataError: the question, with the fields that answer it.
    """
    names_planes = bool(reading.rules.planes) and (listing.objects or reading.group is not None)
    if reading.files is None and not names_planes:
        _ask_about_kinds(listing.files)
        if listing.objects and not listing.sure and reading.group is None:
            _ask_about_objects(listing.files)
    if reading.files is None and reading.group is None and not listing.objects:
        _ask_about_splits(listing.files)
        if not listing.sure:
            _ask_about_folders(listing.files)
        _ask_about_variants(listing.files)


def _ask_about_kinds(files: Sequence[FolderFile]) -> None:
    """Asks where some files, but not all, are called like masks, weights, PSFs ..."""
    stems = {file.path.name: stem_of(file.path) for file in files}
    planes = {name: names_plane(stem) for name, stem in stems.items()}
    suspicious = [file.path.name for file in files if planes[file.path.name]]
    if not suspicious or len(suspicious) == len(files):
        return
    images = [name for name in stems if not planes[name]]
    named = [f"{name} ({kind_of(stems[name])})" for name in suspicious]
    raise DataError(
        f"data.folder: {len(suspicious)} of {len(files)} image files have names of errors, "
        f"weights, masks, PSFs and the like: {some(named)}; set data.files to a pattern of the "
        f"files that are images{_pattern_of(images, suspicious)} ('*' if all are)"
        f"{_planes_of(stems)}"
    )


def _pattern_of(images: Sequence[str], suspicious: Sequence[str]) -> str:
    """A pattern of the names of images that no other name matches, for a message."""
    if len(set(images)) == 1:
        return f", such as data.files={images[0]}"
    first = images[0]
    starts = [place for place, letter in enumerate(first) if letter in "-_."]
    ends = [first[place:] for place in starts]
    end = next((end for end in ends if all(name.endswith(end) for name in images)), "")
    if end.strip("-_.") and not any(name.endswith(end) for name in suspicious):
        return f", such as data.files='*{end}'"
    return ""


def _planes_of(stems: Mapping[str, str]) -> str:
    """How the files of one object become its planes, for a message."""
    parts = {stem: _SIGNS.split(stem) for stem in stems.values()}
    ends = sorted({pieces[-1] for pieces in parts.values()})
    expected = {stem: "".join(pieces[:-1]) for stem, pieces in parts.items()}
    pattern = rf"(.*)[-_.](?:{'|'.join(map(re.escape, ends))})\."
    if len(ends) <= _MOST_VARIANTS and _groups_as(pattern, expected):
        image = next((end for end in ends if not names_plane(end)), "image")
        return (
            f"; or, if each object has such files, data.group='{pattern}' (or data.folders=objects)"
            f" with data.planes={image}, data.variance_planes and data.mask_planes"
        )
    return (
        "; or, if each object has such files, data.group (or data.folders=objects) with "
        "data.planes, data.variance_planes and data.mask_planes"
    )


def _groups_as(pattern: str, expected: Mapping[str, str]) -> bool:
    """Whether a pattern puts names into the expected groups, more than one name in some."""
    found: dict[str, str] = {}
    for stem, group in expected.items():
        match = re.search(pattern, f"{stem}.")
        if match is None or found.setdefault(group, match[1]) != match[1]:
            return False
    return len(set(found.values())) == len(found) < len(expected)


def _ask_about_objects(files: Sequence[FolderFile]) -> None:
    """Asks where the folders of objects hold more than one image each."""
    counts = collections.Counter((file.split, file.object_name) for file in files)
    if max(counts.values()) == 1:
        return
    names = sorted({file.relative.removeprefix(f"{file.object_name}/") for file in files})
    planes = _by_wavelength({stem_of(name.replace("/", "_")) for name in names})
    raise DataError(
        f"data.folder: {len(counts)} folders have the same file names ({some(names)}), so each "
        f"looks like one object; set data.files to the one that is wanted, such as data.files="
        f"{names[0]}; or data.planes={','.join(planes[:_SHOWN])} with data.bands=channels for the "
        "bands of one image; or data.folders=objects, and all of them are images of the object; or "
        "data.folders=classes, if the folders are classes"
    )


def _ask_about_splits(files: Sequence[FolderFile]) -> None:
    """Asks where files are called like the splits, and no folder is."""
    splits = {split_of(stem_of(file.path))[0]: file for file in files if file.split is None}
    if {"train", "test"} <= splits.keys():
        named = (splits["train"].path.name, splits["test"].path.name)
        raise DataError(
            f"data.folder: files are called like splits ({', '.join(named)}), which only folders "
            "can be; move them, or set data.files='*' if the names mean nothing. Allowed: "
            f"{LAYOUTS}"
        )


def _ask_about_folders(files: Sequence[FolderFile]) -> None:
    """Asks where folders are bands, or have the same few numbered names: objects or classes."""
    classes = {file.class_name for file in files}
    if len(classes) > 1 and all(name and _is_variant(name) for name in classes):
        raise DataError(
            f"data.folder: the folders are called like bands ({some(sorted(map(str, classes)))}); "
            "if they are bands of the same objects, move the files into one folder, with the band "
            "in each name; if they are classes, set data.folders=classes"
        )
    names: dict[str, list[str]] = collections.defaultdict(list)
    for file in files:
        if file.class_name is None:
            return
        names[str(file.path.parent)].append(file.path.name)
        if len(names[str(file.path.parent)]) > FEW_NAMES:
            return
    are_bands = all(_is_variant(stem_of(name)) for held in names.values() for name in held)
    same = len(names) > 1 and len({tuple(sorted(held)) for held in names.values()}) == 1
    if may_be_objects(names) or (are_bands and same):
        shared = sorted({name for held in names.values() for name in held})
        raise DataError(
            f"data.folder: {len(names)} folders have the same file names ({some(shared)}); set "
            "data.folders=classes if each is a class of images, or data.folders=objects if each "
            "is one object"
        )


def _is_variant(text: str) -> bool:
    return bool(_BANDS.fullmatch(text) or _EXPOSURES.fullmatch(text))


def _by_wavelength(names: Iterable[str]) -> list[str]:
    """Bands from blue to red, as far as their names tell."""

    def key(name: str) -> tuple:
        last = re.split(r"[-_]", name.lower())[-1]
        number = re.search(r"\d{3,4}", last)
        # Filters of HST and JWST are numbers: infrared ones start at F090W, of 0.9 micrometres.
        wavelength = int(number[0]) if number else 0
        infrared = bool(number) and wavelength < 200
        place = _ORDER.index(last) if last in _ORDER else len(_ORDER)
        return place, infrared, wavelength, name

    return sorted(names, key=key)


def _without_variants(stem: str, letters: bool) -> tuple[str, dict[int, str]]:
    """A name with `*` for each band and exposure in it, and these by their places.

    Args:
      stem: the name.
      letters: whether single letters are bands.
    """
    joined = re.sub(r"(?i)(nir)[-_]([yjh])(?![a-z0-9])", r"\1\2", stem)
    joined = re.sub(r"(?i)(exp|exposure|visit|epoch|dith|dither)[-_](\d+)", r"\1\2", joined)
    pieces = _SIGNS.split(joined)
    variants = {
        place: piece
        for place, piece in enumerate(pieces)
        if _is_variant(piece) and (letters or len(piece) > 1)
    }
    return "".join(
        "*" if place in variants else piece for place, piece in enumerate(pieces)
    ), variants


def _are_numbered(variants: set[str], beside: set[str]) -> bool:
    """Whether letters number files, as in a, b, c: others stand in the same places.

    Args:
      variants: what looks like bands.
      beside: single letters in the same places of other names.
    """
    letters = {variant.lower() for variant in variants if len(variant) == 1}
    if not letters:
        return False
    return (
        bool({letter.lower() for letter in beside} - letters)
        or {"g", "h", "i"} <= letters
        or not (letters <= _OPTICAL or letters <= _INFRARED | {"g", "r", "i"})
    )


class _Variants(NamedTuple):
    """Files that differ in bands or exposures alone.

    Attributes:
      objects: the names of each object's files, by folder and name without variants.
      variants: the bands and exposures.
      beside: single letters that stand where bands stand in other names.
    """

    objects: Mapping[tuple[str, str], Sequence[str]]
    variants: set[str]
    beside: set[str]

    @property
    def several(self) -> dict[tuple[str, str], Sequence[str]]:
        """The objects that have more than one file."""
        return {key: stems for key, stems in self.objects.items() if len(stems) > 1}


def _find_variants(files: Sequence[FolderFile], letters: bool) -> _Variants:
    found: dict[tuple[str, str], dict[str, dict[int, str]]] = collections.defaultdict(dict)
    alone: dict[int, set[str]] = collections.defaultdict(set)
    for file in files:
        stem = stem_of(file.path)
        base, held = _without_variants(stem, letters)
        if held and base.strip("*-_."):  # else the folder names the object
            found[os.path.dirname(file.relative), base][stem] = held
        for place, piece in enumerate(_SIGNS.split(stem)):
            if len(piece) == 1 and piece.isalpha():
                alone[place].add(piece)
    places = [held for stems in found.values() if len(stems) > 1 for held in stems.values()]
    variants = {name for held in places for name in held.values()}
    beside = set().union(*(alone[place] for held in places for place in held))
    return _Variants({key: list(stems) for key, stems in found.items()}, variants, beside)


def _ask_about_variants(files: Sequence[FolderFile]) -> None:
    """Asks where files differ in the name of a band or an exposure alone."""
    found = _find_variants(files, letters=True)
    if _are_numbered(found.variants, found.beside):
        found = _find_variants(files, letters=False)
    several, variants, objects = found.several, found.variants, found.objects
    only_exposures = all(_EXPOSURES.fullmatch(variant) for variant in variants)
    if not several or (only_exposures and len(several) == 1):
        return
    names = min(several.items())[1]
    expected = {stem: base for (_, base), stems in objects.items() for stem in stems}
    bands, channels = _by_wavelength(variants), ""
    if not any(map(_EXPOSURES.fullmatch, variants)):
        channels = (
            f", and data.bands=channels with data.planes={','.join(bands)} if these are bands of "
            "one image"
        )
    raise DataError(
        f"data.folder: the files of {len(several)} objects differ only in what looks like a band "
        f"or an exposure ({some(bands)}), such as {some(names)}; set data.group"
        f"{_suggestion(expected, variants)}, so that the files of one object stay on one side of "
        f"the split{channels}; or data.files='*' if each file shows an object of its own"
    )


def _suggestion(expected: Mapping[str, str], variants: set[str]) -> str:
    """A pattern that finds these objects, for a message, or words where none does."""
    # NIR_Y and exp_1 were joined above.
    written = "|".join(
        re.sub(r"(?i)^(nir|exp|exposure|visit|epoch|dith|dither)(?=[yjh\d])", r"\1[-_]?", variant)
        for variant in sorted(variants)
    )
    some_variant = rf"[-_.](?:{written})"
    candidates = (
        rf"(.*?)(?:{some_variant})+\.",
        rf"(.*)(?:{some_variant})[-_.]",
        rf"(.*?)(?:{some_variant})[-_.]",
        rf"{some_variant}[-_.](.*)\.",
        rf"(?:{written})[-_.](.*)\.",
    )
    if len(variants) <= _MOST_VARIANTS:
        for pattern in candidates:
            if _groups_as(pattern, expected):
                return f"='{pattern}'"
    return " to a regular expression whose group is what names the object"
