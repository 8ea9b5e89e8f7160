"""Classifiers of lens images in flax.linen, all called as `(images, keys)`.

Nothing is normalised over a batch: the output for an image depends on that image alone, and a
network has no state besides its parameters.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.models.vit import Encoder

_zeros = nn.initializers.zeros_init()
_he = nn.initializers.he_normal()
_GROUP_CHANNELS = 16  # of a group of GroupNorm


class ClassifierOutput(NamedTuple):
    """The output of a classifier for each image.

    Attributes:
      features: the penultimate layer before its nonlinearity and dropout, float32 `[B, D]`.
      logits: float32 `[B, num_classes]`.
    """

    features: Array
    logits: Array


def example_dropout(x: Array, rate: float, keys: Array | None, layer: int) -> Array:
    """Sets channels of examples to zero, each example by its own key.

    All pixels of a channel are dropped together, since they hold nearly the same information
    (Tompson et al. 2015, arXiv:1411.4280); remaining channels are scaled by `1 / (1 - rate)`.

    Args:
      x: `[B, ..., C]`.
      rate: share of channels that are dropped.
      keys: typed keys of the examples, `[B]`; None, as outside training, changes nothing.
      layer: a number that differs between the layers with dropout.
    """
    if keys is None or rate == 0:
        return x
    channels = x.shape[-1:]
    is_kept = jax.vmap(
        lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, channels)
    )(keys)
    is_kept = is_kept.reshape(len(x), *(1,) * (x.ndim - 2), -1)
    return jnp.where(is_kept, x / (1 - rate), 0).astype(x.dtype)


def pooling_matrix(size: int, cells: int) -> np.ndarray:
    """The matrix `[cells, size]` that averages an axis of any length into cells.

    Cell i holds the places from floor(i size / cells) to ceil((i + 1) size / cells), as PyTorch's
    adaptive average pooling does.
    """
    edges = np.arange(cells + 1) * size
    first, last = edges[:-1] // cells, -(-edges[1:] // cells)
    place = np.arange(size)[None, :]
    inside = (place >= first[:, None]) & (place < last[:, None])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def adaptive_average(x: Array, cells: int) -> Array:
    """Averages feature maps `[B, H, W, C]` of any size over a grid: `[B, cells, cells, C]`."""
    rows, columns = (jnp.asarray(pooling_matrix(size, cells), x.dtype) for size in x.shape[1:3])
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns)


class _Head(nn.Module):
    """Features and classes of the last feature map, averaged in cells that preserve positions.

    Attributes:
      num_features: length of the penultimate layer.
      num_classes: classes.
      cells: side of the grid over which feature maps are averaged.
      dropout: share of features dropped in training.
      dtype: for the computation.
    """

    num_features: int
    num_classes: int
    cells: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, keys: Array | None, layer: int) -> ClassifierOutput:
        x = adaptive_average(x, self.cells).reshape(len(x), -1)
        features = nn.Dense(self.num_features, dtype=self.dtype, name="features")(x)
        last = example_dropout(nn.relu(features), self.dropout, keys, layer)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classes")(last)
        return ClassifierOutput(features.astype(jnp.float32), logits.astype(jnp.float32))


class CNN(nn.Module):
    """Convolutions with pooling between, after Davies et al. 2019, arXiv:1905.04303.

    The first two convolutions have 5x5 pixels, the rest 3x3; adaptive average pooling takes images
    of any size.

    Attributes:
      widths: channels of each convolution.
      num_features: length of the penultimate layer.
      num_classes: classes.
      cells: side of the grid over which the last feature map is averaged.
      dropout: share of channels dropped in training.
      dtype: for the computation; parameters and output are float32.
    """

    widths: Sequence[int]
    num_features: int
    num_classes: int
    cells: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> ClassifierOutput:
        """Maps images in the model's range, `[B, H, W, C]`, to `ClassifierOutput`."""
        x = images
        for level, width in enumerate(self.widths):
            side = 5 if level < 2 else 3
            conv = nn.Conv(
                width, (side, side), dtype=self.dtype, kernel_init=_he, name=f"conv_{level}"
            )
            x = nn.relu(conv(x))
            if min(x.shape[1:3]) >= 2 * self.cells:
                x = nn.max_pool(x, (2, 2), (2, 2))
            x = example_dropout(x, self.dropout, keys, level)
        return _Head(
            self.num_features, self.num_classes, self.cells, self.dropout, self.dtype, name="head"
        )(x, keys, len(self.widths))


