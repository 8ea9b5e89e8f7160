"""Pixels without a measurement in real images, which no measure can take, get a likely value."""

import numpy as np

_REACH = 2  # pixels to each side that are averaged


def fill_masked(images: np.ndarray) -> tuple[np.ndarray, float]:
    """Fills pixels that are NaN with the mean of the measured ones around them.

    The mean is that of the 5x5 pixels around in the same channel; of the whole channel where none
    of them was measured; 0 where none is measured at all. A filled pixel has no noise of its own.

    Args:
      images: flux, float32 `[N, H, W, C]`.

    Returns:
      The images, and the share of their pixels that were filled.
    """
    missing = np.isnan(images)
    if not missing.any():
        return images, 0.0
    filled = images.copy()
    for index in np.flatnonzero(missing.any(axis=(1, 2, 3))):
        image, gaps = filled[index], missing[index]
        values = image.copy()
        channels = (values[..., channel][~gaps[..., channel]] for channel in range(gaps.shape[-1]))
        whole = [measured.mean() if measured.size else 0.0 for measured in channels]
        for row, column, channel in np.argwhere(gaps):
            rows = slice(max(0, row - _REACH), row + _REACH + 1)
            columns = slice(max(0, column - _REACH), column + _REACH + 1)
            around = values[rows, columns, channel]
            measured = around[~np.isnan(around)]
            image[row, column, channel] = measured.mean() if measured.size else whole[channel]
    return filled, float(missing.mean())
