"""The interface of every data set: its description, its splits and their examples."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

# The splits that every set has.
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The description of a data set, without its images.

    Attributes:
      name: full name, such as `deeplense/model_ii_mini`.
      fingerprint: identifies the version and constants, or the files, that made the set.
      class_names: the names behind the labels; empty for an unlabelled set.
      parameter_names: the names of the columns of `LensSplit.parameters`; may be empty.
      split_sizes: number of images of each split.
      image_shape: `(H, W, C)`.
      flux_unit: the unit of a pixel's value.
      minimum: smallest pixel of the train split.
      maximum: largest pixel of the train split.
      published_scale: factor from flux to the values in published files of the same kind.
      pixel_scale_arcsec: side of a pixel; None if it is not known.
      psf_fwhm_arcsec: full width at half maximum of the point-spread function; None if it is
        not known.
      zero_point_mag: magnitude of one `flux_unit`; None if it is not known.
      masked: whether pixels without a measurement stand as NaN in the images.
      integer: whether every pixel is a whole number.
      band_names: the bands of the channels, C of them; empty where they have no names.
      band_zero_points_mag: magnitude of one `flux_unit` in each band; empty where one is not known.
      has_variance: whether each pixel has a variance.
    """

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    parameter_names: tuple[str, ...] = dataclasses.field(repr=False)
    split_sizes: dict[str, int]
    image_shape: tuple[int, int, int]
    flux_unit: str
    minimum: float
    maximum: float
    published_scale: float = 1.0
    pixel_scale_arcsec: float | None = None
    psf_fwhm_arcsec: float | None = None
    zero_point_mag: float | None = None
    masked: bool = False
    integer: bool = False
    band_names: tuple[str, ...] = ()
    band_zero_points_mag: tuple[float, ...] = ()
    has_variance: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unlabelled set; it is also the null label."""
        return len(self.class_names)

    @property
    def bands(self) -> tuple[str, ...]:
        """A name for each of the C bands, see `band_labels`."""
        return band_labels(self.image_shape[-1], self.band_names)


def band_labels(num_bands: int, names: Sequence[str] = ()) -> tuple[str, ...]:
    """A name for each band: those that are known, else `band 1` and so on."""
    return tuple(names) or tuple(f"band {number}" for number in range(1, num_bands + 1))


class Examples(NamedTuple):
    """A few examples of a split.

    Attributes:
      images: float32 `[B, H, W, C]`, flux per pixel; NaN where a mask says so.
      labels: int32 `[B]`.
      variance: float32 `[B, H, W, C]`, flux squared, infinite where nothing was measured; None for
        a set without variances.
    """

    images: np.ndarray
    labels: np.ndarray
    variance: np.ndarray | None = None


class Split(Protocol):
    """One split of a data set, in memory (`LensSplit`) or on disk (`records.RecordSplit`)."""

    @property
    def info(self) -> DatasetInfo:
        """The description of the whole set."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def examples(self, indices: np.ndarray) -> Examples:
        """The examples at the given places, integers `[B]`."""
        ...

    def parameter_columns(self, names: Sequence[str]) -> np.ndarray:
        """Some parameters of every image, float32 `[N, len(names)]`, in that order."""
        ...

    def all_labels(self) -> np.ndarray:
        """The label of every image, int32 `[N]`."""
        ...

    def in_memory(self) -> "LensSplit":
        """The whole split as arrays."""
        ...


@dataclasses.dataclass(frozen=True)
class LensSplit:
    """One split of a data set, in memory and in the order in which it was written.

    Attributes:
      images: float32 `[N, H, W, C]`, flux per pixel in `info.flux_unit`, row 0 at the lowest y.
      labels: int32 `[N]`; `info.num_classes` (the null label) where there is none.
      parameters: float32 `[N, P]`, columns named by `info.parameter_names`; NaN where a class has
        no such parameter.
      info: the description of the whole set.
      variance: float32 `[N, H, W, C]`, see `Examples`; None for a set without variances.
      mask: bool `[N, H, W, C]`, True for pixels that are not to be used; None for a set without
        masks.
    """

    images: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray
    info: DatasetInfo
    variance: np.ndarray | None = None
    mask: np.ndarray | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def examples(self, indices: np.ndarray) -> Examples:
        """The examples at the given places, integers `[B]`."""
        variance = None if self.variance is None else self.variance[indices]
        return Examples(self.images[indices], self.labels[indices], variance)

    def parameter_columns(self, names: Sequence[str]) -> np.ndarray:
        """Some parameters of every image, float32 `[N, len(names)]`, in that order."""
        return self.parameters[:, [self.info.parameter_names.index(name) for name in names]]

    def all_labels(self) -> np.ndarray:
        """The label of every image, int32 `[N]`."""
        return self.labels

    def in_memory(self) -> "LensSplit":
        """The split itself."""
        return self


_SEARCH_CHUNK = 1024  # images that are read together, or fewer:
_SEARCH_BYTES = 2**24  # as many as fit into this size


def first_of_each_class(split: Split, num_images: int) -> list[np.ndarray]:
    """The first images of each class in flux units, `[<= num_images, H, W, C]` each.

    An unlabelled set counts as one class. Reading stops as soon as every class is complete.
    """
    by_class: list[list[np.ndarray]] = [[] for _ in range(max(1, split.info.num_classes))]
    chunk = min(_SEARCH_CHUNK, max(1, _SEARCH_BYTES // (4 * math.prod(split.info.image_shape))))
    start = 0
    while start < len(split) and any(len(images) < num_images for images in by_class):
        stop = min(start + chunk, len(split))
        examples = split.examples(np.arange(start, stop))
        for label, images in enumerate(by_class):
            chosen = np.flatnonzero(examples.labels == label)[: num_images - len(images)]
            images.extend(examples.images[chosen])
        start = stop
    empty = np.empty((0, *split.info.image_shape), np.float32)
    return [np.stack(images) if images else empty for images in by_class]
