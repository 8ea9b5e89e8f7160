"""Shapes of lens images without a model: fluxes, ring, ellipticity, asymmetry, Gini, M20, modes.

Gini and M20 follow Lotz, Primack & Madau (2004), the asymmetry Conselice, Bershady & Jangren
(2000), all in the form of statmorph (Rodriguez-Gomez et al. 2019). The region of the first two is
an argument, so that any convention can be reproduced; `measure_shapes` states its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data.raytracing import pixel_centres
from lensjax.devices.chunks import map_chunks
from lensjax.metrics.image_input import check_images

NUM_MODES = 8
REGION_THRESHOLD = 0.05  # of the smoothed peak
FRAME_SHARE = 1 / 16  # width of the outer frame in sides of the image
M20_SHARE = 0.2
_MIN_M20_RATIO = 1e-10
_CHUNK = 128


def _divide(numerator: Array, denominator: Array) -> Array:
    """The quotient, 0 where the denominator is not positive."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0.0)


def _sum(values: Array) -> Array:
    return jnp.sum(values, axis=(-2, -1))


@jax.jit
def ring_region(images: Array) -> Array:
    """The default region: where the mean of 3x3 pixels is above 5 % of its peak.

    The mean keeps single pixels of noise out; 5 % is far below a ring and far above its
    background.

    Args:
      images: float32 `[N, H, W]`.

    Returns:
      bool `[N, H, W]`.
    """
    height, width = images.shape[-2:]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    assert smooth.shape[-2:] == (height, width)
    return smooth > REGION_THRESHOLD * jnp.max(smooth, axis=(-2, -1), keepdims=True)


@jax.jit
def gini(images: Array, region: Array) -> Array:
    """The Gini coefficient of the absolute pixel values inside a region.

    `sum_i (2 i - n - 1) |x_i| / ((n - 1) sum |x|)`, x sorted (Lotz et al. 2004, equation 6).

    Args:
      images: float32 `[N, H, W]`.
      region: bool `[N, H, W]`.

    Returns:
      `[N]`; 0 for a black region.
    """
    values = jnp.where(region, jnp.abs(images), 0.0).reshape(len(images), -1)
    # Pixels outside the region become zeros, which sort first: they shift the ranks and add 0.
    ordered = jnp.sort(values, axis=-1)
    count = jnp.sum(region, axis=(-2, -1))[:, None]
    rank = jnp.arange(1, ordered.shape[-1] + 1)[None] - (ordered.shape[-1] - count)
    weighted = jnp.sum((2 * rank - count - 1) * ordered, axis=-1)
    return _divide(weighted, (count[:, 0] - 1) * jnp.sum(ordered, axis=-1))


@jax.jit
def m20(images: Array, region: Array) -> Array:
    """Log10 of the share that the brightest 20 % of the flux has in the second moment.

    The moments are about the region's centroid (Lotz et al. 2004, equation 8, with the centroid in
    place of the minimising centre, as in statmorph).

    Args:
      images: float32 `[N, H, W]`.
      region: bool `[N, H, W]`.

    Returns:
      `[N]`, at least -10; 0 for a region without positive flux.
    """
    inside = jnp.where(region, images, 0.0)
    x, y = _grid(images.shape[-2:])
    total = _sum(inside)
    centre_x, centre_y = (_divide(_sum(inside * axis), total)[:, None, None] for axis in (x, y))
    distance = (x - centre_x) ** 2 + (y - centre_y) ** 2
    ordered = jnp.sort(inside.reshape(len(images), -1), axis=-1)
    reached = jnp.cumsum(ordered, axis=-1) >= (1 - M20_SHARE) * total[:, None]
    threshold = jnp.min(jnp.where(reached, ordered, jnp.inf), axis=-1)[:, None, None]
    brightest = jnp.where(inside >= threshold, inside, 0.0)
    total_moment = _sum(inside * distance)
    share = _divide(_sum(brightest * distance), total_moment)
    defined = (total > 0) & (total_moment > 0)
    return jnp.where(defined, jnp.log10(jnp.maximum(share, _MIN_M20_RATIO)), 0.0)


@jax.jit
def asymmetry(images: Array) -> Array:
    """`sum |I - I_180| / sum |I|`, I_180 the image turned by 180 degrees about its centre.

    Conselice et al. (2000) without a sky, at the image's centre and not at the centre that
    minimises the asymmetry: a lens has a centre of its own.

    Args:
      images: float32 `[N, H, W]`.

    Returns:
      `[N]`; 0 for a black image.
    """
    return _divide(_sum(jnp.abs(images - images[:, ::-1, ::-1])), _sum(jnp.abs(images)))


