"""The Inception-v3 of published Frechet distances, as a pure function of its weights."""

import functools
from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lensjax.errors import MeasureError
from lensjax.models.inception_blocks import (
    NETWORK,
    NORMALISATION,
    Block,
    Convolution,
    Fork,
    Pool,
    Step,
    full_name,
    kernel_shapes,
    weight_shapes,
)

INPUT_SIZE = 299
LAYERS = tuple(NETWORK)  # 64, 192, 768, 2048
_NORMALISATION_EPSILON = 1e-3
_MIDDLE_GREY = 128.0


class Folded(NamedTuple):
    """A convolution with its batch normalisation folded in.

    Attributes:
      kernel: float32 `[height, width, in, out]`.
      bias: float32 `[out]`.
    """

    kernel: np.ndarray | Array
    bias: np.ndarray | Array


def find_fault(weights: Mapping[str, np.ndarray]) -> str:
    """The reason why arrays cannot be the network's weights; empty if they can be.

    Args:
      weights: arrays by name, in PyTorch's layout. `num_batches_tracked` is ignored.
    """
    expected = weight_shapes()
    present = {name for name in weights if not name.endswith(".num_batches_tracked")}
    missing, unknown = sorted(expected.keys() - present), sorted(present - expected.keys())
    if missing:
        return f"{len(missing)} of {len(expected)} arrays are missing, such as {missing[0]!r}"
    if unknown:
        return f"{len(unknown)} arrays are not the network's, such as {unknown[0][:60]!r}"
    for name, shape in expected.items():
        array = weights[name]
        if array.shape != shape or array.dtype.kind != "f":
            return f"{name!r} is {array.dtype} {array.shape}; it must be float {shape}"
        if not np.isfinite(array).all():
            return f"{name!r} holds NaN or infinities"
        if name.endswith(".running_var") and (array < 0).any():
            return f"{name!r} is a variance, and holds negative numbers"
    return ""


def prepare_weights(weights: Mapping[str, np.ndarray]) -> dict[str, Folded]:
    """Folds the batch normalisations into the convolutions, in float64 on the host.

    Args:
      weights: the arrays of `weight_shapes` by name, in PyTorch's layout.

    Returns:
      The weights of `inception_features`, by the name of the convolution.

    Raises:
      MeasureError: if an array is missing, unknown, of the wrong shape or not finite.
    """
    fault = find_fault(weights)
    if fault:
        raise MeasureError(f"these are not the weights of the FID-Inception: {fault}")
    return {name: _fold(weights, name) for name in kernel_shapes()}


def _fold(weights: Mapping[str, np.ndarray], name: str) -> Folded:
    bias, mean, variance, gain = (
        np.asarray(weights[f"{name}.bn.{array}"], np.float64) for array in NORMALISATION
    )
    scale = gain / np.sqrt(variance + _NORMALISATION_EPSILON)
    kernel = np.asarray(weights[f"{name}.conv.weight"], np.float64).transpose(2, 3, 1, 0)
    return Folded(
        np.ascontiguousarray(kernel * scale, np.float32),
        (bias - mean * scale).astype(np.float32),
    )


def _resize_matrix(size: int, new_size: int) -> np.ndarray:
    """Float32 `[new_size, size]`: the weights of the old pixels in the new ones."""
    # Positions are rounded to float32 where TensorFlow rounds them: it moves a position near 64 by
    # 4e-6 pixels, which a step of 255 turns into 1e-3.
    positions = np.arange(new_size, dtype=np.float32) * np.float32(size / new_size)
    below = np.minimum(positions.astype(np.int64), size - 1)
    above = np.minimum(below + 1, size - 1)
    share = positions - below.astype(np.float32)
    matrix = np.zeros((new_size, size), np.float32)
    np.add.at(matrix, (np.arange(new_size), below), 1 - share)
    np.add.at(matrix, (np.arange(new_size), above), share)
    return matrix