class _ResidualBlock(nn.Module):
    """A 5x5 and a 3x3 convolution beside a shortcut; adds nothing at the start."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = nn.Conv(self.width, (5, 5), dtype=self.dtype, kernel_init=_he, name="conv_5x5")(
            nn.relu(x)
        )
        h = nn.Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=_zeros, name="conv_3x3")(
            nn.relu(h)
        )
        return x + h


class ResCNN(nn.Module):
    """Residual blocks of 5x5 and 3x3 convolutions without normalisation, which preserves flux.

    Attributes:
      patch_size: stride of the first convolution in pixels.
      widths: channels of each resolution, each half of the one before.
      blocks: residual blocks at each resolution.
      num_features: length of the penultimate layer.
      num_classes: classes.
      cells: side of the grid over which the last feature map is averaged.
      dropout: share of channels dropped in training.
      dtype: for the computation; parameters and output are float32.
    """

    patch_size: int
    widths: Sequence[int]
    blocks: int
    num_features: int
    num_classes: int
    cells: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> ClassifierOutput:
        """Maps images in the model's range, `[B, H, W, C]`, to `ClassifierOutput`."""
        x, stride, side = images, self.patch_size, self.patch_size + 2
        for level, width in enumerate(self.widths):
            down = nn.Conv(
                width,
                (side, side),
                (stride, stride),
                dtype=self.dtype,
                kernel_init=_he,
                name=f"down_{level}",
            )
            x = down(nn.relu(x) if level else x)
            for block in range(self.blocks):
                x = _ResidualBlock(width, self.dtype, name=f"level_{level}_block_{block}")(x)
            stride, side = 2, 3
        return _Head(
            self.num_features, self.num_classes, self.cells, self.dropout, self.dtype, name="head"
        )(nn.relu(x), keys, 0)


def _group_norm(width: int, dtype: Any) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=max(1, width // _GROUP_CHANNELS), dtype=dtype)


class _BasicBlock(nn.Module):
    """The block of ResNet18 and ResNet34."""

    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        strides = (self.stride, self.stride)
        conv = lambda side, stride: nn.Conv(  # noqa: E731
            self.width, (side, side), stride, use_bias=False, dtype=self.dtype, kernel_init=_he
        )
        h = nn.relu(_group_norm(self.width, self.dtype)(conv(3, strides)(x)))
        h = _group_norm(self.width, self.dtype)(conv(3, (1, 1))(h))
        if x.shape != h.shape:
            x = _group_norm(self.width, self.dtype)(conv(1, strides)(x))
        return nn.relu(x + h)


class ResNet18(nn.Module):
    """ResNet18 (He et al. 2016, arXiv:1512.03385) with GroupNorm for BatchNorm.

    Running averages of BatchNorm would be state besides the parameters, and in training the output
    for an image would depend on its batch (Wu & He 2018, arXiv:1803.08494).

    Attributes:
      stem: `small`, a 3x3 convolution, for images of about 64 pixels; `imagenet`, 7x7 with stride 2
        and max pooling, for images of about 224.
      num_classes: classes.
      dropout: share of features dropped in training.
      dtype: for the computation; parameters and output are float32.
    """

    stem: str
    num_classes: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> ClassifierOutput:
        """Maps images in the model's range, `[B, H, W, C]`, to `ClassifierOutput`."""
        large = self.stem == "imagenet"
        side, stride = (7, 2) if large else (3, 1)
        stem = nn.Conv(
            64,
            (side, side),
            (stride, stride),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_he,
            name="stem",
        )
        x = nn.relu(_group_norm(64, self.dtype)(stem(images)))
        if large:
            x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for level, width in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride = 2 if level and not block else 1
                x = _BasicBlock(width, stride, self.dtype, name=f"level_{level}_block_{block}")(x)
        features = jnp.mean(x, axis=(1, 2))
        last = example_dropout(features, self.dropout, keys, 0)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classes")(last)
        return ClassifierOutput(features.astype(jnp.float32), logits.astype(jnp.float32))


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) with the mean of its tokens.

    Attributes:
      patch_size: side of a patch in pixels; see `vit.to_patches` for sides that it does not divide.
      width: size of a token; a multiple of 4 and of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads.
      mlp_ratio: width of a block's perceptron over `width`.
      num_classes: classes.
      dropout: share of features dropped in training.
      dtype: for the computation; parameters and output are float32.
      attention: one of `config.model.ATTENTIONS`.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: int
    num_classes: int
    dropout: float
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> ClassifierOutput:
        """Maps images in the model's range, `[B, H, W, C]`, to `ClassifierOutput`."""
        encoder = Encoder(
            self.patch_size,
            self.width,
            self.depth,
            self.num_heads,
            self.mlp_ratio,
            self.dtype,
            self.attention,
            name="encoder",
        )
        features = jnp.mean(encoder(images), axis=1)
        last = example_dropout(features, self.dropout, keys, 0)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classes")(last)
        return ClassifierOutput(features.astype(jnp.float32), logits.astype(jnp.float32))
