"""A short evaluation with each sample grid during training."""

from collections.abc import Mapping, Sequence

import numpy as np

from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.metrics.lensing import smooth_scores


def light_scores(
    generated: Sequence[np.ndarray],
    real: Sequence[np.ndarray],
    class_names: Sequence[str],
    data_name: str,
) -> Mapping[str, float]:
    """A few numbers of generated images, for the metrics of a training run.

    Args:
      generated: for each class, flux `[n, H, W, C]`.
      real: for each class, the same.
      class_names: names of the classes.
      data_name: the data set; the fits need a simulated one without noise.

    Returns:
      For each class `score/CLASS_flux` and `score/CLASS_peak`, medians over those of real images;
      `score/CLASS_negative`, the share of pixels below 0; and `score/CLASS_ratio`, the median of
      RMS(image - fit) / RMS(image) for the best lens without sub-structure.
    """
    simulated = SIMULATED_SETS.get(data_name)
    exact = simulated is not None and not (simulated.noisy or simulated.conserved)
    survey = simulated.survey if simulated and exact else None
    values: dict[str, float] = {}
    for name, images, originals in zip(class_names, generated, real, strict=True):
        if not len(originals):
            continue
        measured = {
            "flux": [np.median(flux.sum(axis=(1, 2, 3))) for flux in (images, originals)],
            "peak": [np.median(flux.max(axis=(1, 2, 3))) for flux in (images, originals)],
        }
        for quantity, (ours, theirs) in measured.items():
            values[f"score/{name}_{quantity}"] = float(ours / theirs) if theirs else float("nan")
        values[f"score/{name}_negative"] = float(np.mean(images < 0))
        if survey and images.shape[1] == survey.num_pixels and np.isfinite(images).all():
            scores = smooth_scores(images[..., 0], survey)
            values[f"score/{name}_ratio"] = scores["ratio_p50"]
    return values
