"""Files that show one object: its bands, exposures, errors and masks, by names or by a table."""

import collections
import csv
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from lensjax.data.folder.entries import FolderFile, Listing
from lensjax.data.folder.objects import FEW_NAMES, may_be_objects
from lensjax.data.folder.reading import Reading
from lensjax.errors import BadFileError, ConfigError, DataError, UnusableError
from lensjax.files.image_files import stem_of
from lensjax.files.plane_names import kind_of
from lensjax.files.planes import Plane, choose, matches

TABLE = "parameters.csv"
FILE_COLUMN = "file"
_SHOWN = 5
_TABLE_BYTES = 2**28
# Ends of names that tell files of one object apart: bands of the optical and infrared, HST and JWST
# filters, and exposures.
_BANDS = re.compile(
    r"[ugrizyjhk]|ks|vis|nir[-_]?[yjh]|[fw]\d{2,4}[a-z]{1,2}|[fw]\d|[ugrizy]band|irac\d",
    re.IGNORECASE,
)
_EXPOSURES = re.compile(r"(exp|exposure|visit|epoch|dith|dither)[-_]?\d+", re.IGNORECASE)
_GROUP_OF_VARIANTS = r"(.*)[-_.]\w+\."
_VARIANT = re.compile(r"(?P<object>.+?)[-_.](?P<variant>[A-Za-z]+[-_]?\d*[A-Za-z]*)")


def _relative(file: FolderFile, root: pathlib.Path) -> str:
    return file.path.relative_to(root).as_posix()


def _some(names: Iterable[str]) -> str:
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
        if listing.objects and reading.folders == "auto" and reading.group is None:
            _ask_about_objects(listing.files)
    if reading.files is None and reading.group is None and not listing.objects:
        if reading.folders == "auto":
            _ask_about_folders(listing.files)
        _ask_about_variants(listing.files)


def _ask_about_kinds(files: Sequence[FolderFile]) -> None:
    """Asks where some files, but not all, are called like masks, weights, PSFs ..."""
    kinds = {file.path.name: kind_of(stem_of(file.path)) for file in files}
    suspicious = [file.path.name for file in files if kinds[file.path.name]]
    if not suspicious or len(suspicious) == len(files):
        return
    named = [f"{name} ({kinds[name]})" for name in suspicious]
    image = next(file.path.name for file in files if not kinds[file.path.name])
    raise DataError(
        f"data.folder: {len(suspicious)} of {len(files)} image files are called like files that "
        f"hold no image: {_some(named)}; set data.files to a pattern of those that do, such as "
        f"data.files={image} ('*' for all of them), or, if each object has such files, data.group "
        "(or data.folders=objects) with data.planes, data.variance_planes and data.mask_planes"
    )


def _ask_about_objects(files: Sequence[FolderFile]) -> None:
    """Asks where the folders of objects hold more than one image each."""
    counts = collections.Counter(file.object_name for file in files)
    if max(counts.values()) == 1:
        return
    names = sorted({file.path.name for file in files})
    raise DataError(
        f"data.folder: the {len(counts)} folders have the same file names ({_some(names)}), so "
        f"each looks like one object; set data.files to the one that is wanted, such as "
        f"data.files={names[0]}; or data.planes={tuple(map(stem_of, names[:_SHOWN]))} with "
        "data.bands=channels for the bands of one image; or data.folders=objects, and all of them "
        "are images of the object; or data.folders=classes, if the folders are classes"
    )


def _ask_about_folders(files: Sequence[FolderFile]) -> None:
    """Asks where many folders have the same few numbered names: objects, or small classes."""
    names: dict[str, list[str]] = collections.defaultdict(list)
    for file in files:
        if file.class_name is None:
            return
        names[str(file.path.parent)].append(file.path.name)
        if len(names[str(file.path.parent)]) > FEW_NAMES:
            return
    if may_be_objects(names):
        shared = sorted({name for held in names.values() for name in held})
        raise DataError(
            f"data.folder: {len(names)} folders have the same file names ({_some(shared)}); set "
            "data.folders=classes if each is a class of images, or data.folders=objects if each "
            "is one object"
        )


def _variant(stem: str) -> tuple[str, str] | None:
    """The name without its band or exposure, and this; None for a name without one."""
    match = _VARIANT.fullmatch(stem)
    if match and (_BANDS.fullmatch(match["variant"]) or _EXPOSURES.fullmatch(match["variant"])):
        return match["object"], match["variant"]
    return None


def _ask_about_variants(files: Sequence[FolderFile]) -> None:
    """Asks where files differ in the name of a band or an exposure alone."""
    variants: dict[pathlib.Path, list[str]] = collections.defaultdict(list)
    others: set[pathlib.Path] = set()
    for file in files:
        stem = stem_of(file.path)
        found = _variant(stem)
        if found is not None:
            variants[file.path.parent / found[0]].append(found[1])
        else:  # a_1, a_b and the like beside a_g: letters that number, and no bands
            others.add(file.path.parent / re.split(r"[-_.][^-_.]*$", stem)[0])
    several = {base for base, names in variants.items() if len(names) > 1} - others
    if not several:
        return
    base = min(several)
    kinds = sorted({name for each in several for name in variants[each]})
    raise DataError(
        f"data.folder: the files of {len(several)} objects differ only in what looks like a band "
        f"or an exposure ({_some(kinds)}), such as {base.name} with {_some(variants[base])}; set "
        f"data.group='{_GROUP_OF_VARIANTS}' or the like, so that the files of one object stay on "
        f"one side of the split, and data.bands=channels with data.planes={tuple(kinds[:_SHOWN])} "
        "if the bands are to be channels of one image; or data.files='*' if each file shows an "
        "object of its own"
    )


