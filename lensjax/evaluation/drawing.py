"""Generated images on disk, so that an interrupted evaluation need not draw them again."""

import contextlib
import hashlib
import json
import math
import pathlib
import re
import zlib
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

_OURS = re.compile(r"(\d{6}(_[0-9a-f]{8})?\.npy|meta\.json)(\.partial)?")  # 0.2.0 had no checksum
# Settings that do not change the image of a given number.
_NOT_OF_AN_IMAGE = ("num_images", "versions", "git_revision", "hardware")


def _key_of(description: dict[str, Any]) -> str:
    decisive = {name: value for name, value in description.items() if name not in _NOT_OF_AN_IMAGE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _chunk_name(number: int, images: np.ndarray) -> str:
    """The file of a chunk, with a checksum, since any file may lie in its folder."""
    return f"{number:06d}_{zlib.crc32(np.ascontiguousarray(images).tobytes()):08x}.npy"


def _read_chunk(folder: pathlib.Path, number: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """The images of a chunk; None if its file is missing, damaged or does not fit."""
    for path in sorted(folder.glob(f"{number:06d}_*.npy")):
        try:
            images = read_array(path, "the chunk")
        except DataError:
            continue
        is_whole = images.shape == shape and images.dtype == np.float32
        if is_whole and path.name == _chunk_name(number, images):
            return images
    return None


def _remove_others(folder: pathlib.Path, own: pathlib.Path) -> None:
    """Removes what was drawn with other weights or settings, and nothing else."""
    for path in folder.glob("*/meta.json"):
        earlier = path.parent
        if earlier == own or not re.fullmatch("[0-9a-f]{16}", earlier.name):
            continue
        for file in list(earlier.iterdir()):
            if file.is_file() and _OURS.fullmatch(file.name):
                file.unlink()
        with contextlib.suppress(OSError):  # a stray file is in it
            earlier.rmdir()


def draw_or_read(
    generator: LensGenerator, sample: SampleConfig, num_images: int, folder: pathlib.Path
) -> np.ndarray:
    """The images of `generator.generate(None, num_images, sample.seed)`.

    Each chunk is written to a file as soon as it is drawn, and chunks on file are read. Images of
    other weights or settings are removed; any other file or folder is left alone.

    Args:
      generator: the loaded run.
      sample: its settings; their `num_images` is ignored.
      num_images: number of images.
      folder: where the chunks are.

    Returns:
      float32 `[num_images, H, W, C]`, flux.

    Raises:
      DataError: if a chunk is gone once all were drawn.
    """
    description = describe(generator, sample)
    own = folder / _key_of(description)
    if is_main():
        _remove_others(folder, own)
        own.mkdir(parents=True, exist_ok=True)
        write_json(own / "meta.json", description)
    size, turn = sample.batch_size, jax.device_count()
    numbers_of_chunks = range(-(-num_images // size))
    total = len(numbers_of_chunks)
    shape = (size, *generator.image_shape)
    missing = from_main(
        lambda: [number for number in numbers_of_chunks if _read_chunk(own, number, shape) is None]
    )
    if is_main():
        num_bytes = 4 * len(missing) * math.prod(shape)
        disk.check_room(own, num_bytes, "set --output to a folder on another disk")
    with progress_bar(total * size, "Drawing", (total - len(missing)) * size) as bar:
        for start in range(0, len(missing), turn):
            chunks = missing[start : start + turn]
            numbers = np.concatenate([number * size + np.arange(size) for number in chunks])
            images = generator.generate_numbers(numbers.astype(np.int32), sample)
            for number, chunk in zip(chunks, np.split(images, len(chunks)), strict=True):
                if is_main():
                    write_array(own / _chunk_name(number, chunk), chunk)
            bar.update(len(images))
    barrier("all images are drawn")
    on_file = [_read_chunk(own, number, shape) for number in numbers_of_chunks]
    whole = [chunk for chunk in on_file if chunk is not None]
    if len(whole) < total:
        raise DataError(f"{own}: images were removed or damaged meanwhile; run the command again")
    return np.concatenate(whole)[:num_images]
