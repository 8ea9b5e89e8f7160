"""Where the searches of a fit begin: grids of lenses compared with many images together."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data.simulator import SOURCE_POSITION_LIMIT
from lensjax.errors import MeasureError


def position_grid(num_per_axis: int) -> Array:
    """A square grid of source positions over the prior, float32 `[num_per_axis^2, 2]`, arcsec."""
    limit = SOURCE_POSITION_LIMIT
    axis = np.linspace(-limit, limit, num_per_axis, dtype=np.float32)
    return jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def candidate_costs(images: Array, candidates: Array, free_amplitude: bool) -> Array:
    """The sums of squares of images against candidates, less the images' own power.

    One matrix product takes the place of all differences.

    Args:
      images: `[N, H, W]`.
      candidates: `[T, H, W]`.
      free_amplitude: each candidate has the amplitude that suits the image best.

    Returns:
      `[N, T]`.
    """
    flat = candidates.reshape(len(candidates), -1)
    products = jnp.matmul(images.reshape(len(images), -1), flat.T, precision="highest")
    power = jnp.sum(jnp.square(flat), axis=1)[None]
    if free_amplitude:
        return -jnp.square(jnp.maximum(products, 0)) / power
    return power - 2 * products


def local_minima(costs: np.ndarray, count: int, *, periodic: bool = False) -> np.ndarray:
    """The lowest local minima of tables; where there are too few, the lowest other entries.

    Args:
      costs: `[N, R, C]`.
      count: minima of each table.
      periodic: whether the last column lies beside the first.

    Returns:
      Indices into the flattened tables, best first, `[N, count]`.
    """
    padded = np.pad(costs, ((0, 0), (1, 1), (0, 0)), constant_values=np.inf)
    columns = {"mode": "wrap"} if periodic else {"constant_values": np.inf}
    padded = np.pad(padded, ((0, 0), (0, 0), (1, 1)), **columns)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    elsewhere = costs > windows.min(axis=(3, 4))
    flat = costs.reshape(len(costs), -1)
    return np.lexsort((flat, elsewhere.reshape(flat.shape)), axis=-1)[:, :count]


def starts_from(
    source_x: np.ndarray, source_y: np.ndarray, others: np.ndarray, count: int
) -> np.ndarray:
    """One start for each image: the source position of the smooth fit, and constants.

    Args:
      source_x: arcsec, `[N]`.
      source_y: arcsec, `[N]`.
      others: the other parameters, `[P]`.
      count: the number of images.

    Returns:
      float32 `[N, 1, 2 + P]`.

    Raises:
      MeasureError: for positions of another number of images.
    """
    if len(source_x) != count:
        raise MeasureError(
            f"smooth holds {len(source_x)} fits for {count} images; pass the smooth fit of these "
            "images, or none"
        )
    constants = np.broadcast_to(others, (count, len(others)))
    return np.column_stack([source_x, source_y, constants]).astype(np.float32)[:, None]