def grouped(listing: Listing, reading: Reading) -> tuple[Listing, list[BadFileError]]:
    """Names the object of each file, and joins files that are planes of one object.

    Args:
      listing: the files.
      reading: `group` and `rules` decide.

    Returns:
      The listing with objects named and files joined, and files that cannot be used.

    Raises:
      ConfigError: for a `group` that is neither a column of the table nor fits any file.
      DataError: for a table that cannot be read.
    """
    if reading.has_group_column:
        return _by_table(listing, reading)
    remainders: dict[pathlib.Path, str] = {}
    files, bad = list(listing.files), []
    if reading.group is not None:
        files = []
        for file in listing.files:
            name, remainder = _match(_relative(file, listing.root), reading.group)
            if name is None:
                bad.append(BadFileError(file.path, f"does not match data.group={reading.group!r}"))
                continue
            remainders[file.path] = remainder
            files.append(dataclasses.replace(file, object_name=name))
        if not files:
            raise ConfigError("data.group", reading.group, f"no file of {listing.root} matches it")
    elif listing.objects:
        remainders = {file.path: _trimmed(stem_of(file.path)) for file in files}
    else:
        return listing, []
    rules, names = reading.rules, set(remainders.values())
    planes = [_plane(number, name) for number, name in enumerate(sorted(names))]
    if not rules.planes or not all(
        any(matches(plane, pattern) for plane in planes) for pattern in rules.planes
    ):
        return dataclasses.replace(listing, files=tuple(files)), bad
    joined, left_out = _joined(files, remainders, reading, bad)
    ignored = dict(listing.ignored)
    if left_out:
        ignored["image files that data.planes leaves out"] = left_out
    return dataclasses.replace(listing, files=tuple(joined), ignored=ignored), bad


def _trimmed(name: str) -> str:
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", name) or "image"


def _match(relative: str, pattern: str) -> tuple[str | None, str]:
    """The object that a path names, and the rest of the file's name."""
    match = re.search(pattern, relative)
    if match is None or not match[1]:
        return None, ""
    start, end = match.span(1)
    rest = (relative[:start] + "\0" + relative[end:]).rpartition("/")[2].replace("\0", "")
    return match[1], _trimmed(stem_of(rest))


def _plane(number: int, name: str) -> Plane:
    return Plane(number, name, 1, (), False)


def _no_sample(plane: Plane) -> "object":
    raise AssertionError(f"{plane} is chosen by its name")


def _joined(
    files: Sequence[FolderFile],
    remainders: Mapping[pathlib.Path, str],
    reading: Reading,
    bad: list[BadFileError],
) -> tuple[list[FolderFile], int]:
    """One entry for each image of an object whose planes are files, and the files left out."""
    objects: dict[tuple, list[FolderFile]] = collections.defaultdict(list)
    for file in files:
        objects[file.split, file.class_name, file.object_name].append(file)
    joined, used = [], 0
    for (_, _, name), members in objects.items():
        planes = [_plane(number, remainders[file.path]) for number, file in enumerate(members)]
        try:
            chosen = choose(planes, reading.rules, _no_sample)  # type: ignore[arg-type]
        except UnusableError as error:
            bad.append(BadFileError(members[0].path, f"(object {name}) {error}"))
            continue
        units = [tuple(chosen)] if reading.rules.bands == "channels" else [(one,) for one in chosen]
        for unit in units:
            numbers = [plane.number for one in unit for plane in one if plane is not None]
            used += len(numbers)
            joined.append(
                dataclasses.replace(
                    members[numbers[0]],
                    chosen=unit,
                    members={number: members[number] for number in numbers},
                )
            )
    return joined, len(files) - used


def _by_table(listing: Listing, reading: Reading) -> tuple[Listing, list[BadFileError]]:
    """Names the object of each image by a column of the table."""
    path = listing.root / TABLE
    rows = _read_table(path, str(reading.group))
    files, bad = [], []
    for file in listing.files:
        names = rows.get(_relative(file, listing.root)) or rows.get(file.path.name)
        if names is None:
            bad.append(BadFileError(file.path, f"has no line in {path}"))
            continue
        files.append(dataclasses.replace(file, row_names=tuple(names)))
    return dataclasses.replace(listing, files=tuple(files)), bad


def _read_table(path: pathlib.Path, column: str) -> dict[str, list[str]]:
    """The values of a column for each file, in the order of the lines."""
    names: dict[str, list[str]] = collections.defaultdict(list)
    try:
        if path.stat().st_size > _TABLE_BYTES:
            raise DataError(f"{path} has more than {_TABLE_BYTES >> 20} MiB")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            missing = [name for name in (FILE_COLUMN, column) if name not in columns]
            if missing:
                raise ConfigError(
                    "data.group",
                    column,
                    f"{path} has no column {', '.join(missing)}; its columns: "
                    f"{_some(columns) or 'none'}. Allowed: a column of that table, which needs the "
                    f"column {FILE_COLUMN} with the paths of the files too, or a regular "
                    "expression with one group in brackets",
                )
            for number, line in enumerate(reader, 2):
                if not line[FILE_COLUMN] or not line[column]:
                    raise DataError(f"{path}, line {number}: {FILE_COLUMN} or {column} is empty")
                names[line[FILE_COLUMN]].append(line[column])
    except FileNotFoundError:
        raise ConfigError(
            "data.group",
            column,
            f"there is no {path} with such a column; allowed: a column of that table, or a regular "
            "expression with one group in brackets",
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return names
