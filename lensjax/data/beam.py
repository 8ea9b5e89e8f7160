"""Builds a simulated set with Apache Beam, for sets that outgrow one machine.

python -m lensjax.data.beam NAME [--directory=FOLDER] [--runner=RUNNER and other options of Beam]

The workers simulate whole chunks, and TFDS's own Beam writer puts the examples in order into the
files; the set is then equal to that of a single process, bit for bit on machines of one kind.
Every worker must see the folder under the same path and have lensjax installed. Neither this
process nor the workers need TensorFlow; apache-beam comes with the extra `beam`.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from lensjax.data import deeplense
from lensjax.data.catalogue import (
    BUILDER_VERSION,
    CHUNK,
    SIMULATED_SETS,
    SimulatedSet,
    full_name,
)
from lensjax.data.prepared import PreparedSet
from lensjax.errors import DataError, UnusableError, UserError
from lensjax.files.json_file import NUMBER, checked, read_object
from lensjax.files.packages import require_packages

_RANGE_FILE = "range.json"  # in the unfinished set, until it is in the metadata


_Example = tuple[int, dict[str, Any]]  # its index within the split, and its features


def _simulate(start: int, source: SimulatedSet, split: str) -> Iterator[_Example]:
    """Yields the examples of one chunk; runs on a worker."""
    starts = range(start, start + CHUNK, CHUNK)
    for first, chunk in deeplense.simulate_chunks(source, split, starts):
        yield from deeplense.examples_of(first, chunk)


def _range_of(example: _Example) -> tuple[float, float]:
    image = example[1]["image"]
    return float(image.min()), float(image.max())


def _joint_range(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lowest, highest = zip(*ranges, strict=True)
    return min(lowest), max(highest)


def _write_range(bounds: tuple[float, float], path: str) -> None:
    text = json.dumps(dict(zip(("minimum", "maximum"), bounds, strict=True)))
    pathlib.Path(path).write_text(text, encoding="utf-8")


class BeamDeeplense(deeplense.Deeplense, skip_registration=True):  # type: ignore[call-arg]
    """The simulated sets as TFDS `deeplense/NAME`, made by the workers of a Beam runner."""

    name = deeplense.Deeplense.name
    VERSION = tfds.core.Version(BUILDER_VERSION)
    BUILDER_CONFIGS: ClassVar = deeplense.Deeplense.BUILDER_CONFIGS
    _generate_splits = tfds.core.GeneratorBasedBuilder._generate_splits  # with TFDS's Beam writer

    def _generate_examples(self, split: str) -> Any:
        """Makes the transform that simulates a split; TFDS sorts its examples by their index."""
        import apache_beam as beam

        source = self.builder_config.source
        range_path = os.fspath(self.data_path / _RANGE_FILE)

        @beam.ptransform_fn
        def simulated(pipeline: Any) -> Any:
            starts = list(deeplense.chunk_starts(source, split))
            examples = (
                pipeline
                | "Chunks" >> beam.Create(starts)
                | "Spread" >> beam.Reshuffle()  # over the workers
                | "Simulate" >> beam.FlatMap(_simulate, source, split)
            )
            if split == "train":
                _ = (
                    examples
                    | "Range" >> beam.Map(_range_of)
                    | "JointRange" >> beam.CombineGlobally(_joint_range).without_defaults()
                    | "WriteRange" >> beam.Map(_write_range, range_path)
                )
            return examples

        return simulated()

    def _process_pipeline_result(self, pipeline_result: Any) -> None:
        """Adds the range of the training images to the metadata."""
        path = self.data_path / _RANGE_FILE
        if not path.exists():
            raise DataError(
                f"nothing that the workers wrote is visible in {self.data_path.parent}; allowed: a "
                "folder that every worker sees under the same path"
            )
        try:
            written = checked(read_object(path), {"minimum": NUMBER, "maximum": NUMBER})
        except UnusableError as error:
            raise DataError(f"{path}: {error}; build the set again") from None
        self.info.metadata.update(written)
        path.unlink()


def prepare(
    name: str,
    directory: str | None = None,
    pipeline_options: Sequence[str] = (),
    *,
    num_shards: int | None = None,
) -> PreparedSet:
    """Builds a simulated set with Apache Beam unless it is there already.

    Args:
      name: one of `deeplense.available_sets()`, with or without `deeplense/`.
      directory: see `deeplense.locate`.
      pipeline_options: Beam's, such as `--runner=FlinkRunner`; its DirectRunner without any.
      num_shards: files per split; None for TFDS's choice, of 64 to 920 MiB each.

    Raises:
      DataError: for an unknown name, options that Beam refuses, and as `deeplense.prepare`; where
        apache-beam is not installed; where the workers do not share the folder.
    """
    full = full_name(name, SIMULATED_SETS)
    require_packages("building with Apache Beam", "beam", "apache_beam")
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(pipeline_options))
    try:
        beam.Pipeline(options=options)  # TFDS would raise the same error, but late
    except (ValueError, ImportError) as error:
        raise DataError(f"pipeline options: {' '.join(str(error).split())}") from error
    config = tfds.download.DownloadConfig(num_shards=num_shards, beam_options=options)
    return deeplense.prepare_with(BeamDeeplense, full, directory, config)


def main(arguments: list[str]) -> None:
    """Runs the command line; an error that a user can put right ends it with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m lensjax.data.beam",
        description="Builds a simulated set with Apache Beam.",
        epilog="Other options are Beam's, such as --runner=FlinkRunner.",
        allow_abbrev=False,
    )
    parser.add_argument("name", help="the set, such as deeplense/model_ii")
    parser.add_argument("--directory", help="folder of the data sets, as in data.directory")
    own, pipeline_options = parser.parse_known_args(arguments)
    try:
        prepared = prepare(own.name, own.directory, pipeline_options)
    except UserError as error:
        parser.exit(2, f"lensjax: {error}\n")
    print(f"{prepared.name} is in {prepared.folder}")


if __name__ == "__main__":
    # By its own name, so that workers import the functions instead of getting copies of them.
    from lensjax.data import beam

    beam.main(sys.argv[1:])