def resize_tf1(images: Array | np.ndarray, size: int) -> Array:
    """Resizes as TensorFlow 1 did: linearly, pixel i at `i * old / size`, without smoothing.

    Args:
      images: `[N, H, W, C]`.
      size: pixels along both sides of the result.

    Returns:
      float32 `[N, size, size, C]`.
    """
    pixels = jnp.asarray(images).astype(jnp.float32)
    rows, columns = (_resize_matrix(side, size) for side in pixels.shape[1:3])
    pixels = jnp.einsum("oh,nhwc->nowc", rows, pixels, precision="highest")
    return jnp.einsum("pw,nowc->nopc", columns, pixels, precision="highest")


def _three(x: Array, axis: int, stride: int) -> list[Array]:
    """The first, second and third pixel of every window of three along an axis."""
    span = (x.shape[axis] - 3) // stride * stride + 1
    return [lax.slice_in_dim(x, start, start + span, stride, axis) for start in range(3)]


def _pool(x: Array, pool: Pool) -> Array:
    """Pools windows of 3 x 3 pixels; as sums of slices, which compile to fast loops on a CPU."""
    largest = pool.kind == "max"
    if pool.stride == 1:
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = jnp.pad(x, around, constant_values=-np.inf if largest else 0.0)
    for axis in (1, 2):
        x = functools.reduce(jnp.maximum if largest else jnp.add, _three(x, axis, pool.stride))
    if largest:
        return x
    in_rows, in_columns = (np.convolve(np.ones(side), np.ones(3), "same") for side in x.shape[1:3])
    return x * jnp.asarray(1 / np.outer(in_rows, in_columns), x.dtype)[None, :, :, None]


def _convolve(x: Array, step: Convolution, weights: Folded) -> Array:
    y = lax.conv_general_dilated(
        x,
        jnp.asarray(weights.kernel),
        (step.stride, step.stride),
        step.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return jax.nn.relu(y + jnp.asarray(weights.bias)[None, None, None, :])


def _take_step(x: Array, block: Block, step: Step, weights: Mapping[str, Folded]) -> Array:
    if isinstance(step, Pool):
        return _pool(x, step)
    prongs = step.prongs if isinstance(step, Fork) else (step,)
    outputs = [_convolve(x, prong, weights[full_name(block, prong)]) for prong in prongs]
    return jnp.concatenate(outputs, axis=-1)


def _run_block(x: Array, block: Block, weights: Mapping[str, Folded]) -> Array:
    outputs = []
    for steps in block.branches:
        y = x
        for step in steps:
            y = _take_step(y, block, step, weights)
        outputs.append(y)
    return jnp.concatenate(outputs, axis=-1)


def inception_features(
    weights: Mapping[str, Folded], images: Array | np.ndarray, layers: Collection[int] = (2048,)
) -> dict[int, Array]:
    """Features of images, each the mean of one channel over all pixels.

    Args:
      weights: from `prepare_weights`.
      images: uint8 or float `[N, H, W, 3]` in 0..255, of any size.
      layers: some of `LAYERS`, which are named by their number of channels: behind the first and
        the second pool, the last block of 17 x 17 pixels, and the last of all.

    Returns:
      float32 `[N, layer]` by layer. Layers after the last one asked for are not computed.

    Raises:
      MeasureError: for another shape of the images or an unknown layer.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:]:
        raise MeasureError(f"images must be [N, H, W, 3]; got {tuple(images.shape)}")
    unknown = set(layers) - set(LAYERS)
    if unknown or not layers:
        raise MeasureError(f"layers must be some of {LAYERS}; got {sorted(layers)}")
    x = (resize_tf1(images, INPUT_SIZE) - _MIDDLE_GREY) / _MIDDLE_GREY
    features = {}
    for layer, blocks in NETWORK.items():
        if layer > max(layers):
            break
        for block in blocks:
            x = _run_block(x, block, weights)
        if layer in layers:
            features[layer] = jnp.mean(x, axis=(1, 2))
    return features