def _grid(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The distances x `[1, 1, W]` and y `[1, H, 1]` from the image's centre, in pixels."""
    height, width = shape
    x, y = (jnp.asarray(pixel_centres(side, 1.0), jnp.float32) for side in (width, height))
    return x[None, None, :], y[None, :, None]


@jax.jit
def ring_radius_and_width(images: Array, region: Array) -> tuple[Array, Array]:
    """The flux-weighted mean distance from the image's centre, and its s.d., in pixels.

    Args:
      images: float32 `[N, H, W]`; negative pixels count as 0.
      region: bool `[N, H, W]`.

    Returns:
      Two arrays `[N]`; 0 for a black region.
    """
    weights = jnp.where(region, jnp.maximum(images, 0.0), 0.0)
    x, y = _grid(images.shape[-2:])
    distance = jnp.sqrt(x**2 + y**2)
    total = _sum(weights)
    radius = _divide(_sum(weights * distance), total)
    spread = _divide(_sum(weights * jnp.square(distance - radius[:, None, None])), total)
    return radius, jnp.sqrt(spread)


@jax.jit
def centroid_and_ellipticity(images: Array, region: Array) -> tuple[Array, Array, Array, Array]:
    """The centroid and the ellipticity of the second moments about it.

    `e = (Qxx - Qyy + 2 i Qxy) / (Qxx + Qyy + 2 sqrt(Qxx Qyy - Qxy^2))`, so that an ellipse has
    `|e| = (1 - q) / (1 + q)`, as in the lens parameters.

    Args:
      images: float32 `[N, H, W]`; negative pixels count as 0.
      region: bool `[N, H, W]`.

    Returns:
      Centroid x and y in pixels from the image's centre, e1, e2, each `[N]`; 0 for a black region.
    """
    weights = jnp.where(region, jnp.maximum(images, 0.0), 0.0)
    x, y = _grid(images.shape[-2:])
    total = _sum(weights)
    centre_x, centre_y = _divide(_sum(weights * x), total), _divide(_sum(weights * y), total)
    dx, dy = x - centre_x[:, None, None], y - centre_y[:, None, None]
    xx, yy, xy = (_divide(_sum(weights * pair), total) for pair in (dx * dx, dy * dy, dx * dy))
    size = xx + yy + 2 * jnp.sqrt(jnp.maximum(xx * yy - xy * xy, 0.0))
    return centre_x, centre_y, _divide(xx - yy, size), _divide(2 * xy, size)


@jax.jit
def azimuthal_modes(images: Array, region: Array) -> Array:
    """The relative amplitudes of the modes 1 to 8 of the flux around the image's centre.

    `2 |sum I exp(i m phi)| / sum I`: a ring `1 + a cos(m phi)` has amplitude a.

    Args:
      images: float32 `[N, H, W]`.
      region: bool `[N, H, W]`.

    Returns:
      `[N, 8]`; 0 where the flux is not positive.
    """
    height, width = images.shape[-2:]
    x, y = pixel_centres(width, 1.0)[None, :], pixel_centres(height, 1.0)[:, None]
    angle = np.arctan2(y, x).ravel()
    phases = np.exp(1j * angle[:, None] * np.arange(1, NUM_MODES + 1))
    phases[np.hypot(x, y).ravel() == 0] = 0  # the central pixel has no direction
    table = jnp.asarray(np.concatenate([phases.real, phases.imag], axis=1), jnp.float32)
    flux = jnp.where(region, images, 0.0).reshape(len(images), -1)
    sums = jnp.matmul(flux, table, precision="highest")
    amplitude = jnp.hypot(sums[:, :NUM_MODES], sums[:, NUM_MODES:])
    return _divide(2 * amplitude, jnp.sum(flux, axis=-1, keepdims=True))


@functools.partial(jax.jit, static_argnames="pixel_scale_arcsec")
def _measure_chunk(images: Array, pixel_scale_arcsec: float) -> dict[str, Array]:
    frame = outer_frame(images.shape[-2:])
    region = ring_region(images)
    radius, width = ring_radius_and_width(images, region)
    centre_x, centre_y, e1, e2 = centroid_and_ellipticity(images, region)
    modes = azimuthal_modes(images, region)
    return {
        "total_flux": _sum(images),
        "peak": jnp.max(images, axis=(-2, -1)),
        "negative_share": jnp.mean(images < 0, axis=(-2, -1), dtype=jnp.float32),
        "frame_rms": jnp.sqrt(_sum(jnp.where(frame, images**2, 0.0)) / frame.sum()),
        "ring_radius_arcsec": radius * pixel_scale_arcsec,
        "ring_width_arcsec": width * pixel_scale_arcsec,
        "centroid_x_arcsec": centre_x * pixel_scale_arcsec,
        "centroid_y_arcsec": centre_y * pixel_scale_arcsec,
        "ellipticity_1": e1,
        "ellipticity_2": e2,
        "asymmetry": asymmetry(images),
        "gini": gini(images, region),
        "m20": m20(images, region),
        **{f"mode_{m}": modes[:, m - 1] for m in range(1, NUM_MODES + 1)},
    }


def outer_frame(shape: tuple[int, ...]) -> np.ndarray:
    """The outer frame, bool `[1, H, W]`, a sixteenth of the shorter side wide."""
    width = max(1, round(min(shape) * FRAME_SHARE))
    frame = np.ones((1, *shape), bool)
    frame[:, width:-width, width:-width] = False
    return frame


def measure_shapes(images: np.ndarray, pixel_scale_arcsec: float) -> dict[str, np.ndarray]:
    """Measures flux and shape of each image; no lens model is assumed.

    Ring, centroid, ellipticity, Gini, M20 and modes look at `ring_region` alone; the asymmetry is
    that of the whole image about its centre. The ring's radius is the flux-weighted mean distance
    from the image's centre and not the peak of the radial profile, which jumps between the inner
    and the outer arc of an off-centre source.

    Args:
      images: flux per pixel, `[N, H, W]`, sides of at least 8 pixels.
      pixel_scale_arcsec: side of a pixel.

    Returns:
      float32 `[N]` each: `total_flux`, `peak`, `negative_share` (of the pixels), `frame_rms` (RMS
      of the outer frame, a sixteenth of the side wide), `ring_radius_arcsec`, `ring_width_arcsec`,
      `centroid_x_arcsec`, `centroid_y_arcsec`, `ellipticity_1`, `ellipticity_2`, `asymmetry`,
      `gini`, `m20`, `mode_1` to `mode_8`.

    Raises:
      ValueError: for images of another shape or that are not finite.
    """
    images = check_images(images)
    scale = float(pixel_scale_arcsec)
    return map_chunks(lambda chunk: _measure_chunk(chunk, scale), _CHUNK, images)
