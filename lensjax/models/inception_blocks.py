"""The convolutions of the Inception-v3 of published Frechet distances, as one table.

It differs from the network of the paper (Szegedy et al. 2015, arXiv:1512.00567) in three ways,
which its weights were trained with: the average pools do not count the padding, the last block
takes a maximum where the other blocks take an average, and there are 1,008 classes.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

NUM_CLASSES = 1008
NORMALISATION = ("bias", "running_mean", "running_var", "weight")


class Convolution(NamedTuple):
    """A convolution without bias, batch normalisation and ReLU.

    Attributes:
      name: its name within its block.
      channels: output channels.
      kernel: height and width.
      stride: stride of both axes.
      padding: `SAME` or `VALID`.
    """

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


class Fork(NamedTuple):
    """Convolutions of the same input whose outputs are put side by side."""

    prongs: tuple[Convolution, ...]


class Pool(NamedTuple):
    """A pool of 3 x 3 pixels.

    Attributes:
      kind: `average` (padding is not counted) or `max`.
      stride: 1, with padding, or 2, without.
    """

    kind: str
    stride: int = 1


Step = Convolution | Fork | Pool


class Block(NamedTuple):
    """Branches of the same input whose outputs are put side by side.

    Attributes:
      name: the first part of its weights' names; empty where they have one part less.
      branches: the steps of each branch.
    """

    name: str
    branches: tuple[tuple[Step, ...], ...]


def _plain(*steps: Step) -> Block:
    return Block("", (steps,))


def _block_a(name: str, pooled: int) -> Block:
    return Block(
        name,
        (
            (Convolution("branch1x1", 64),),
            (Convolution("branch5x5_1", 48), Convolution("branch5x5_2", 64, (5, 5))),
            (
                Convolution("branch3x3dbl_1", 64),
                Convolution("branch3x3dbl_2", 96, (3, 3)),
                Convolution("branch3x3dbl_3", 96, (3, 3)),
            ),
            (Pool("average"), Convolution("branch_pool", pooled)),
        ),
    )


def _block_b(name: str) -> Block:
    return Block(
        name,
        (
            (Convolution("branch3x3", 384, (3, 3), 2, "VALID"),),
            (
                Convolution("branch3x3dbl_1", 64),
                Convolution("branch3x3dbl_2", 96, (3, 3)),
                Convolution("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
            ),
            (Pool("max", 2),),
        ),
    )


def _block_c(name: str, width: int) -> Block:
    return Block(
        name,
        (
            (Convolution("branch1x1", 192),),
            (
                Convolution("branch7x7_1", width),
                Convolution("branch7x7_2", width, (1, 7)),
                Convolution("branch7x7_3", 192, (7, 1)),
            ),
            (
                Convolution("branch7x7dbl_1", width),
                Convolution("branch7x7dbl_2", width, (7, 1)),
                Convolution("branch7x7dbl_3", width, (1, 7)),
                Convolution("branch7x7dbl_4", width, (7, 1)),
                Convolution("branch7x7dbl_5", 192, (1, 7)),
            ),
            (Pool("average"), Convolution("branch_pool", 192)),
        ),
    )


def _block_d(name: str) -> Block:
    return Block(
        name,
        (
            (
                Convolution("branch3x3_1", 192),
                Convolution("branch3x3_2", 320, (3, 3), 2, "VALID"),
            ),
            (
                Convolution("branch7x7x3_1", 192),
                Convolution("branch7x7x3_2", 192, (1, 7)),
                Convolution("branch7x7x3_3", 192, (7, 1)),
                Convolution("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
            ),
            (Pool("max", 2),),
        ),
    )


def _block_e(name: str, pool: str) -> Block:
    def fork(prefix: str) -> Fork:
        wide, high = (1, 3), (3, 1)
        return Fork((Convolution(f"{prefix}a", 384, wide), Convolution(f"{prefix}b", 384, high)))

    return Block(
        name,
        (
            (Convolution("branch1x1", 320),),
            (Convolution("branch3x3_1", 384), fork("branch3x3_2")),
            (
                Convolution("branch3x3dbl_1", 448),
                Convolution("branch3x3dbl_2", 384, (3, 3)),
                fork("branch3x3dbl_3"),
            ),
            (Pool(pool), Convolution("branch_pool", 192)),
        ),
    )


# The blocks before each layer's mean over the pixels.
NETWORK: Mapping[int, tuple[Block, ...]] = {
    64: (
        _plain(
            Convolution("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
            Convolution("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
            Convolution("Conv2d_2b_3x3", 64, (3, 3)),
            Pool("max", 2),
        ),
    ),
    192: (
        _plain(
            Convolution("Conv2d_3b_1x1", 80),
            Convolution("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
            Pool("max", 2),
        ),
    ),
    768: (
        _block_a("Mixed_5b", 32),
        _block_a("Mixed_5c", 64),
        _block_a("Mixed_5d", 64),
        _block_b("Mixed_6a"),
        _block_c("Mixed_6b", 128),
        _block_c("Mixed_6c", 160),
        _block_c("Mixed_6d", 160),
        _block_c("Mixed_6e", 192),
    ),
    2048: (_block_d("Mixed_7a"), _block_e("Mixed_7b", "average"), _block_e("Mixed_7c", "max")),
}


def full_name(block: Block, step: Convolution) -> str:
    """The name of a convolution's weights in the published file."""
    return f"{block.name}.{step.name}" if block.name else step.name


Shape = tuple[int, ...]


def _walk(block: Block, steps: tuple[Step, ...], shapes: dict[str, Shape], channels: int) -> int:
    """Enters the kernels' shapes and returns the number of channels behind the steps."""
    for step in steps:
        if isinstance(step, Pool):
            continue
        prongs = step.prongs if isinstance(step, Fork) else (step,)
        for prong in prongs:
            shapes[full_name(block, prong)] = (prong.channels, channels, *prong.kernel)
        channels = sum(prong.channels for prong in prongs)
    return channels


def kernel_shapes() -> dict[str, Shape]:
    """The shape `(out, in, height, width)` of each convolution's kernel by name."""
    shapes: dict[str, Shape] = {}
    channels = 3
    for block in itertools.chain.from_iterable(NETWORK.values()):
        channels = sum(_walk(block, steps, shapes, channels) for steps in block.branches)
    return shapes


def weight_shapes() -> dict[str, Shape]:
    """The names and shapes of all 472 arrays of the published file, PyTorch's layout."""
    shapes: dict[str, Shape] = {
        "fc.bias": (NUM_CLASSES,),
        "fc.weight": (NUM_CLASSES, max(NETWORK)),
    }
    for name, shape in kernel_shapes().items():
        shapes[f"{name}.conv.weight"] = shape
        for array in NORMALISATION:
            shapes[f"{name}.bn.{array}"] = shape[:1]
    return shapes
