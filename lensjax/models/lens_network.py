"""A small classifier of lens images whose penultimate layer describes a lens by 64 numbers.

Nothing in it is normalised over an image or a batch: flux is physical, and the features of an image
do not depend on the others. `benchmarks/train_lens_network.py` trains it.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array

from lensjax.data.surveys import SURVEYS

WEIGHTS_FOLDER = pathlib.Path(__file__).resolve().parent.parent / "weights"
NAME = "lens_network"
SURVEY = SURVEYS["model_ii"]  # what it was trained on
# Brightness is linear up to the noise of one pixel, logarithmic above: arcsinh(flux / scale).
FLUX_SCALE = SURVEY.background_rms
PARAMETER_NAMES = ("source_x", "source_y", "log10_axion_mass", "vortex_cos2a", "vortex_sin2a")
_PRECISION = jax.lax.Precision.HIGHEST  # the same features on every backend


class LensOutput(NamedTuple):
    """What the network says about each image.

    Attributes:
      features: the penultimate layer, float32 `[B, num_features]`.
      logits: float32 `[B, num_classes]`, in the order of `simulator.CLASS_NAMES`.
      parameters: estimates of `PARAMETER_NAMES` in units of half their ranges, float32
        `[B, num_parameters]`. They were trained beside the classes, so that the features keep
        more of the image than its class.
    """

    features: Array
    logits: Array
    parameters: Array


def pooling_matrix(size: int, cells: int) -> np.ndarray:
    """Returns the matrix `[cells, size]` that averages an axis of any length into cells.

    Cell i holds the places from floor(i size / cells) to ceil((i + 1) size / cells), as PyTorch's
    adaptive average pooling does.
    """
    edges = np.arange(cells + 1) * size
    first, last = edges[:-1] // cells, -(-edges[1:] // cells)
    place = np.arange(size)[None, :]
    inside = (place >= first[:, None]) & (place < last[:, None])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; adds nothing at the start."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = nn.Conv(self.width, (3, 3), precision=_PRECISION, name="conv_in")(nn.relu(x))
        zeros = nn.initializers.zeros_init()
        h = nn.Conv(self.width, (3, 3), precision=_PRECISION, kernel_init=zeros, name="conv_out")(
            nn.relu(h)
        )
        return x + h


class LensNetwork(nn.Module):
    """The classifier; takes images of any size.

    Attributes:
      stem: kernel and stride of the first convolution in pixels.
      widths: channels of each resolution, each half of the one before.
      blocks: residual blocks at each resolution.
      cells: a side of the grid of cells over which the last feature map is averaged; where in the
        image something lies is kept.
      num_features: length of the penultimate layer.
      num_classes: classes.
      num_parameters: estimated parameters.
    """

    stem: tuple[int, int] = (6, 4)
    widths: Sequence[int] = (32, 64)
    blocks: Sequence[int] = (2, 1)
    cells: int = 4
    num_features: int = 64
    num_classes: int = 3
    num_parameters: int = len(PARAMETER_NAMES)

    @nn.compact
    def __call__(self, images: Array) -> LensOutput:
        """Maps flux per pixel, float32 `[B, H, W, 1]`, to `LensOutput`."""
        x = jnp.arcsinh(images / FLUX_SCALE)
        for level, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            kernel, stride = (3, 2) if level else self.stem
            x = nn.relu(x) if level else x
            down = nn.Conv(
                width, (kernel,) * 2, (stride,) * 2, precision=_PRECISION, name=f"down_{level}"
            )
            x = down(x)
            for block in range(blocks):
                x = _Block(width, name=f"level_{level}_block_{block}")(x)
        rows, columns = (pooling_matrix(size, self.cells) for size in x.shape[1:3])
        x = jnp.einsum("bhwc,ih,jw->bijc", nn.relu(x), rows, columns, precision=_PRECISION)
        x = x.reshape(len(x), -1)
        features = nn.Dense(self.num_features, precision=_PRECISION, name="features")(x)
        last = nn.relu(features)
        return LensOutput(
            features,
            nn.Dense(self.num_classes, precision=_PRECISION, name="classes")(last),
            nn.Dense(self.num_parameters, precision=_PRECISION, name="parameters")(last),
        )


def apply(
    params: Mapping[str, Any], images: Array, network: LensNetwork | None = None
) -> LensOutput:
    """Returns what a network with these parameters says about flux `[B, H, W, 1]`.

    Args:
      params: parameters, as `load_weights` gives them.
      images: flux per pixel, float32.
      network: None for the one that comes with lensjax.
    """
    return cast(LensOutput, (network or LensNetwork()).apply({"params": params}, images))


def file_sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_weights(folder: pathlib.Path, params: Mapping[str, Any]) -> pathlib.Path:
    """Writes the parameters of a network as `lens_network.safetensors` and returns its path."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.safetensors"
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    save_file({name: np.ascontiguousarray(value) for name, value in flat.items()}, path)
    return path


def load_card(folder: pathlib.Path = WEIGHTS_FOLDER) -> dict[str, Any]:
    """Returns what is known about the weights: accuracies, the command, the SHA-256, versions."""
    return json.loads((folder / f"{NAME}.json").read_text())


def load_weights(folder: pathlib.Path = WEIGHTS_FOLDER) -> tuple[dict[str, Any], str]:
    """Reads the weights and checks them against the SHA-256 beside them.

    Args:
      folder: holds `lens_network.safetensors` and `lens_network.json`; those that come with lensjax
        by default.

    Returns:
      The network's parameters, and the file's SHA-256 in hexadecimal.

    Raises:
      ValueError: for a file that has another SHA-256 than its card says.
      OSError: where a file is missing.
    """
    from safetensors.numpy import load

    path = folder / f"{NAME}.safetensors"
    content = path.read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), load_card(folder)["sha256"]
    if found != expected:
        raise ValueError(
            f"{path} has the SHA-256 {found}, its card {NAME}.json says {expected}; "
            "install lensjax again, or train the network again with "
            "benchmarks/train_lens_network.py"
        )
    return traverse_util.unflatten_dict(load(content), sep="/"), found
