"""A disc of source positions that training leaves out, so that a later test can look for it.

A disc is `(x, y, radius)` in arcsec; sources lie in a square of half the side `limit` around 0.
"""

import math
from collections.abc import Sequence

import numpy as np

_ANGLES = 4096


def inside(x: np.ndarray, y: np.ndarray, disc: Sequence[float]) -> np.ndarray:
    """Which positions lie in a disc, its edge included: bool, the shape of `x` and `y`."""
    centre_x, centre_y, radius = disc
    return np.hypot(np.asarray(x, np.float64) - centre_x, np.asarray(y) - centre_y) <= radius


def overlaps(disc: Sequence[float], limit: float) -> bool:
    """Whether a part of the disc lies within the square of sources."""
    beyond = [max(abs(centre) - limit, 0.0) for centre in disc[:2]]
    return math.hypot(*beyond) < disc[2]


def covers(disc: Sequence[float], limit: float) -> bool:
    """Whether the whole square of sources lies in the disc."""
    return math.hypot(abs(disc[0]) + limit, abs(disc[1]) + limit) <= disc[2]


def share_of_square(disc: Sequence[float], limit: float) -> float:
    """The share of the square, and so of uniformly drawn sources, that lies in the disc.

    The chords of the disc, cut by the square, are summed over the angle at which they begin, which
    is exact to 1e-6 of the square.
    """
    centre_x, centre_y, radius = disc
    sines = np.clip((np.array([-limit, limit]) - centre_x) / radius, -1, 1)
    first, last = np.arcsin(sines)
    step = (last - first) / _ANGLES
    half_chord = radius * np.cos(first + (np.arange(_ANGLES) + 0.5) * step)
    top = np.minimum(centre_y + half_chord, limit)
    bottom = np.maximum(centre_y - half_chord, -limit)
    area = np.sum(np.maximum(top - bottom, 0.0) * half_chord) * step
    return float(area / (2 * limit) ** 2)
