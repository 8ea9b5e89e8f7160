"""The sets of images that an evaluation compares: one row of its tables for each set.

Generated, real and baseline images are measured alike; all rows share a `Setting`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from lensjax.config import EvaluateConfig
from lensjax.data.catalogue import SimulatedSet
from lensjax.data.dataset import DatasetInfo
from lensjax.data.surveys import Survey
from lensjax.devices.hosts import share_rows
from lensjax.evaluation.real import RealImages
from lensjax.metrics.lensing import SmoothFit, fit_smooth
from lensjax.metrics.potential_fit import fit_potential

# Images without labels are one group.
ALL = "all"


def rescale(images: np.ndarray, image_scale: str) -> np.ndarray:
    """Scales images `[N, H, W, C]` as `evaluate.image_scale` says; real images too."""
    if image_scale == "flux":
        return images
    axes = (1, 2, 3)
    low = images.min(axis=axes, keepdims=True) if image_scale == "minmax" else np.float32(0)
    high = images.max(axis=axes, keepdims=True)
    return (images - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """The data set, configuration and cache that all rows of an evaluation share.

    Attributes:
      info: the data set; `image_shape` is that of the rows.
      simulated: how it was simulated; None for the user's own images.
      settings: the `evaluate` section.
      per_class: images per class that are judged, which may be fewer than the real ones.
      cache: folder of cached results.
      real_images: source of the training images.
      disc: x, y and radius in arcsec of the source positions that training left out; () for none.
      labelled: whether the images that are judged have labels.
    """

    info: DatasetInfo
    simulated: SimulatedSet | None
    settings: EvaluateConfig
    per_class: int
    cache: pathlib.Path
    real_images: RealImages
    disc: tuple[float, ...] = ()
    labelled: bool = True

    @property
    def survey(self) -> Survey | None:
        """The DeepLense model that noise-free images are fitted by; None if there is none."""
        if self.simulated is None or self.simulated.noisy:
            return None
        return self.simulated.survey

    @property
    def in_flux(self) -> bool:
        """Whether the images have their flux."""
        return self.settings.image_scale == "flux"

    @functools.cached_property
    def flux_limits(self) -> tuple[float, ...]:
        """Largest pixel of each band of the real images: the upper end of the map to 8 bits."""
        images = rescale(self.real_images.test.images, self.settings.image_scale)
        return tuple(map(float, images.max(axis=(0, 1, 2))))

    @functools.lru_cache(maxsize=2)  # noqa: B019 (lives as long as one evaluation)
    def train(self, per_class: int) -> "Row":
        """The first training images of each class, at most `per_class` each."""
        split = self.real_images.train(per_class)
        return Row("training", split.images, split.labels, self)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def train_residuals(self, group: str) -> np.ndarray:
        """The residuals of the smooth fit to the first training images, `[T, H, W]`."""
        return self.train(self.settings.train_images).residuals(group)


class Row:
    """Images of one origin, with fits that several measures use.

    Args:
      name: the row's name in every table.
      images: flux, or any scale if `evaluate.image_scale` is not flux, float32 `[N, H, W, C]`.
      labels: int32 `[N]`, the null label where none is known.
      setting: shared by all rows.
    """

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray, setting: Setting) -> None:
        self.name = name
        self.images = rescale(images, setting.settings.image_scale)
        self.labels = labels
        self.setting = setting
        self._fits: dict[tuple[str, bool], SmoothFit] = {}
        self._potential_ratios: dict[str, np.ndarray] = {}

    @functools.cached_property
    def groups(self) -> Mapping[str, np.ndarray]:
        """Places of the images of each class, and of those without labels; no group is empty."""
        names = self.setting.info.class_names
        groups = {name: np.flatnonzero(self.labels == index) for index, name in enumerate(names)}
        groups[ALL] = np.flatnonzero(self.labels >= len(names))
        return {name: places for name, places in groups.items() if len(places)}

    @property
    def most_per_class(self) -> int:
        """The largest number of images of a class; without labels, as if classes were even."""
        if ALL in self.groups:
            return -(-len(self.images) // max(1, self.setting.info.num_classes))
        return max(map(len, self.groups.values()))

    def of(self, group: str) -> np.ndarray:
        """A group's images, `[n, H, W, C]`; empty for a group without images."""
        return self.images[self.groups.get(group, np.empty(0, int))]

    def planes(self, group: str) -> np.ndarray:
        """The only band of a group's images, `[n, H, W]`, which the forward model has."""
        images = self.of(group)
        assert images.shape[-1] == 1  # as in every simulated set
        return images[..., 0]

    def smooth(self, group: str, *, free_amplitude: bool = False) -> SmoothFit:
        """The fits of the lens without sub-structure to a group's images; cached.

        Args:
          group: of the images.
          free_amplitude: also fits the brightness, as always where images are not flux.
        """
        free = free_amplitude or not self.setting.in_flux
        if (group, free) not in self._fits:
            survey = self.setting.survey
            assert survey is not None  # the measures that ask for fits have checked it
            fit = functools.partial(fit_smooth, survey=survey, free_amplitude=free)
            self._fits[group, free] = share_rows(fit, self.planes(group))
        return self._fits[group, free]

    def potential_ratio(self, group: str) -> np.ndarray:
        """Ratio of residual to image, `[n]`, after a free correction of the potential; cached."""
        if group not in self._potential_ratios:
            survey = self.setting.survey
            assert survey is not None
            free = not self.setting.in_flux
            images, smooth = self.planes(group), self.smooth(group)

            def ratios(images: np.ndarray, smooth: SmoothFit) -> np.ndarray:
                return fit_potential(images, survey, smooth, free_amplitude=free).ratio

            self._potential_ratios[group] = share_rows(ratios, images, smooth)
        return self._potential_ratios[group]

    def residuals(self, group: str) -> np.ndarray:
        """The residuals of the smooth fit to a group's images, float32 `[n, H, W]`."""
        return (self.planes(group) - self.smooth(group).image).astype(np.float32)
