"""TFDS builder of a user's folder: the second reading, which writes what the first one checked."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lensjax.data.dataset import DataError
from lensjax.data.file_image import FileImage
from lensjax.data.folder_scan import Scan, ScannedImage, digest_of, prepare_pixels
from lensjax.data.image_files import read_images
from lensjax.data.ordered_builder import OrderedBuilder, record_bytes, record_features

VERSION = "1.0.0"
SPLITS = ("train", "test")


@dataclasses.dataclass(kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """One folder as TFDS wants it; its name is the fingerprint of the content.

    Attributes:
      scan: what the first reading found.
      report: what of it is kept with the set, as JSON types.
    """

    scan: Scan
    report: dict[str, Any]


def _reread(scan: Scan, images: list[ScannedImage]) -> Iterator[tuple[ScannedImage, FileImage]]:
    """Yields images in the order of the files, each file opened once."""
    by_file: dict[int, dict[int, ScannedImage]] = collections.defaultdict(dict)
    for known in images:
        by_file[known.file][known.number] = known
    for file, wanted in by_file.items():
        path = scan.listing.files[file].path
        found = 0
        for number, image in enumerate(read_images(path, scan.reading.layout)):
            if number in wanted:
                found += 1
                yield wanted[number], image
                if found == len(wanted):
                    break
        if found != len(wanted):
            raise DataError(f"{path} changed while it was being read; start again")


def _in_turn(scan: Scan, images: list[ScannedImage]) -> Iterator[tuple[ScannedImage, FileImage]]:
    """Yields the images so that any beginning has the classes in their shares of the whole."""
    of_class = {
        name: [image for image in images if image.class_name == name]
        for name in scan.class_names or (None,)
    }
    readers = {name: _reread(scan, found) for name, found in of_class.items()}
    taken = dict.fromkeys(of_class, 0)
    for _ in images:
        name = min(taken, key=lambda one: (taken[one] + 0.5) / max(1, len(of_class[one])))
        taken[name] += 1
        if taken[name] == len(of_class[name]):
            taken[name] = 2 * len(images) * len(of_class[name])  # it is through
        yield next(readers[name])


class DeeplenseFolder(OrderedBuilder):
    """The user's own files as TFDS `deeplense_folder/FINGERPRINT`."""

    VERSION = tfds.core.Version(VERSION)
    builder_config: FolderConfig

    def num_images(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self.builder_config.scan.of_split(split))

    def bytes_per_image(self) -> int:
        """Returns the size of one record before compression."""
        scan = self.builder_config.scan
        return record_bytes(int(np.prod(scan.image_shape)), len(scan.parameter_names))

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        train = scan.of_split("train")
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=record_features(scan.image_shape, scan.class_names, len(scan.parameter_names)),
            metadata=tfds.core.MetadataDict(
                fingerprint=scan.fingerprint,
                class_names=list(scan.class_names),
                parameter_names=list(scan.parameter_names),
                pixel_scale_arcsec=scan.pixel_scale_arcsec,
                psf_fwhm_arcsec=scan.psf_fwhm_arcsec,
                flux_unit=scan.flux_unit,
                zero_point_mag=scan.zero_point_mag,
                integer=scan.integer,
                masked=any(image.masked for image in scan.images)
                and scan.reading.nan_policy == "mask",
                minimum=min(image.minimum for image in train),
                maximum=max(image.maximum for image in train),
                report=self.builder_config.report,
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields examples with the classes in turn, and checks that they are those of the scan."""
        scan = self.builder_config.scan
        policy = scan.reading.nan_policy
        for key, (known, image) in enumerate(_in_turn(scan, scan.of_split(split))):
            pixels = prepare_pixels(image, policy)
            if digest_of(pixels) != known.digest:
                path = scan.listing.files[known.file].path
                raise DataError(f"{path} changed while it was being read; start again")
            label = scan.class_names.index(known.class_name) if known.class_name else 0
            vector = [image.parameters.get(name, np.nan) for name in scan.parameter_names]
            example = {
                "image": pixels,
                "label": label,
                "parameters": np.asarray(vector, np.float32),
            }
            yield key, example
