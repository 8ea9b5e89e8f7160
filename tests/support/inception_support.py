"""The made-up weights of the Inception network, and what it gives with them."""

import ast
import functools
import pathlib
import zlib

import numpy as np

DATA = pathlib.Path(__file__).resolve().parents[1] / "data" / "stored"
with np.load(DATA / "inception_parity.npz") as _file:
    PARITY = {name: _file[name] for name in _file.files}
SHAPES = {
    str(key): ast.literal_eval(str(shape))
    for key, shape in zip(PARITY["keys"], PARITY["shapes"], strict=True)
}


def _weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng([int(PARITY["seed"]), zlib.crc32(key.encode())])
    kind = key.split(".")[-1]
    if kind == "running_var":
        return random.uniform(0.5, 1.5, shape)
    if kind == "weight" and len(shape) == 1:
        return random.uniform(0.8, 1.2, shape)
    if kind in ("running_mean", "bias"):
        return 0.1 * random.normal(size=shape)
    return np.sqrt(2 / np.prod(shape[1:])) * random.normal(size=shape)


@functools.cache
def made_up_weights() -> dict[str, np.ndarray]:
    """All 472 arrays by the rule that stands beside the file."""
    return {key: _weight(key, shape).astype(np.float32) for key, shape in SHAPES.items()}
