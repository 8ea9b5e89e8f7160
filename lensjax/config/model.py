"""The `model` section: the network, and checks of its width, its patches and the images."""

import dataclasses
from collections.abc import Sequence

from lensjax.config.data import DataConfig
from lensjax.config.fields import below, between, choice, count, counts, plain
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.simulator import CLASS_NAMES
from lensjax.diffusion.paths import PREDICTIONS
from lensjax.diffusion.preconditioning import PRECONDITIONINGS
from lensjax.errors import ConfigError

GENERATE, CLASSIFY, PRETRAIN = "generate", "classify", "pretrain"
# Bounds of each field alone; `learning.check_memory` adds them up.
_MOST_CHANNELS, _MOST_BLOCKS = 2**16, 256
# The task of each network.
TASKS = {
    "dit": GENERATE,
    "unet": GENERATE,
    "cnn": CLASSIFY,
    "rescnn": CLASSIFY,
    "resnet18": CLASSIFY,
    "vit": CLASSIFY,
    "mae": PRETRAIN,
}
DENOISERS, CLASSIFIERS = (
    tuple(name for name, task in TASKS.items() if task == wanted) for wanted in (GENERATE, CLASSIFY)
)
TRANSFORMERS = ("dit", "vit", "mae")
ATTENTIONS = ("auto", "xla", "chunked")  # see `models.attention`

