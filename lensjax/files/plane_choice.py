"""Decides which planes of a file are images, and which variances and masks belong to them."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lensjax.errors import AmbiguousError, UnusableError
from lensjax.files.plane_names import MASKS, VARIANCES, kind_of, subject_of
from lensjax.files.planes import AUTO, Chosen, Plane, PlaneRules, listed, matches, stated

_FEW_VALUES = 4  # a plane of no more whole numbers holds flags; faint counts have more
# Reads the first images of a plane, `[H, W, C]` each.
SampleFn = Callable[[Plane], Iterator[np.ndarray]]


def _matching(planes: Sequence[Plane], pattern: str, field: str) -> list[Plane]:
    found = [plane for plane in planes if matches(plane, pattern)]
    if not found:
        raise UnusableError(f"has no plane {pattern!r} ({field}); its planes: {listed(planes)}")
    return found


def _only(planes: Sequence[Plane], pattern: str, field: str) -> Plane:
    found = _matching(planes, pattern, field)
    if len(found) > 1:
        raise UnusableError(
            f"has {len(found)} planes for {pattern!r} ({field}), where one is wanted: "
            f"{listed(found)}"
        )
    return found[0]


def _is_picture(plane: Plane, sample: SampleFn) -> bool:
    """Whether a plane may be an image by its shape, and does not look like flags.

    Flags are constant, or a few whole numbers.
    """
    try:
        images = list(sample(plane))
    except UnusableError:  # such as parameters, which have no sides of an image
        return False
    values = np.concatenate([image.ravel() for image in images])
    distinct = np.unique(values[np.isfinite(values)])
    whole = bool((distinct == np.rint(distinct)).all())
    return len(distinct) > (_FEW_VALUES if whole else 1)


def _wanted(planes: Sequence[Plane], rules: PlaneRules) -> list[Plane]:
    """The images that the user names."""
    if rules.bands == "channels":
        bands = [_only(planes, pattern, "data.planes") for pattern in rules.planes]
        if len(set(bands)) < len(bands):
            raise UnusableError(f"has one plane for two of data.planes={rules.planes}")
        return bands
    matched = (_matching(planes, pattern, "data.planes") for pattern in rules.planes)
    return list(dict.fromkeys(itertools.chain.from_iterable(matched)))


def _images(planes: Sequence[Plane], rules: PlaneRules, sample: SampleFn) -> list[Plane]:
    """The planes that are images; see `choose`."""
    if rules.planes:
        return _wanted(planes, rules)
    if rules.one_plane and len(planes) == 1:
        return list(planes)
    candidates = [plane for plane in planes if plane.name.upper() == "SCI"]
    candidates = candidates or [plane for plane in planes if kind_of(plane.name) is None]
    described = tuple(plane.described() for plane in planes)
    if not candidates:
        raise AmbiguousError(
            f"holds no image, by the names of its planes: {listed(planes)}; if one of them is an "
            "image, set data.planes",
            described,
        )
    if len(candidates) > 1:
        candidates = [plane for plane in candidates if _is_picture(plane, sample)] or candidates
    if len(candidates) > 1:
        raise AmbiguousError(
            f"has {len(candidates)} planes that could be images: {listed(candidates)}; set "
            "data.planes to those that are, and data.bands=channels if they are bands of one image",
            described,
            tuple(plane.name or str(plane.number) for plane in candidates),
        )
    return candidates


def _companion(image: Plane, planes: Sequence[Plane], kinds: Sequence[str]) -> Plane | None:
    """The plane of one of some kinds that belongs to an image by name; the first kind wins.

    A plane whose name says more than its kind may belong to another image, or to a PSF.
    """
    for subject in (subject_of(image.name), ()):
        for kind in kinds:
            candidates = [
                plane
                for plane in planes
                if kind_of(plane.name) == kind and subject_of(plane.name) == subject
            ]
            same = [plane for plane in candidates if plane.version == image.version]
            candidates = same or candidates
            if len(candidates) == 1:
                return candidates[0]
    return None


def _found_by_name(
    images: Sequence[Plane], planes: Sequence[Plane], field: str, kinds: Sequence[str]
) -> list[Plane]:
    """The plane of variances or masks of each image, for `auto`."""
    others = [plane for plane in planes if plane not in images]
    found = [_companion(image, others, kinds) for image in images]
    missing = [image for image, plane in zip(images, found, strict=True) if plane is None]
    if missing or len(set(found)) < len(found):
        raise UnusableError(
            f"does not say which plane belongs to {(missing or images)[0]} ({field}=auto); name "
            f"it in {field}; its planes: {listed(planes)}"
        )
    return [plane for plane in found if plane is not None]


def _of_image(image: Plane, matched: Sequence[Plane], pattern: str, field: str) -> Plane:
    """The one of several planes that belongs to an image by its name and number (EXTVER)."""
    if len(matched) > 1:
        matched = [plane for plane in matched if subject_of(plane.name) == subject_of(image.name)]
    if len(matched) > 1:
        matched = [plane for plane in matched if plane.version == image.version]
    if len(matched) != 1:
        raise UnusableError(
            f"has {len(matched) or 'no'} planes for {pattern!r} ({field}) that belong to {image} "
            "by their names, where one is wanted"
        )
    return matched[0]


def _check_subjects(images: Sequence[Plane], found: Sequence[Plane], field: str) -> None:
    """Checks that no plane belongs by its name to another of the images."""
    for image, plane in zip(images, found, strict=True):
        subject = subject_of(plane.name)
        for other in images:
            if subject and subject == subject_of(other.name) != subject_of(image.name):
                raise UnusableError(
                    f"has {plane} for {image} ({field}), but by their names it belongs to {other}; "
                    "write the names in the order of data.planes"
                )


def _kind(plane: Plane, said: str | None, field: str, kinds: Sequence[str]) -> str:
    """The kind of a plane of variances or masks, as the user states it or its name does."""
    kind = said or kind_of(plane.name)
    if kind is not None and kind in kinds:
        return kind
    words = "=variance, =sigma or =weight" if kinds is VARIANCES else "=bad or =good"
    raise AmbiguousError(
        f"has the plane {plane} ({field}), whose name says {kind or 'nothing'}; write what it "
        f"holds behind its name: {words}"
    )


def _companions(
    images: Sequence[Plane],
    planes: Sequence[Plane],
    patterns: Sequence[str],
    field: str,
    kinds: Sequence[str],
) -> list[tuple[Plane, str] | tuple[None, None]]:
    """The plane of variances or masks of each image, and its kind."""
    if not patterns:
        return [(None, None)] * len(images)
    if tuple(patterns) == (AUTO,):
        found = _found_by_name(images, planes, field, kinds)
        return [(plane, _kind(plane, None, field, kinds)) for plane in found]
    if len(patterns) not in (1, len(images)):
        raise UnusableError(f"has {len(images)} images, but {len(patterns)} names in {field}")
    wanted = [stated(pattern) for pattern in patterns] * (len(images) if len(patterns) == 1 else 1)
    found = [
        _of_image(image, _matching(planes, name, field), name, field)
        for image, (name, _) in zip(images, wanted, strict=True)
    ]
    _check_subjects(images, found, field)
    return [
        (plane, _kind(plane, said, field, kinds))
        for plane, (_, said) in zip(found, wanted, strict=True)
    ]


def choose(planes: Sequence[Plane], rules: PlaneRules, sample: SampleFn) -> list[Chosen]:
    """Decides which planes of a file are images, and which planes belong to them.

    Without `rules.planes`, SCI planes are the images where there are any; else the planes whose
    names are of no other kind, and among several of these the ones that do not look like flags.

    Args:
      planes: all planes of two or more axes.
      rules: the user's choice.
      sample: reads images of a plane, for those whose names say nothing.

    Raises:
      AmbiguousError: if several planes could be images and `rules.planes` is empty, or a plane does
        not say what it holds.
      UnusableError: if a wanted plane is missing or means several.
    """
    images = _images(planes, rules, sample)
    variances = _companions(
        images, planes, rules.variance_planes, "data.variance_planes", VARIANCES
    )
    masks = _companions(images, planes, rules.mask_planes, "data.mask_planes", MASKS)
    return [
        Chosen(image, variance, mask, variance_kind, mask_kind)
        for image, (variance, variance_kind), (mask, mask_kind) in zip(
            images, variances, masks, strict=True
        )
    ]
