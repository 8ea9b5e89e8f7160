"""TFDS builder of a user's folder: the second reading, which writes the images."""

import collections
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lensjax.data.dataset import SPLITS
from lensjax.data.folder.entries import FolderFile
from lensjax.data.folder.image import ScannedImage, StoredPlanes, examine, read_unit
from lensjax.data.folder.scan import Scan
from lensjax.data.ordered_builder import OrderedBuilder, record_bytes, record_features
from lensjax.errors import DataError
from lensjax.files.file_image import FileImage

VERSION = "1.0.0"


@dataclasses.dataclass(kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """The TFDS configuration of one folder; its name is the fingerprint of the content.

    Attributes:
      scan: the result of the first reading.
    """

    scan: Scan = dataclasses.field(repr=False)  # TFDS logs the rest


def _changed(path: os.PathLike[str]) -> DataError:
    return DataError(f"{path} changed while the set was being built; start again")


def _check_untouched(file: FolderFile) -> None:
    """Raises where a file has changed since it was listed, such as a stack that grew."""
    for member in file.members.values() if file.members else (file,):
        try:
            status = os.stat(member.path)
        except OSError:
            raise _changed(member.path) from None
        if (status.st_size, status.st_mtime_ns) != (member.size, member.modified_ns):
            raise _changed(member.path)


def _reread(
    scan: Scan, images: list[ScannedImage]
) -> Iterator[tuple[ScannedImage, StoredPlanes, FileImage]]:
    """Yields images with their pixels in the order of the files, each file opened once.

    Raises:
      DataError: if an image has changed since it was checked.
    """
    by_file: dict[int, dict[int, ScannedImage]] = collections.defaultdict(dict)
    for scanned in images:
        by_file[scanned.file][scanned.number] = scanned
    for index, wanted in by_file.items():
        file = scan.listing.files[index]
        _check_untouched(file)
        left = len(wanted)
        for number, image in enumerate(read_unit(file, scan.reading)):
            if number not in wanted:
                continue
            rescanned, planes = examine(index, number, file, image, scan.reading.nan_policy)
            if rescanned._replace(split=wanted[number].split) != wanted[number]:
                raise _changed(file.path)
            yield wanted[number], planes, image
            left -= 1
            if not left:
                break
        if left:
            raise _changed(file.path)


def _in_turn(
    scan: Scan, images: list[ScannedImage]
) -> Iterator[tuple[ScannedImage, StoredPlanes, FileImage]]:
    """Yields the images so that any first part of them has the class shares of the whole."""
    by_class: dict[str | None, list[ScannedImage]] = collections.defaultdict(list)
    for image in images:
        by_class[image.class_name].append(image)
    readers = {name: _reread(scan, class_images) for name, class_images in by_class.items()}
    turns = sorted(
        ((place + 0.5) / len(class_images), name or "")
        for name, class_images in by_class.items()
        for place in range(len(class_images))
    )
    for _, name in turns:
        yield next(readers[name or None])


class DeeplenseFolder(OrderedBuilder):
    """The user's own files as TFDS `deeplense_folder/FINGERPRINT`."""

    VERSION = tfds.core.Version(VERSION)
    builder_config: FolderConfig

    def num_images(self, split: str) -> int:
        """The number of images of a split."""
        return len(self.builder_config.scan.of_split(split))

    def bytes_per_image(self) -> int:
        """The size of one record before compression."""
        scan = self.builder_config.scan
        num_pixels = int(np.prod(scan.image_shape))
        return record_bytes(num_pixels * (1 + scan.has_variance), len(scan.parameter_names)) + (
            num_pixels if scan.has_mask else 0
        )

    def _info(self) -> tfds.core.DatasetInfo:
        scan = self.builder_config.scan
        train = scan.of_split("train")
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=record_features(
                scan.image_shape,
                scan.class_names,
                len(scan.parameter_names),
                variance=scan.has_variance,
                mask=scan.has_mask,
            ),
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
                or (
                    scan.reading.nan_policy == "mask"
                    and any(image.not_finite for image in scan.images)
                ),
                band_names=list(scan.band_names),
                band_zero_points_mag=list(scan.band_zero_points_mag),
                has_variance=scan.has_variance,
                minimum=min(image.minimum for image in train),
                maximum=max(image.maximum for image in train),
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields examples with the classes in turn."""
        scan = self.builder_config.scan
        for key, (scanned, planes, image) in enumerate(_in_turn(scan, scan.of_split(split))):
            label = scan.class_names.index(scanned.class_name) if scanned.class_name else 0
            vector = [image.parameters.get(name, np.nan) for name in scan.parameter_names]
            example = {
                "image": planes.pixels,
                "label": label,
                "parameters": np.asarray(vector, np.float32),
            }
            if scan.has_variance:
                example["variance"] = planes.variance
            if scan.has_mask:
                example["mask"] = np.asarray(planes.mask, np.uint8)
            yield key, example