_DENOISERS = {"model.name": DENOISERS}
_CLASSIFIERS = {"model.name": CLASSIFIERS}
_PLAIN_CNNS = {"model.name": ("cnn", "rescnn")}
_UNET = {"model.name": ("unet",)}
_MAE = {"model.name": ("mae",)}
_WITH_ATTENTION = {"model.name": ("dit", "unet", "vit", "mae")}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
      name: a denoiser (`dit`, `unet`), a classifier (`cnn`, `rescnn`, `resnet18`, `vit`), or `mae`,
        the masked autoencoder that trains the encoder of a `vit`.
      num_classes: number of classes in the data set, without the null label.
      prediction: what the network predicts: `velocity` (dx_t / dt), `x0`, `v` (alpha eps - sigma
        x0), `eps`, or `score` (-eps / sigma).
      preconditioning: `none`; `input` divides x_t by its standard deviation; `edm` also scales the
        output, which is then x0.
      dtype: data type of the computation; parameters are always float32.
      patch_size: side of a patch in pixels, which need not divide the sides of the images: they are
        padded inside the network. ResCNN: stride of the first convolution.
      width: transformers: size of a token.
      depth: transformers: number of blocks.
      num_heads: transformers: number of attention heads; must divide `width`.
      mlp_ratio: transformers: hidden width of a block's MLP, as a multiple of `width`.
      widths: UNet, CNN, ResCNN: channels of each resolution, finest first.
      blocks: UNet, ResCNN: residual blocks at each resolution.
      condition_width: UNet: length of the embedding of time and label.
      attention_resolutions: UNet: heights, in rows, of the feature maps that have self-attention
        after each residual block. For images of H rows, level L has
        `ceil(H / m) m / patch_size / 2^L` rows, where `m = patch_size 2^(levels - 1)`.
      attention: how attention between tokens is computed: `auto`, the best for the device and the
        number of tokens (cuDNN's on a GPU in bfloat16, `chunked` on a CPU in float32); `xla`;
        `chunked`, one head after another with few scores in memory. A choice that the device does
        not support is replaced by `xla`.
      remat: denoisers: whether the backward pass recomputes each block instead of keeping its
        activations: about a third more work, but memory hardly grows with depth.
      attention_head_width: UNet: channels per attention head; a level has
        `width // attention_head_width` heads, at least one, and their number must divide its
        channels.
      num_features: CNN, ResCNN: length of the penultimate layer.
      cells: CNN, ResCNN: side of the grid over which the last feature map is averaged.
      dropout: classifiers: share of channels dropped in training.
      stem: ResNet18: `small` for images of about 64 pixels, `imagenet` for about 224.
      mask_share: MAE: share of the patches that are masked.
      decoder_width: MAE: size of a token in the decoder.
      decoder_depth: MAE: number of blocks of the decoder.
      decoder_heads: MAE: number of attention heads of the decoder; must divide `decoder_width`.
      normalise_patches: MAE: whether each target patch has mean 0 and variance 1.
    """

    name: str = choice("dit", TASKS)
    num_classes: int = count(3, least=0)
    prediction: str = choice("velocity", PREDICTIONS, only_for=_DENOISERS)
    preconditioning: str = choice("none", PRECONDITIONINGS, only_for=_DENOISERS)
    dtype: str = choice("float32", ("float32", "bfloat16"))
    patch_size: int = count(2, most=_MOST_CHANNELS)
    width: int = count(512, most=_MOST_CHANNELS)
    depth: int = count(6, most=_MOST_BLOCKS)
    num_heads: int = count(8, most=_MOST_CHANNELS)
    mlp_ratio: int = count(4, most=64)
    widths: tuple[int, ...] = counts((48, 96, 144), _MOST_CHANNELS, "(48, 96)")
    blocks: int = count(2, most=_MOST_BLOCKS)
    condition_width: int = count(256, most=_MOST_CHANNELS)
    attention_resolutions: tuple[int, ...] = counts((), _MOST_CHANNELS, "(16, 8)", only_for=_UNET)
    attention_head_width: int = count(64, most=_MOST_CHANNELS)
    attention: str = choice(
        "auto", ATTENTIONS, only_for=_WITH_ATTENTION, resumable=True, since="0.1.0"
    )
    remat: bool = plain(False, only_for=_DENOISERS, resumable=True, since="0.1.0")
    num_features: int = count(128, most=_MOST_CHANNELS, only_for=_PLAIN_CNNS, since="0.1.0")
    cells: int = count(4, most=1024, only_for=_PLAIN_CNNS, since="0.1.0")
    dropout: float = below(0.0, 0.0, 1.0, only_for=_CLASSIFIERS, since="0.1.0")
    stem: str = choice(
        "small", ("small", "imagenet"), only_for={"model.name": ("resnet18",)}, since="0.1.0"
    )
    mask_share: float = between(0.75, 0.05, 0.95, only_for=_MAE, since="0.1.0")
    decoder_width: int = count(64, most=_MOST_CHANNELS, only_for=_MAE, since="0.1.0")
    decoder_depth: int = count(2, most=_MOST_BLOCKS, only_for=_MAE, since="0.1.0")
    decoder_heads: int = count(4, most=_MOST_CHANNELS, only_for=_MAE, since="0.1.0")
    normalise_patches: bool = plain(True, only_for=_MAE, since="0.1.0")


def check_model(model: ModelConfig, data: DataConfig) -> None:
    """Checks a network by itself and against a simulated set, whose images are known.

    Raises:
      ConfigError: for the first field that is wrong.
    """
    if model.name in TRANSFORMERS:
        _check_tokens(model, "num_heads", "width")
    if model.name == "mae":
        _check_tokens(model, "decoder_heads", "decoder_width")
    simulated = SIMULATED_SETS.get(data.name)
    if simulated is None:
        return
    check_image_size(model, simulated.survey.num_pixels, simulated.survey.num_pixels)
    check_num_classes(model, data.name, CLASS_NAMES)


def _check_tokens(model: ModelConfig, heads_field: str, width_field: str) -> None:
    heads, width = getattr(model, heads_field), getattr(model, width_field)
    if width % heads:
        raise ConfigError(
            f"model.{heads_field}", heads, f"allowed: a divisor of model.{width_field}, {width}"
        )
    if width % 4:
        raise ConfigError(f"model.{width_field}", width, "allowed: a multiple of 4")


def check_num_classes(model: ModelConfig, data_name: str, class_names: Sequence[str]) -> None:
    """Checks that a network has the classes of its data.

    Raises:
      ConfigError: for another number of classes.
    """
    if model.num_classes != len(class_names):
        raise ConfigError(
            "model.num_classes",
            model.num_classes,
            f"allowed: {len(class_names)}, the classes of {data_name} "
            f"({', '.join(class_names) or 'unlabelled'})",
        )


def check_image_size(model: ModelConfig, height: int, width: int) -> None:
    """Checks that a network fits images of a size: its patches, their mask and its attention.

    Args:
      model: the network.
      height: rows of pixels of the images.
      width: columns of pixels of the images.

    Raises:
      ConfigError: for patches wider than the images, images of a single patch where one must be
        hidden, rows that no level of a UNet has, or channels that their heads do not divide.
    """
    patch = model.patch_size
    if model.name in TRANSFORMERS and patch > max(height, width):
        raise ConfigError(
            "model.patch_size",
            patch,
            f"allowed: at most the longer side of the images, {height}x{width} pixels",
        )
    if model.name == "mae" and patch >= max(height, width):
        raise ConfigError(
            "model.patch_size",
            patch,
            f"allowed: less than a side of the images, {height}x{width} pixels, so that there is "
            "something to find",
        )
    if model.name == "unet":
        from lensjax.models.unet import attention_heads  # flax takes a while

        attention_heads(
            height,
            patch_size=patch,
            widths=model.widths,
            resolutions=model.attention_resolutions,
            head_width=model.attention_head_width,
        )
