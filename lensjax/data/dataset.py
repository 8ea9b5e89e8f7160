"""What every data set looks like once it is in memory, whoever wrote it."""

import dataclasses

import numpy as np


class DataError(ValueError):
    """A data set that does not exist, does not fit, or is not what it claims to be."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set beside its images.

    Attributes:
      name: full name, such as `deeplense/model_ii_mini`.
      fingerprint: identifies the code and constants, or the files, that made the set.
      class_names: the names behind the labels; empty for an unlabelled set.
      parameter_names: the names of the columns of `LensSplit.parameters`; may be empty.
      split_sizes: number of images of each split.
      image_shape: `(H, W, C)`.
      flux_unit: the unit of a pixel's value.
      minimum: smallest pixel of the train split.
      maximum: largest pixel of the train split.
      published_scale: what published files of the same kind are multiplied by.
      pixel_scale_arcsec: side of a pixel; None where it is not known.
      psf_fwhm_arcsec: full width at half maximum of the point-spread function; None where it is
        not known.
      zero_point_mag: magnitude of one `flux_unit`; None where it is not known.
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

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unlabelled set; it is also the null label."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class LensSplit:
    """One split of a data set, in memory and in the order in which it was written.

    Attributes:
      images: float32 `[N, H, W, C]`, flux per pixel in `info.flux_unit`, row 0 at the lowest y.
      labels: int32 `[N]`; `info.num_classes` (the null label) where there is none.
      parameters: float32 `[N, P]`, columns named by `info.parameter_names`; NaN where a class has
        no such parameter.
      info: what the whole set has in common.
    """

    images: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray
    info: DatasetInfo

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)
