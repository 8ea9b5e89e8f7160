"""TFDS builder of the simulated DeepLense sets; `deeplense.py` prepares and reads them.

`deeplense/model_ii` and its siblings hold noise-free images, `_noisy` adds the instrument's noise
to the same lenses, `_conserved` takes the sub-structure's mass from the main halo, and `_mini` is
the beginning of a set. Example k is image k // 3 of class k % 3.

TensorFlow is never imported here. TFDS itself would do so for a split of more than 1 GB, because
it puts the records into buckets on disk to sort them; ours come in order and are written as they
come.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import io
import os
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
import tqdm
from array_record.python import array_record_module
from jax import Array
from tensorflow_datasets.core import dataset_metadata

from lensjax import prng
from lensjax.data import parameters, raytracing, simulator
from lensjax.data.catalogue import IMAGES_PER_CLASS, SIMULATED_SETS, SimulatedSet
from lensjax.data.surveys import SURVEYS, Survey

VERSION = "1.0.0"
SPLIT_INDEX = {"train": 0, "test": 1}
_CHUNK = 128  # images a call and class: the working set stays in the cache
_SHARD_BYTES = 512 << 20
_RECORD_OVERHEAD_BYTES = 200


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


class Deeplense(tfds.core.GeneratorBasedBuilder):
    """The simulated sets as TFDS `deeplense/NAME`."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS: ClassVar = [
        DeeplenseConfig(name=source.name, source=source) for source in SIMULATED_SETS.values()
    ]
    builder_config: DeeplenseConfig

    @classmethod
    def get_metadata(cls) -> Any:
        """Returns the description; TFDS would look for it in files beside the module."""
        return dataset_metadata.DatasetMetadata(description=__doc__ or "", citation="", tags=[])

    def _info(self) -> tfds.core.DatasetInfo:
        survey = self.builder_config.source.survey
        side = survey.num_pixels
        num_parameters = len(parameters.PARAMETER_NAMES)
        as_bytes = tfds.features.Encoding.BYTES
        counts = survey.exposure_time_s is None and self.builder_config.source.noisy
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=(side, side, 1), dtype=np.float32, encoding=as_bytes
                    ),
                    "label": tfds.features.ClassLabel(names=simulator.CLASS_NAMES),
                    "parameters": tfds.features.Tensor(
                        shape=(num_parameters,), dtype=np.float32, encoding=as_bytes
                    ),
                }
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

    def _log_download_bytes(self) -> None:
        """Says nothing: TFDS would print that it downloads."""

    def _log_download_done(self) -> None:
        """Says nothing, see above."""

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

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        """Writes the splits in order instead of sorting them (see the module's docstring)."""
        generators = self._split_generators(dl_manager)
        config = self.builder_config
        total = sum(config.num_images(split) for split in generators)
        with tqdm.tqdm(
            total=total,
            desc=f"Building deeplense/{config.name}",
            unit=" images",
            # A log file gets a line now and then, a terminal a moving bar.
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
        ) as bar:
            return [
                self._write_split(split, examples, download_config.num_shards, bar)
                for split, examples in generators.items()
            ]

    def _write_split(
        self, split: str, examples: Iterator[Any], num_shards: int | None, bar: tqdm.tqdm
    ) -> tfds.core.SplitInfo:
        count = self.builder_config.num_images(split)
        size = count * bytes_per_image(self.builder_config)
        num_shards = min(num_shards or -(-size // _SHARD_BYTES), count)
        ends = [round(count * (shard + 1) / num_shards) for shard in range(num_shards)]
        template = self._get_filename_template(split_name=split)
        num_bytes = start = 0
        for shard, end in enumerate(ends):
            path = template.sharded_filepath(shard_index=shard, num_shards=num_shards)
            # TFDS writes one record a group too; it makes access by index fast.
            writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
            for _ in range(start, end):
                record = self.info.features.serialize_example(next(examples)[1])
                writer.write(record)
                num_bytes += len(record)
                bar.update()
            writer.close()
            start = end
        next(examples, None)  # runs the generator's last lines
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=np.diff([0, *ends]).tolist(),
            num_bytes=num_bytes,
            filename_template=template,
        )


def bytes_per_image(config: DeeplenseConfig) -> int:
    """Returns the size of one record before compression."""
    num_floats = config.source.survey.num_pixels**2 + len(parameters.PARAMETER_NAMES)
    return 4 * num_floats + _RECORD_OVERHEAD_BYTES


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
def fingerprint() -> str:
    """Returns what identifies the code and the constants that decide what the sets hold.

    Corrected comments and docstrings leave it as it is, and so does the code that only writes,
    reads or checks. It is the same with each version of Python.
    """
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
    constants = (VERSION, SPLIT_INDEX, _CHUNK, IMAGES_PER_CLASS, dict(SURVEYS))
    digest.update(repr(constants).encode())
    return digest.hexdigest()[:16]
