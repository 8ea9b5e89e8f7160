"""Attention between the tokens of an image, by the method that suits the device."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

_CHUNK = 256  # queries whose scores are held together
# From this number of tokens, two cores gain more by holding few scores than they lose by a loop
# over heads; not measured with many cores.
_LEAST_CHUNKED = 512
_HALF = (jnp.bfloat16, jnp.float16)
_MOST_CUDNN_WIDTH = 128
_LEAST_CUDNN_CAPABILITY = 8.0  # Ampere


def platform() -> str:
    """The default device's platform; `cuda` is a GPU with cuDNN's attention."""
    name = jax.default_backend()
    if name != "gpu":
        return name
    device = jax.local_devices()[0]
    capability = getattr(device, "compute_capability", "0")
    is_cuda = "cuda" in device.client.platform_version
    return "cuda" if is_cuda and float(capability) >= _LEAST_CUDNN_CAPABILITY else "gpu"


def choose(name: str, platform: str, num_tokens: int, head_width: int, dtype: jnp.dtype) -> str:
    """How attention is computed: `xla`, `again`, `chunked` or `cudnn`.

    `auto` falls back to `xla`, so that a run can be loaded on any device. `again` is XLA's,
    recomputed for the gradient: stored scores of many tokens would fill an accelerator's memory.

    Args:
      name: one of `config.model.ATTENTIONS`.
      platform: see `platform`.
      num_tokens: T.
      head_width: channels of a head.
      dtype: dtype of queries, keys and values.
    """
    if name != "auto":
        return name
    narrow = head_width % 8 == 0 and head_width <= _MOST_CUDNN_WIDTH
    if platform == "cuda" and dtype in _HALF and narrow:
        return "cudnn"
    if num_tokens < _LEAST_CHUNKED:
        return "xla"
    if platform == "cpu":
        return "chunked" if dtype == jnp.float32 else "xla"
    return "again"


def attend(query: Array, key: Array, value: Array, name: str = "auto") -> Array:
    """`softmax(query key^T / sqrt(D)) value`, `[B, T, heads, D]`.

    Args:
      query: `[B, T, heads, D]`.
      key: as `query`.
      value: as `query`.
      name: one of `config.model.ATTENTIONS`; all but `xla` lack forward-mode derivatives.
    """
    method = choose(name, platform(), query.shape[1], query.shape[-1], query.dtype)
    if method == "chunked":
        return _over_heads(query, key, value)
    if method == "again":
        return jax.checkpoint(jax.nn.dot_product_attention)(query, key, value)
    implementation: Literal["xla", "cudnn"] = "cudnn" if method == "cudnn" else "xla"
    return jax.nn.dot_product_attention(query, key, value, implementation=implementation)


def _over_heads(query: Array, key: Array, value: Array) -> Array:
    batch, tokens, heads, width = query.shape

    def split(x: Array) -> Array:  # [B, T, heads, D] -> [B heads, T, D]
        return x.swapaxes(1, 2).reshape(batch * heads, tokens, width).astype(jnp.float32)

    mixed = chunked_attention(split(query), split(key), split(value)).astype(query.dtype)
    return mixed.reshape(batch, heads, tokens, width).swapaxes(1, 2)


def _chunks(num_tokens: int) -> list[slice]:
    starts = range(0, num_tokens, _CHUNK)
    return [slice(start, min(start + _CHUNK, num_tokens)) for start in starts]


@jax.custom_vjp
def chunked_attention(query: Array, key: Array, value: Array) -> Array:
    """Attention, one head after the other and a chunk of queries at a time.

    The scores of a chunk stay in the processor's cache. For the gradient they are recomputed from
    their normalisation alone, as in Dao et al. 2022, arXiv:2205.14135.

    Args:
      query: `[N, T, D]`, float32; N counts the heads of all examples.
      key: as `query`.
      value: as `query`.

    Returns:
      `[N, T, D]`.
    """
    return _forward(query, key, value)[0]


def _forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    scale = 1 / math.sqrt(query.shape[-1])

    def head(carry: None, qkv: tuple[Array, Array, Array]) -> tuple[None, tuple[Array, Array]]:
        q, k, v = qkv
        mixed, normalisation = [], []
        for chunk in _chunks(q.shape[0]):
            scores = (q[chunk] * scale) @ k.T
            largest = jnp.max(scores, axis=-1, keepdims=True)
            weights = jnp.exp(scores - largest)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            mixed.append((weights @ v) / total)
            normalisation.append(largest + jnp.log(total))
        return carry, (jnp.concatenate(mixed), jnp.concatenate(normalisation))

    _, (mixed, normalisation) = jax.lax.scan(head, None, (query, key, value))
    return mixed, (query, key, value, mixed, normalisation)


def _backward(saved: tuple[Array, ...], push: Array) -> tuple[Array, Array, Array]:
    scale = 1 / math.sqrt(saved[0].shape[-1])

    def head(carry: None, inputs: tuple[Array, ...]) -> tuple[None, tuple[Array, Array, Array]]:
        q, k, v, mixed, normalisation, d_mixed = inputs
        d_query, d_key, d_value = [], jnp.zeros_like(k), jnp.zeros_like(v)
        for chunk in _chunks(q.shape[0]):
            scaled, d_out = q[chunk] * scale, d_mixed[chunk]
            # Keys are the rows, so that each product reads its factors as they lie in memory.
            weights = jnp.exp(k @ scaled.T - normalisation[chunk].T)
            d_value += weights @ d_out
            along = jnp.sum(d_out * mixed[chunk], axis=-1)
            d_scores = weights * (v @ d_out.T - along[None, :])
            d_key += d_scores @ scaled
            d_query.append((d_scores.T @ k) * scale)
        return carry, (jnp.concatenate(d_query), d_key, d_value)

    return jax.lax.scan(head, None, (*saved, push))[1]


chunked_attention.defvjp(_forward, _backward)
