"""The `model` section of a configuration."""

import dataclasses

from lensjax.config.fields import below, between, choice, count, make_field
from lensjax.diffusion.paths import PREDICTIONS
from lensjax.diffusion.preconditioning import PRECONDITIONINGS

# What each network is trained for.
TASKS = {
    "dit": "generate",
    "unet": "generate",
    "cnn": "classify",
    "rescnn": "classify",
    "resnet18": "classify",
    "vit": "classify",
    "mae": "pretrain",
}
# See `models.attention`.
ATTENTIONS = ("auto", "xla", "chunked", "pallas")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
      name: a denoiser (`dit`, `unet`), a classifier (`cnn`, `rescnn`, `resnet18`, `vit`), or `mae`,
        the masked autoencoder that trains the encoder of a `vit`.
      num_classes: classes of the data set, without the null label.
      prediction: what the network predicts: `velocity` (dx_t / dt), `x0`, `v` (alpha eps - sigma
        x0), `eps`, or `score` (-eps / sigma).
      preconditioning: `input` divides x_t by its standard deviation; `edm` scales the output too
        and gives x0; `none`.
      dtype: of the computation; parameters are float32.
      patch_size: side of a patch in pixels; ResCNN: stride of the first convolution.
      width: transformers: size of a token.
      depth: transformers: number of blocks.
      num_heads: transformers: attention heads; divides `width`.
      mlp_ratio: transformers: width of a block's perceptron over `width`.
      widths: UNet, CNN, ResCNN: channels of each resolution, finest first.
      blocks: UNet, ResCNN: residual blocks at each resolution.
      condition_width: UNet: length of the vector of time and label.
      attention_resolutions: UNet: rows of the feature maps with self-attention after each residual
        block. Level L has `ceil(H / m) m / patch_size / 2^L` rows for images of H rows, where
        `m = patch_size 2^(levels - 1)`.
      attention: how attention between tokens is computed: `auto`, the best for the device and the
        number of tokens (cuDNN's on a GPU in bfloat16, `chunked` on a CPU in float32); `xla`;
        `chunked`, one head after the other with few scores in memory; `pallas`, a kernel for TPUs.
        What a device cannot do becomes `xla`.
      remat: denoisers: whether the gradient computes each block again instead of keeping what is in
        it: about a third more work, and memory that hardly grows with depth.
      attention_head_width: UNet: channels of an attention head; a level has
        `width // attention_head_width` heads, at least one, which divide its channels.
      num_features: CNN, ResCNN: length of the penultimate layer.
      cells: CNN, ResCNN: side of the grid over which the last feature map is averaged.
      dropout: classifiers: share of channels dropped in training.
      stem: ResNet18: `small` for images of about 64 pixels, `imagenet` for about 224.
      mask_share: MAE: share of the patches that it does not see.
      decoder_width: MAE: size of a token of the decoder.
      decoder_depth: MAE: number of its blocks.
      decoder_heads: MAE: its attention heads; divides `decoder_width`.
      normalise_patches: MAE: whether each patch to be found has mean 0 and variance 1.
    """

    name: str = choice("dit", TASKS)
    num_classes: int = count(3, least=0)
    prediction: str = choice("velocity", PREDICTIONS)
    preconditioning: str = choice("none", PRECONDITIONINGS)
    dtype: str = choice("float32", ("float32", "bfloat16"))
    patch_size: int = count(2)
    width: int = count(512)
    depth: int = count(6)
    num_heads: int = count(8)
    mlp_ratio: int = count(4)
    widths: tuple[int, ...] = make_field(
        (48, 96, 144),
        lambda widths: len(widths) > 0 and all(width >= 1 for width in widths),
        "allowed: one or more integers of at least 1, such as (48, 96)",
    )
    blocks: int = count(2)
    condition_width: int = count(256)
    attention_resolutions: tuple[int, ...] = make_field(
        (),
        lambda rows: all(number >= 1 for number in rows),
        "allowed: integers of at least 1, such as (16, 8), or none",
    )
    attention_head_width: int = count(64)
    attention: str = choice("auto", ATTENTIONS)
    remat: bool = False
    num_features: int = count(128)
    cells: int = count(4)
    dropout: float = below(0.0, 0.0, 1.0)
    stem: str = choice("small", ("small", "imagenet"))
    mask_share: float = between(0.75, 0.05, 0.95)
    decoder_width: int = count(64)
    decoder_depth: int = count(2)
    decoder_heads: int = count(4)
    normalise_patches: bool = True
