"""Parts that the denoisers share: embeddings, modulation, attention, patches as channels."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.interfaces import Condition
from lensjax.models.attention import attend

Initializer = Callable[..., Any]
TIME_SCALE = 1000.0  # times in [0, 1] would give nearly equal embeddings
FREQUENCY_SIZE = 256
_MAX_PERIOD = 10_000.0
xavier: Initializer = nn.initializers.xavier_uniform()


def timestep_embedding(t: Array, size: int) -> Array:
    """The sinusoidal embedding of `1000 t`, cosines first.

    Args:
      t: times in [0, 1], float32 `[B]`.
      size: the even length of the embedding.

    Returns:
      float32 `[B, size]`. Source: Vaswani et al. 2017, arXiv:1706.03762, as in DiT.
    """
    half = size // 2
    # Rounded to float32 where the published network rounds: one rounding of a frequency moves an
    # angle of 1000 by 6e-5, which is more than the agreement that the parity test asks for.
    exponents = np.float32(-math.log(_MAX_PERIOD)) * np.arange(half, dtype=np.float32) / half
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    scaled = np.float32(TIME_SCALE) * frequencies
    angles = t.astype(jnp.float32)[:, None] * jnp.asarray(scaled)[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _axis_embedding(positions: np.ndarray, size: int) -> np.ndarray:
    frequencies = _MAX_PERIOD ** -(np.arange(size // 2) / (size / 2))
    angles = np.outer(positions, frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def position_embedding(rows: int, columns: int, size: int) -> np.ndarray:
    """The fixed two-dimensional sine-cosine table of a grid of patches.

    Args:
      rows: patches along H.
      columns: patches along W.
      size: length of the embedding, a multiple of 4; the first half encodes the column.

    Returns:
      float32 `[rows * columns, size]`, row-major. Source: DiT, arXiv:2212.09748.
    """
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    halves = [_axis_embedding(axis.ravel(), size // 2) for axis in (column, row)]
    return np.concatenate(halves, axis=1).astype(np.float32)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """`x (1 + scale) + shift` with one shift and scale for each example and channel.

    Args:
      x: `[B, ..., C]`.
      shift: `[B, C]`.
      scale: `[B, C]`.
    """
    shape = (x.shape[0],) + (1,) * (x.ndim - 2) + (x.shape[-1],)
    return x * (1 + scale.reshape(shape)) + shift.reshape(shape)


def pad_to_multiple(x: Array, multiple: int) -> Array:
    """Pads images `[B, H, W, C]` with zeros at their lower right to multiples of `multiple`."""
    _, height, width, _ = x.shape
    if height % multiple == width % multiple == 0:
        return x
    return jnp.pad(x, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)))


def space_to_depth(x: Array, patch_size: int) -> Array:
    """Turns `[B, H, W, C]` into `[B, ceil(H / p), ceil(W / p), p p C]`, see `pad_to_multiple`."""
    x = pad_to_multiple(x, patch_size)
    batch, height, width, channels = x.shape
    rows, columns = height // patch_size, width // patch_size
    x = x.reshape(batch, rows, patch_size, columns, patch_size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def depth_to_space(x: Array, patch_size: int) -> Array:
    """Undoes `space_to_depth`: `[B, h, w, p p C]` becomes `[B, h p, w p, C]`, padding included."""
    batch, rows, columns, depth = x.shape
    channels = depth // patch_size**2
    x = x.reshape(batch, rows, columns, patch_size, patch_size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * patch_size, columns * patch_size, channels)


@jax.custom_jvp
def gelu(x: Array) -> Array:
    """`x P(x)` with P the probability of a standard normal variable below x, at any dtype.

    The derivative is computed from x, the only array that is stored for it; computed in float32,
    since 1 + erf(x) would have no tail in bfloat16. Source: Hendrycks & Gimpel 2016,
    arXiv:1606.08415.
    """
    return _gelu_and_slope(x)[0]


def _gelu_and_slope(x: Array) -> tuple[Array, Array]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    below = 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5)))
    density = jnp.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    return (wide * below).astype(x.dtype), (below + wide * density).astype(x.dtype)


@gelu.defjvp
def _push_gelu(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope = _gelu_and_slope(*primals)
    return value, slope * tangents[0]


def _matrix_product(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
    """`x kernel` for `x` `[..., D]` and a kernel `[D, E]`, as one product of two matrices."""
    rows = x.reshape(-1, x.shape[-1])
    out = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), *args[1:], **kwargs)
    return out.reshape(*x.shape[:-1], -1)


# Of tokens `[B, T, D]`, XLA on a CPU copies the incoming gradient transposed for the gradient of
# the kernel.
Dense = partial(nn.Dense, dot_general=_matrix_product)


class ConditionEmbedding(nn.Module):
    """Time and label as one vector.

    Attributes:
      size: length of the vector.
      num_classes: classes; one more row of the table is the null label.
      dtype: for the computation; parameters are float32.
    """

    size: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, t: Array, condition: Condition) -> Array:
        """`[B, size]` from times `[B]` and `condition["label"]` int32 `[B]`."""
        init = nn.initializers.normal(0.02)
        x = timestep_embedding(t, FREQUENCY_SIZE).astype(self.dtype)
        x = nn.Dense(self.size, dtype=self.dtype, kernel_init=init, name="time_in")(x)
        x = nn.Dense(self.size, dtype=self.dtype, kernel_init=init, name="time_out")(nn.silu(x))
        table = nn.Embed(
            self.num_classes + 1,
            self.size,
            dtype=self.dtype,
            embedding_init=init,
            name="label",
        )
        return x + table(condition["label"])


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Attributes:
      num_heads: heads; divides the width.
      dtype: for the computation; parameters are float32.
      out_init: initializer of the output's kernel.
      attention: one of `config.model.ATTENTIONS`.
    """

    num_heads: int
    dtype: Any = jnp.float32
    out_init: Initializer = xavier
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps tokens `[B, T, D]` to `[B, T, D]`."""
        batch, tokens, width = x.shape
        qkv = Dense(3 * width, dtype=self.dtype, kernel_init=xavier, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = (qkv[:, :, row] for row in range(3))  # each [B, T, heads, D / heads]
        mixed = attend(query, key, value, self.attention)
        out = Dense(width, dtype=self.dtype, kernel_init=self.out_init, name="out")
        return out(mixed.reshape(batch, tokens, width))
