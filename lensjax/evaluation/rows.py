"""The sets of images that an evaluation compares: one row of its tables for each set.

Generated, real and baseline images are measured alike; a `Setting` is what all rows share.
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
    """Images `[N, H, W, C]` as `evaluate.image_scale` says; real ones are treated alike."""
    if image_scale == "flux":
        return images
    axes = (1, 2, 3)
    low = images.min(axis=axes, keepdims=True) if image_scale == "minmax" else np.float32(0)
    high = images.max(axis=axes, keepdims=True)
    return (images - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What all rows of an evaluation share.

    Attributes:
      info: the data set; `image_shape` is that of the rows.
      simulated: how it was simulated; None for the user's own images.
      settings: the `evaluate` section.
      per_class: images a class that are judged.
      cache: folder of what is computed once.
      real_images: where training images come from.
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
        """The DeepLense model that noise-free images are fitted by; None where there is none."""
        exact = self.simulated is not None and not self.simulated.noisy
        return self.simulated.survey if self.simulated and exact else None

    @property
    def in_flux(self) -> bool:
        """Whether the images have their flux."""
        return self.settings.image_scale == "flux"

    @functools.cached_property
    def flux_limit(self) -> float:
        """Largest pixel of the real images: the upper end of the map to 8 bits."""
        return float(rescale(self.real_images.test.images, self.settings.image_scale).max())

    @functools.lru_cache(maxsize=2)  # noqa: B019 (lives as long as one evaluation)
    def train(self, num: int) -> "Row":
        """The first training images of each class, at most `num` each."""
        split = self.real_images.train(num)
        return Row("training", split.images, split.labels, self)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def train_residuals(self, group: str) -> np.ndarray:
        """What the smooth fit leaves of the first training images, `[T, H, W]`."""
        return self.train(self.settings.train_images).residuals(group)


class Row:
    """Images of one origin, with fits that several measures use.

    Args:
      name: of the row in every table.
      images: flux, or what `evaluate.image_scale` says, float32 `[N, H, W, C]`.
      labels: int32 `[N]`, the null label where none is known.
      setting: what all rows share.
    """

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray, setting: Setting) -> None:
        self.name = name
        self.images = rescale(images, setting.settings.image_scale)
        self.labels = labels
        self.setting = setting
        self._fits: dict[str, SmoothFit] = {}
        self._potential_ratios: dict[str, np.ndarray] = {}

    @functools.cached_property
    def groups(self) -> Mapping[str, np.ndarray]:
        """Places of the images of each class that is there, or of all images without labels."""
        names = self.setting.info.class_names
        found = {name: np.flatnonzero(self.labels == index) for index, name in enumerate(names)}
        found[ALL] = np.flatnonzero(self.labels >= len(names))
        return {name: places for name, places in found.items() if len(places)}

    def of(self, group: str) -> np.ndarray:
        """The first channel of a group's images, `[n, H, W]`; none where there is none."""
        return self.images[self.groups.get(group, np.empty(0, int)), ..., 0]

    def smooth(self, group: str) -> SmoothFit:
        """The fits of the lens without sub-structure to a group's images; kept."""
        if group not in self._fits:
            survey = self.setting.survey
            assert survey is not None  # the measures that ask for fits have checked it
            free = not self.setting.in_flux
            fit = functools.partial(fit_smooth, survey=survey, free_amplitude=free)
            self._fits[group] = share_rows(fit, self.of(group))
        return self._fits[group]

    def potential_ratio(self, group: str) -> np.ndarray:
        """What a free correction of the potential leaves of a group's images; kept."""
        if group not in self._potential_ratios:
            survey = self.setting.survey
            assert survey is not None
            free = not self.setting.in_flux
            images, smooth = self.of(group), self.smooth(group)

            def ratios(images: np.ndarray, smooth: SmoothFit) -> np.ndarray:
                return fit_potential(images, survey, smooth, free_amplitude=free).ratio

            self._potential_ratios[group] = share_rows(ratios, images, smooth)
        return self._potential_ratios[group]

    def residuals(self, group: str) -> np.ndarray:
        """What the smooth fit leaves of a group's images, float32 `[n, H, W]`."""
        return (self.of(group) - self.smooth(group).image).astype(np.float32)
