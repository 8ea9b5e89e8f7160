"""The split of a folder: objects by their content, or the user's own folders without leaks."""

import collections
import hashlib
from collections.abc import Sequence

from lensjax.data.folder.bad_files import BadFiles
from lensjax.data.folder.entries import Listing
from lensjax.data.folder.image import ScannedImage
from lensjax.errors import BadFileError, DataError


def _rank(digest: bytes) -> float:
    """A number in [0, 1) that depends on the content alone."""
    return int.from_bytes(digest[:6], "little") / 2**48


# Names an object, or one image of a stack that is an object of its own.
_Key = tuple[int, int] | str


def _key_of(image: ScannedImage) -> _Key:
    return image.object_name if image.object_name is not None else (image.file, image.row)


def objects_of(images: Sequence[ScannedImage]) -> list[bytes]:
    """Identifies the object of each image by content: equal images belong to one object.

    The object of a single image has that image's digest.
    """
    parents: dict[_Key | bytes, _Key | bytes] = {}

    def find(node: _Key | bytes) -> _Key | bytes:
        root = node
        while parents.setdefault(root, root) != root:
            root = parents[root]
        while parents[node] != root:
            parents[node], node = root, parents[node]
        return root

    for image in images:
        parents[find(_key_of(image))] = find(image.digest)
    members: dict[_Key | bytes, set[bytes]] = collections.defaultdict(set)
    roots = [find(image.digest) for image in images]
    for root, image in zip(roots, images, strict=True):
        members[root].add(image.digest)
    digests = {
        root: next(iter(held))
        if len(held) == 1
        else hashlib.blake2b(b"".join(sorted(held)), digest_size=16).digest()
        for root, held in members.items()
    }
    return [digests[root] for root in roots]


def assign_splits(
    images: list[ScannedImage], share: float, listing: Listing, bad: BadFiles
) -> list[ScannedImage]:
    """Splits each class by the content of its objects, with one object at least on either side."""
    objects = objects_of(images)
    by_class: dict[str | None, dict[bytes, ScannedImage]] = collections.defaultdict(dict)
    for image, digest in zip(images, objects, strict=True):
        by_class[image.class_name][digest] = image
    test: set[bytes] = set()
    for name, by_digest in by_class.items():
        if len(by_digest) < 2:
            (only,) = by_digest.values()
            raise DataError(
                f"data.folder: {'class ' + name if name else 'the set'} has only one image (not "
                f"counting copies), in {listing.files[only.file].path}; the training and test "
                f"splits need at least two objects; planes of a file are one object, and so are "
                f"images of one data.group; if the folders are objects and not classes, set "
                f"data.folders=objects{bad.explanation()}"
            )
        lowest, *_, highest = sorted(by_digest, key=_rank)
        chosen = {digest for digest in by_digest if _rank(digest) < share}
        test |= (chosen or {lowest}) - {highest}
    return [
        image._replace(split="test" if digest in test else "train")
        for image, digest in zip(images, objects, strict=True)
    ]


def without_leaks(
    images: list[ScannedImage], listing: Listing, bad: BadFiles
) -> list[ScannedImage]:
    """The images without training images of objects that the test split has too.

    Such copies are no fault of a file: they are left out and listed, whatever the policy.
    """
    objects = objects_of(images)
    in_test = {
        digest: image
        for image, digest in zip(images, objects, strict=True)
        if image.split == "test"
    }
    num_of_file = collections.Counter(image.file for image in images)
    remaining = []
    for image, digest in zip(images, objects, strict=True):
        if image.split != "train" or digest not in in_test:
            remaining.append(image)
            continue
        place = f"in [{image.number}] " if num_of_file[image.file] > 1 else ""
        other = in_test[digest]
        test_file = listing.files[other.file].path
        what = "an image" if image.digest == other.digest else "an image of an object"
        reason = (
            f"has {place}{what} of the test split, {test_file}; testing on it would prove nothing, "
            "so it is left out of training"
        )
        bad.errors.append(BadFileError(listing.files[image.file].path, reason))
    return remaining
