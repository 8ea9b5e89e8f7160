"""FLOPs of NanoDiT by a closed formula: matrix products alone, two FLOPs a multiplication.

Norms, activations, softmax and the optimizer are left out, as is usual for model FLOP utilisation.
A backward pass has two products for each of the forward pass.
"""

import math
from collections.abc import Mapping
from typing import Any

_TIME_EMBEDDING = 256  # length of the sinusoidal embedding
PASSES_OF_TRAINING = 3  # forward, and backward twice as much


def forward_flops(model: Mapping[str, Any], image_shape: tuple[int, int, int]) -> int:
    """The FLOPs of one network pass of one image.

    Args:
      model: the fields of `ModelConfig` by name; of them `patch_size`, `width`, `depth` and
        `mlp_ratio` are read.
      image_shape: `(H, W, C)` in pixels.
    """
    height, length, channels = image_shape
    patch, width = model["patch_size"], model["width"]
    tokens = (height // patch) * (length // patch)
    values = patch**2 * channels
    # Each product below is (rows, inner, columns).
    block = [
        (1, width, 6 * width),  # modulation
        (tokens, width, 3 * width),  # queries, keys, values
        (tokens, width, tokens),  # their products, all heads together
        (tokens, tokens, width),  # the mixed values
        (tokens, width, width),
        (tokens, width, model["mlp_ratio"] * width),
        (tokens, model["mlp_ratio"] * width, width),
    ]
    once = [
        (tokens, values, width),
        (1, _TIME_EMBEDDING, width),
        (1, width, width),
        (1, width, 2 * width),  # the last modulation
        (tokens, width, values),
    ]
    products = block * model["depth"] + once
    return 2 * sum(math.prod(product) for product in products)


def train_flops(model: Mapping[str, Any], image_shape: tuple[int, int, int]) -> int:
    """The FLOPs of one training image; arguments as for `forward_flops`."""
    return PASSES_OF_TRAINING * forward_flops(model, image_shape)


def sample_flops(model: Mapping[str, Any], image_shape: tuple[int, int, int], passes: int) -> int:
    """The FLOPs of drawing one image.

    Args:
      model: see `forward_flops`.
      image_shape: `(H, W, C)`.
      passes: how often the network sees the image; guidance counts twice.
    """
    return passes * forward_flops(model, image_shape)
