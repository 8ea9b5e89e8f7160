"""Files that show one object, by a pattern, a table or folders; its bands and errors as files."""

import collections
import csv
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

from lensjax.data.folder.entries import FolderFile, Listing
from lensjax.data.folder.questions import some
from lensjax.data.folder.reading import Reading
from lensjax.errors import BadFileError, ConfigError, DataError, UnusableError
from lensjax.files.image_files import stem_of
from lensjax.files.plane_choice import choose
from lensjax.files.plane_names import MASKS, VARIANCES, kind_of
from lensjax.files.planes import AUTO, Plane, PlaneRules, matches, stated

TABLE = "parameters.csv"
FILE_COLUMN = "file"
_TABLE_BYTES = 2**28


def grouped(listing: Listing, reading: Reading) -> tuple[Listing, list[BadFileError]]:
    """Names the object of each file, and joins files that are planes of one object.

    Args:
      listing: the files.
      reading: `group` and `rules` decide.

    Returns:
      The listing with objects named and files joined, and files that cannot be used.

    Raises:
      ConfigError: for a `group` that is neither a column of the table nor fits any file, or planes
        of which only some are files.
      DataError: for a table that cannot be read.
    """
    if reading.has_group_column:
        return _by_table(listing, reading)
    files, bad = list(listing.files), []
    if reading.group is not None:
        matched = [(file, _match(file.relative, reading.group)) for file in files]
        bad = [
            BadFileError(file.path, f"does not match data.group={reading.group!r}")
            for file, found in matched
            if found is None
        ]
        pairs = [(file, found) for file, found in matched if found is not None]
        if not pairs:
            raise ConfigError("data.group", reading.group, f"no file of {listing.root} matches it")
        files = [dataclasses.replace(file, object_name=found[0]) for file, found in pairs]
        members = {file.path: found[1] for file, found in pairs}
    elif listing.objects:
        members = {file.path: _member(file) for file in files}
    else:
        return listing, []
    if not _are_planes(members, reading.rules):
        return dataclasses.replace(listing, files=tuple(files)), bad
    joined, left_out = _joined(files, members, reading, bad)
    ignored = dict(listing.ignored)
    if left_out:
        ignored["image files that data.planes leaves out"] = left_out
    return dataclasses.replace(listing, files=tuple(joined), ignored=ignored), bad


def _trimmed(name: str) -> str:
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", name) or "image"


def _member(file: FolderFile) -> str:
    """The name of a file of an object that is a folder, with the folders in it."""
    inside = file.relative.removeprefix(f"{file.object_name}/")
    return _trimmed(stem_of(inside.replace("/", "_")))


def _match(relative: str, pattern: str) -> tuple[str, str] | None:
    """The object that a path names, and what is left of the file's name."""
    match = re.search(pattern, relative)
    if match is None or not match[1]:
        return None
    start, end = match.span(1)
    rest = (relative[:start] + "\0" + relative[end:]).rpartition("/")[2].replace("\0", "")
    return match[1], _trimmed(stem_of(rest))


def _plane(number: int, name: str) -> Plane:
    return Plane(number, name, 1, (), False)


def _are_planes(members: Mapping[pathlib.Path, str], rules: PlaneRules) -> bool:
    """Whether `data.planes` names files of objects, and not planes of each file.

    Raises:
      ConfigError: if only some of them do.
    """
    names = sorted(set(members.values()))
    planes = [_plane(number, name) for number, name in enumerate(names)]
    found = [any(matches(plane, pattern) for plane in planes) for pattern in rules.planes]
    if any(found) and not all(found):
        raise ConfigError(
            "data.planes", rules.planes, f"the files of an object are called {some(names)}"
        )
    return any(found)


