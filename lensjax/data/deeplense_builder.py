"""TFDS builder of the simulated DeepLense sets; `deeplense.py` prepares and reads them.

`deeplense/model_ii` and its siblings hold noise-free images, `_noisy` adds the instrument's noise
to the same lenses, `_conserved` takes the sub-structure's mass from the main halo, and `_mini` is
the beginning of a set. Example k is image k // 3 of class k % 3.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from jax import Array

from lensjax import prng
from lensjax.data import parameters, raytracing, simulator
from lensjax.data.catalogue import IMAGES_PER_CLASS, SIMULATED_SETS, SimulatedSet
from lensjax.data.ordered_builder import OrderedBuilder, record_bytes, record_features
from lensjax.data.surveys import SURVEYS, Survey

VERSION = "1.0.0"
SPLIT_INDEX = {"train": 0, "test": 1}
_CHUNK = 128  # images a call and class: the working set stays in the cache


@dataclasses.dataclass(kw_only=True)
class DeeplenseConfig(tfds.core.BuilderConfig):
    """One simulated set as TFDS wants it.

    Attributes:
      source: what the set is made of.
    """

    source: SimulatedSet

    def num_images(self, split: str) -> int:
        """Returns the number of images of a split, all classes together."""
        return self.source.images_per_class[split] * len(simulator.CLASS_NAMES)


@functools.partial(jax.jit, static_argnames=("survey", "class_name", "noisy", "conserved"))
def _simulate_chunk(
    base: Array,
    start: Array,
    survey: Survey,
    class_name: str,
    noisy: bool,
    conserved: bool,
) -> tuple[Array, Array]:
    """Returns float32 images `[_CHUNK, H, W]` and parameter vectors `[_CHUNK, P]`."""
    keys = prng.keys(base, start + jnp.arange(_CHUNK))
    images, draws, exposures = simulator.simulate(
        keys, survey, class_name, noisy=noisy, conserved=conserved
    )
    to_vector = functools.partial(parameters.parameter_vector, class_name=class_name)
    return images.astype(jnp.float32), jax.vmap(to_vector)(draws, exposures)


def _chunks(config: DeeplenseConfig, split: str) -> Iterator[tuple[int, list[Any]]]:
    """Yields the first image's index and, for each class, images and parameter vectors."""
    source = config.source
    survey = source.survey
    # The stream is the model's alone: noisy and conserved sets show the same lenses.
    bases = [
        prng.key(0, f"deeplense/{survey.name}", SPLIT_INDEX[split], label)
        for label in range(len(simulator.CLASS_NAMES))
    ]

    def dispatch(start: int) -> list[tuple[Array, Array]]:
        return [
            _simulate_chunk(base, start, survey, class_name, source.noisy, source.conserved)
            for base, class_name in zip(bases, simulator.CLASS_NAMES, strict=True)
        ]

    count = source.images_per_class[split]
    pending = dispatch(0)
    for start in range(0, count, _CHUNK):
        ready = pending
        if start + _CHUNK < count:
            pending = dispatch(start + _CHUNK)  # computed while this chunk is being written
        yield start, [jax.device_get(pair) for pair in ready]


class Deeplense(OrderedBuilder):
    """The simulated sets as TFDS `deeplense/NAME`."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS: ClassVar = [
        DeeplenseConfig(name=source.name, source=source) for source in SIMULATED_SETS.values()
    ]
    builder_config: DeeplenseConfig

    def num_images(self, split: str) -> int:
        """Returns the number of images of a split, all classes together."""
        return self.builder_config.num_images(split)

    def bytes_per_image(self) -> int:
        """Returns the size of one record before compression."""
        return bytes_per_image(self.builder_config)

    def _info(self) -> tfds.core.DatasetInfo:
        survey = self.builder_config.source.survey
        side = survey.num_pixels
        counts = survey.exposure_time_s is None and self.builder_config.source.noisy
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=record_features(
                (side, side, 1), simulator.CLASS_NAMES, len(parameters.PARAMETER_NAMES)
            ),
            metadata=tfds.core.MetadataDict(
                fingerprint=fingerprint(),
                class_names=list(simulator.CLASS_NAMES),
                parameter_names=list(parameters.PARAMETER_NAMES),
                pixel_scale_arcsec=survey.pixel_scale_arcsec,
                psf_fwhm_arcsec=survey.psf_fwhm_arcsec,
                flux_unit="counts" if counts else survey.flux_unit,
                published_scale=survey.published_scale,
                zero_point_mag=survey.zero_point,
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLIT_INDEX}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields examples in order: classes take turns, so that any beginning is balanced."""
        config = self.builder_config
        count = config.source.images_per_class[split]
        num_classes = len(simulator.CLASS_NAMES)
        lowest, highest = np.inf, -np.inf
        for start, chunk in _chunks(config, split):
            taken = min(_CHUNK, count - start)
            for images, _ in chunk:
                lowest = min(lowest, float(images[:taken].min()))
                highest = max(highest, float(images[:taken].max()))
            for index in range(taken):
                for label, (images, vectors) in enumerate(chunk):
                    yield (
                        num_classes * (start + index) + label,
                        {
                            "image": images[index, ..., None],
                            "label": label,
                            "parameters": vectors[index],
                        },
                    )
        if split == "train":
            self.info.metadata.update(minimum=lowest, maximum=highest)


def bytes_per_image(config: DeeplenseConfig) -> int:
    """Returns the size of one record before compression."""
    return record_bytes(config.source.survey.num_pixels**2, len(parameters.PARAMETER_NAMES))


def _code_of(part: Any) -> str:
    """Returns the source of a module, class or function without comments and docstrings."""
    source = textwrap.dedent(inspect.getsource(part))
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column]
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            for line in range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno):
                lines[line] = ""
    # Indentation stays: it says what belongs to a branch.
    return "\n".join(line.rstrip() for line in lines if line.strip())


@functools.cache
def _digest_of_code() -> Any:
    parts = (
        raytracing,
        simulator,
        parameters,
        prng,
        _simulate_chunk,
        _chunks,
        Deeplense._generate_examples,
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_code_of(inspect.unwrap(part) if callable(part) else part).encode())
    return digest


def fingerprint() -> str:
    """Returns what identifies the code and the constants that decide what the sets hold.

    Corrected comments and docstrings leave it as it is, and so does the code that only writes,
    reads or checks. It is the same with each version of Python.
    """
    digest = _digest_of_code().copy()
    constants = (VERSION, SPLIT_INDEX, _CHUNK, IMAGES_PER_CLASS, dict(SURVEYS))
    digest.update(repr(constants).encode())
    return digest.hexdigest()[:16]
