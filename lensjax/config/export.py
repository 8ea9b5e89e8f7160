"""The `export` section: images as files for other programs."""

import dataclasses

from lensjax.config.fields import choice, optional_path


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Images as files for other programs.

    Attributes:
      source: `data`, the data set; or `generated`, the images of `--mode=sample` in the workdir.
      format: `npy` and `fits` write a file per image, `hdf5` a file per split.
      split: split of the data set.
      folder: where the files go; None for `export` in the workdir.
      scale: `flux`, or `published`, which multiplies by the factor of published files.
    """

    source: str = choice("data", ("data", "generated"))
    format: str = choice("npy", ("npy", "hdf5", "fits"))
    split: str = choice("all", ("train", "test", "all"))
    folder: str | None = optional_path("folder")
    scale: str = choice("flux", ("flux", "published"))
