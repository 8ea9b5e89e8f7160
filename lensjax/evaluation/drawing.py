"""Generated images on disk, so that an interrupted evaluation need not draw them again."""

import hashlib
import json
import math
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from lensjax.config import SampleConfig
from lensjax.devices.hosts import barrier, from_main, is_main
from lensjax.devices.progress import progress_bar
from lensjax.errors import DataError
from lensjax.files import disk
from lensjax.files.array_file import read_array
from lensjax.files.atomic import write_array, write_json
from lensjax.inference.describe import describe
from lensjax.inference.generator import LensGenerator

# Settings that do not change the image of a given number.
_NOT_OF_AN_IMAGE = ("num_images", "versions", "git_revision", "hardware")


def _key_of(description: dict[str, Any]) -> str:
    decisive = {name: value for name, value in description.items() if name not in _NOT_OF_AN_IMAGE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _read_chunk(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The images of a chunk; None if its file is missing, damaged or does not fit."""
    try:
        images = read_array(path, "the chunk")
    except DataError:
        return None
    return images if images.shape == shape and images.dtype == np.float32 else None


def draw_or_read(
    generator: LensGenerator, sample: SampleConfig, num_images: int, folder: pathlib.Path
) -> np.ndarray:
    """The images of `generator.generate(None, num_images, sample.seed)`.

    Each chunk is written to a file as soon as it is drawn, and chunks on file are read. Images of
    other weights or settings are removed.

    Args:
      generator: the loaded run.
      sample: its settings; their `num_images` is ignored.
      num_images: number of images.
      folder: where the chunks are.

    Returns:
      float32 `[num_images, H, W, C]`, flux.
    """
    description = describe(generator, sample)
    own = folder / _key_of(description)
    if is_main():
        for path in folder.glob("*"):
            if path != own and path.is_dir():
                shutil.rmtree(path)
        own.mkdir(parents=True, exist_ok=True)
        write_json(own / "meta.json", description)
    size, turn = sample.batch_size, jax.device_count()
    paths = [own / f"{number:06d}.npy" for number in range(-(-num_images // size))]
    shape = (size, *generator.image_shape)
    missing = from_main(
        lambda: [number for number, path in enumerate(paths) if _read_chunk(path, shape) is None]
    )
    if is_main():
        num_bytes = 4 * len(missing) * math.prod(shape)
        disk.check_room(own, num_bytes, "set --output to a folder on another disk")
    with progress_bar(len(paths) * size, "Drawing", (len(paths) - len(missing)) * size) as bar:
        for start in range(0, len(missing), turn):
            chunks = missing[start : start + turn]
            numbers = np.concatenate([number * size + np.arange(size) for number in chunks])
            images = generator.generate_numbers(numbers.astype(np.int32), sample)
            for number, chunk in zip(chunks, np.split(images, len(chunks)), strict=True):
                if is_main():
                    write_array(paths[number], chunk)
            bar.update(len(images))
    barrier("all images are drawn")
    return np.concatenate([np.load(path, allow_pickle=False) for path in paths])[:num_images]
