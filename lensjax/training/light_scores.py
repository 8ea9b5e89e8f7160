"""A short evaluation with each sample grid during training."""

from collections.abc import Mapping, Sequence

import numpy as np

from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import band_labels
from lensjax.metrics.lensing import smooth_scores


def light_scores(
    generated: Sequence[np.ndarray],
    real: Sequence[np.ndarray],
    class_names: Sequence[str],
    data_name: str,
    bands: Sequence[str] = (),
) -> Mapping[str, float]:
    """A few numbers of generated images, for the metrics of a training run.

    Args:
      generated: for each class, flux `[n, H, W, C]`.
      real: for each class, the same.
      class_names: names of the classes.
      data_name: the data set; the fits need a simulated one without noise.
      bands: names of the C bands; () for `band 1` and so on.

    Returns:
      For each class `score/CLASS_flux` and `score/CLASS_peak`, medians over those of real images;
      `score/CLASS_negative`, the share of pixels below 0; and `score/CLASS_ratio`, the median of
      RMS(image - fit) / RMS(image) for the best lens without sub-structure. Of several bands, each
      has the first three numbers, as `score/CLASS_BAND_flux`.
    """
    simulated = SIMULATED_SETS.get(data_name)
    exact = simulated is not None and not (simulated.noisy or simulated.conserved)
    survey = simulated.survey if simulated and exact else None
    values: dict[str, float] = {}
    for name, images, originals in zip(class_names, generated, real, strict=True):
        if not len(originals):
            continue
        several = images.shape[-1] > 1
        for band, label in enumerate(band_labels(images.shape[-1], bands)):
            prefix = f"score/{name}_{label}" if several else f"score/{name}"
            values |= _brightness(images[..., band], originals[..., band], prefix)
        if survey and images.shape[1] == survey.num_pixels and np.isfinite(images).all():
            scores = smooth_scores(images[..., 0], survey)
            values[f"score/{name}_ratio"] = scores["ratio_p50"]
    return values


def _brightness(images: np.ndarray, originals: np.ndarray, prefix: str) -> dict[str, float]:
    """Flux and peak of a band's images `[n, H, W]` over those of real ones, and negative pixels."""
    values = {}
    for quantity, over_pixels in (("flux", np.sum), ("peak", np.max)):
        ours, theirs = (np.median(over_pixels(flux, axis=(1, 2))) for flux in (images, originals))
        values[f"{prefix}_{quantity}"] = float(ours / theirs) if theirs else float("nan")
    return values | {f"{prefix}_negative": float(np.mean(images < 0))}
