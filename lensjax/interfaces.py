"""The types that rooms hand to each other: batches, conditions, and the functions between them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax import Array


class Batch(NamedTuple):
    """The examples of a step.

    Attributes:
      image: the model's range, float32 `[B, H, W, C]`.
      label: int32 `[B]`; `num_classes` is the null label.
      measured: bool `[B, H, W, C]`, False where a pixel is not a measurement; None if all are.
      weight: weight of each pixel in the loss, float32 `[B, H, W, C]`; None for equal weights.
      variance: flux squared, float32 `[B, H, W, C]`, before the batch is in the model's range; None
        if the loss needs none.
    """

    image: Array
    label: Array
    measured: Array | None = None
    weight: Array | None = None
    variance: Array | None = None


class Places(NamedTuple):
    """Where examples stand in the batch of a step, of which a device may see a part.

    Attributes:
      indices: places in the whole batch, int32 `[b]`.
      total: examples of the whole batch.
    """

    indices: Array
    total: int


class Estimate(NamedTuple):
    """The data and the noise that a network sees in `x_t`, each `[B, H, W, C]`."""

    x0: Array
    eps: Array


# Inputs of a network besides image and time: `label` int32 `[B]`, any others `[B, ...]`.
Condition = Mapping[str, Array]
# (params, x [B, H, W, C], t [B], condition) -> output [B, H, W, C].
ApplyFn = Callable[..., Array]
# (x_t [B, ...], t []) -> the data and noise in x_t.
DenoiseFn = Callable[[Array, Array], Estimate]
# (params, batch, keys [B], places) -> float32 [].
LossFn = Callable[..., Array]