def _split_rules(names: Sequence[str], rules: PlaneRules) -> tuple[PlaneRules, PlaneRules]:
    """The rules for the files of an object, and those for the planes inside each of them.

    Errors and masks may be files of their own, or stand in the file of each band.
    """
    planes = [_plane(number, name) for number, name in enumerate(names)]

    def are_files(patterns: Sequence[str], kinds: Sequence[str]) -> bool:
        if tuple(patterns) == (AUTO,):
            return any(kind_of(name) in kinds for name in names)
        wanted = [stated(pattern)[0] for pattern in patterns]
        return any(matches(plane, pattern) for plane in planes for pattern in wanted)

    variances, masks = rules.variance_planes, rules.mask_planes
    outside = rules._replace(
        variance_planes=variances if are_files(variances, VARIANCES) else (),
        mask_planes=masks if are_files(masks, MASKS) else (),
    )
    inside = PlaneRules(
        variance_planes=() if outside.variance_planes else variances,
        mask_planes=() if outside.mask_planes else masks,
        mask_bits=rules.mask_bits,
        one_plane=True,
    )
    return outside, inside


def _no_sample(plane: Plane) -> "object":
    raise AssertionError(f"{plane} is chosen by its name")


def _joined(
    files: Sequence[FolderFile],
    members: Mapping[pathlib.Path, str],
    reading: Reading,
    bad: list[BadFileError],
) -> tuple[list[FolderFile], int]:
    """One entry for each image of an object whose planes are files, and the files left out."""
    outside, inside = _split_rules(sorted(set(members.values())), reading.rules)
    objects: dict[tuple, list[FolderFile]] = collections.defaultdict(list)
    for file in files:
        objects[file.split, file.class_name, file.object_name].append(file)
    joined, used = [], 0
    for (_, _, name), own in objects.items():
        planes = [_plane(number, members[file.path]) for number, file in enumerate(own)]
        try:
            chosen = choose(planes, outside, _no_sample)  # type: ignore[arg-type]
        except UnusableError as error:
            bad.append(BadFileError(own[0].path, f"(object {name}) {error}"))
            continue
        units = [tuple(chosen)] if outside.bands == "channels" else [(one,) for one in chosen]
        for unit in units:
            numbers = [plane.number for one in unit for plane in one.planes]
            used += len(numbers)
            joined.append(
                dataclasses.replace(
                    own[numbers[0]],
                    chosen=unit,
                    members={number: own[number] for number in numbers},
                    inside=inside,
                )
            )
    return joined, len(files) - used


def _by_table(listing: Listing, reading: Reading) -> tuple[Listing, list[BadFileError]]:
    """Names the object of each image by a column of the table."""
    path = listing.root / TABLE
    rows = _read_table(path, str(reading.group))
    counts = collections.Counter(file.path.name for file in listing.files)
    files, bad = [], []
    for file in listing.files:
        below = file.path.relative_to(listing.root).as_posix()
        names = rows.get(below)
        if names is None and counts[file.path.name] == 1:
            names = rows.get(file.path.name)
        if names is None:
            bad.append(BadFileError(file.path, f"has no line {below} in {path}"))
            continue
        files.append(dataclasses.replace(file, row_names=tuple(names)))
    return dataclasses.replace(listing, files=tuple(files)), bad


def _read_table(path: pathlib.Path, column: str) -> dict[str, list[str]]:
    """The values of a column for each file, in the order of the lines."""
    names: dict[str, list[str]] = collections.defaultdict(list)
    advice = "allowed: a column of that table, or a regular expression with one group in brackets"
    if not path.is_file():
        raise ConfigError("data.group", column, f"there is no {path} with such a column; {advice}")
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
                    f"{some(columns) or 'none'}. The column {FILE_COLUMN} has the paths of the "
                    f"files; {advice}",
                )
            for number, line in enumerate(reader, 2):
                name, value = (line[FILE_COLUMN] or "").strip(), (line[column] or "").strip()
                if not name or not value:
                    raise DataError(f"{path}, line {number}: {FILE_COLUMN} or {column} is empty")
                names[name].append(value)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return names
