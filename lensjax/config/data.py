"""The `data` section: the training images, and checks for simulated and own sets."""

import dataclasses
import re
from collections.abc import Sequence

from lensjax.config.fields import (
    MOST_SECONDS,
    Facts,
    between,
    choice,
    count,
    make_field,
    optional_path,
    plain,
    positive,
    texts,
)
from lensjax.data.augmentation import EXACT_FOR_SIMULATED, SYMMETRIES, is_augmentation
from lensjax.data.catalogue import (
    BAD_FILE_POLICIES,
    BAND_KINDS,
    FOLDER_KINDS,
    FOLDER_SET,
    NAN_POLICIES,
    SIMULATED_SETS,
)
from lensjax.data.disc import covers, overlaps
from lensjax.data.scaling import SCALINGS
from lensjax.data.simulator import SOURCE_POSITION_LIMIT
from lensjax.errors import ConfigError
from lensjax.files.file_image import LAYOUTS
from lensjax.files.planes import PlaneRules

_OF_FOLDERS = {"data.name": (FOLDER_SET,)}
_NEW: Facts = {"only_for": _OF_FOLDERS, "since": "0.3.0"}


def is_grouping(text: str) -> bool:
    """Whether a text is the name of a column, or a regular expression with one group."""
    if "(" not in text:
        return bool(text.strip())
    try:
        return re.compile(text).groups == 1
    except re.error:
        return False


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data that the network learns from.

    Attributes:
      name: data set, such as `deeplense/model_ii`; a name that ends in `_mini` is a small version;
        `deeplense/folder` for your own files.
      folder: the folder of your own files.
      files: which files are images: a pattern such as `*/data.fits`, which the end of a file's path
        must match; None for all files of known formats, and a question where names look like
        those of masks, weights and the like.
      folders: what a folder in `folder` (or in a folder of a split) is: a class of images, or an
        object with files of its own; `auto` decides by the names, and asks where it cannot.
      group: which files or rows show one object, which lies on one side of the split as a whole: a
        regular expression with one group, searched in a file's path below `folder`, such as
        `(.*)_[gri]`, or the name of a column of `parameters.csv` in that folder; None for one
        object a file, or one for each image of a stack.
      planes: which planes of a file are images: names of FITS extensions or of arrays in .npz and
        HDF5 files, patterns such as `*_SCI`, or extension numbers; with `group` or folders of
        objects, which file of an object is which plane. () if each file has one.
      variance_planes: the planes with the variance of each of `planes`, in their order, or one
        pattern; `auto` finds them by name. Standard deviations (RMS, ERR) are squared, and weights
        (WHT, IVAR) inverted; where a name does not say what it is, write it behind it, such as
        `wt=variance`, `=sigma` or `=weight`. () for none.
      mask_planes: the same for masks and flags, with `=bad` or `=good`; masked pixels carry no
        loss.
      mask_bits: the bits of a mask that mark a pixel as bad, added up, such as 16 + 4096; 0 if
        every value but 0 does.
      bands: whether several `planes` are images of their own (`images`) or the channels of one
        (`channels`).
      layout: the axes of an array in a file; `auto` infers them from its shape.
      nan_policy: what to do with pixels that are not finite: `refuse`, `mask` (leave them out of
        the loss), or `fill` (with the median of their image).
      on_bad_file: what to do with a file that cannot be used: `refuse`, or `skip` and list it.
      file_memory_gib: the most memory in GiB that reading one file may take, such as for a
        compressed file or one image.
      file_seconds: the longest time in seconds that reading one file may take.
      test_share: share of the images that becomes the test split if the folder has none.
      directory: where TFDS stores data sets; None for `$TFDS_DATA_DIR`, else
        `~/tensorflow_datasets`.
      fresh: trains on new lenses of the simulator in each step, not on those of the set.
      placement: `device` keeps the set on the accelerator, `stream` reads it from disk; `auto`
        chooses.
      augmentation: symmetries under which the data stay valid, as comma-separated names of
        `augmentation.SYMMETRIES`, or `all`; Models I to III allow only `rotate_180`.
      shift_pixels: largest random shift of the cut-out; the network sees images that are smaller by
        this margin on each side. For your own files.
      scaling: map from flux to the model's range; `sqrt` refuses negative pixels.
      model_std: standard deviation of the training images in the model's range.
      exclude_source_disc: `(x, y, radius)` in arcsec: training leaves out every image whose source
        is in this disc, so that an evaluation can test whether the network fills the hole; `()` for
        none. For simulated sets.
    """

    name: str = choice("deeplense/model_ii", (*SIMULATED_SETS, FOLDER_SET))
    # A set of files is identified by its content: the folder may move.
    folder: str | None = optional_path("folder", only_for=_OF_FOLDERS, resumable=True)
    files: str | None = make_field(
        None, bool, "None, or a pattern of file names such as */data.fits", **_NEW
    )
    folders: str = choice("auto", FOLDER_KINDS, **_NEW)
    group: str | None = make_field(
        None,
        is_grouping,
        "None, the name of a column, or a regular expression with one group, such as (.*)_[gri]",
        **_NEW,
    )
    planes: tuple[str, ...] = texts("names or patterns, such as ('VIS', 'NIR_Y')", **_NEW)
    variance_planes: tuple[str, ...] = texts("names, patterns, ('auto',) or ()", **_NEW)
    mask_planes: tuple[str, ...] = texts("names, patterns, ('auto',) or ()", **_NEW)
    mask_bits: int = count(0, least=0, most=2**31 - 1, **_NEW)
    bands: str = choice("images", BAND_KINDS, **_NEW)
    layout: str = choice("auto", LAYOUTS, only_for=_OF_FOLDERS)
    nan_policy: str = choice("refuse", NAN_POLICIES, only_for=_OF_FOLDERS)
    on_bad_file: str = choice("refuse", BAD_FILE_POLICIES, only_for=_OF_FOLDERS)
    file_memory_gib: float = positive(1.0, most=1e6, resumable=True, only_for=_OF_FOLDERS)
    file_seconds: float = positive(600.0, most=MOST_SECONDS, resumable=True, only_for=_OF_FOLDERS)
    test_share: float = between(0.1, 0.001, 0.9, only_for=_OF_FOLDERS)
    directory: str | None = optional_path("folder", resumable=True)
    fresh: bool = plain(False, since="0.3.0")
    placement: str = choice("auto", ("auto", "device", "stream"), resumable=True)
    augmentation: str = make_field(
        "none", is_augmentation, f"{', '.join(SYMMETRIES)}, comma-separated, or all"
    )
    shift_pixels: int = count(0, least=0, only_for=_OF_FOLDERS)
    scaling: str = choice("linear", SCALINGS)
    model_std: float = positive(0.5)
    exclude_source_disc: tuple[float, ...] = make_field(
        (),
        lambda disc: len(disc) == 0 or (len(disc) == 3 and disc[2] > 0),
        "() or (x, y, radius) in arcsec with a radius above 0, such as (0.1, 0.1, 0.1)",
        since="0.1.0",
    )


def foreign_rules(data: DataConfig, planes: Sequence[str]) -> tuple[PlaneRules, PlaneRules]:
    """Which planes of files of `--images` are images; their variances and masks are not read.

    Args:
      data: the `data` section of the run.
      planes: `evaluate.planes` or `classify.planes`.

    Returns:
      The rules for all files, and those for FITS files if `planes` is (): the files of the data set
      are then like these.
    """
    return PlaneRules(tuple(planes), bands=data.bands), PlaneRules(data.planes, bands=data.bands)


def check_data(data: DataConfig) -> None:
    """Checks the fields that a set of files needs, and those that a simulated set restricts.

    Raises:
      ConfigError: for the first field that is wrong.
    """
    if data.name == FOLDER_SET:
        if not data.folder:
            raise ConfigError(
                "data.folder", data.folder, f"allowed: a folder of images for {FOLDER_SET}"
            )
        if data.exclude_source_disc:
            raise ConfigError(
                "data.exclude_source_disc",
                data.exclude_source_disc,
                f"allowed: () for {FOLDER_SET}; only simulated sets have known source positions",
            )
        if data.fresh:
            raise ConfigError(
                "data.fresh", True, f"allowed: False for {FOLDER_SET}; only the simulator draws new"
            )
        _check_planes(data)
        return
    if data.augmentation not in EXACT_FOR_SIMULATED:
        raise ConfigError(
            "data.augmentation",
            data.augmentation,
            f"allowed: {', '.join(EXACT_FOR_SIMULATED)} for {data.name}; any other symmetry "
            "changes its images more than sub-structure does",
        )
    disc, limit = data.exclude_source_disc, SOURCE_POSITION_LIMIT
    if disc and data.fresh:
        raise ConfigError(
            "data.fresh",
            True,
            "allowed: False with data.exclude_source_disc, which leaves out images of the set",
        )
    if disc and (covers(disc, limit) or not overlaps(disc, limit)):
        raise ConfigError(
            "data.exclude_source_disc",
            disc,
            f"allowed: a disc that contains some but not all of the sources; their x and y are in "
            f"[-{limit}, {limit}] arcsec",
        )


def _check_planes(data: DataConfig) -> None:
    """Checks that the fields about planes fit together."""
    if data.bands == "channels" and len(data.planes) < 2:
        raise ConfigError(
            "data.planes",
            data.planes,
            "allowed: at least two with data.bands=channels, one for each channel in their order, "
            "such as ('VIS', 'NIR_Y')",
        )
    if data.mask_bits and not data.mask_planes:
        raise ConfigError("data.mask_bits", data.mask_bits, "allowed: 0 without data.mask_planes")
    for name in ("variance_planes", "mask_planes"):
        names = getattr(data, name)
        if len(names) > 1 and len(names) != len(data.planes):
            raise ConfigError(
                f"data.{name}",
                names,
                f"allowed: one for each of the {len(data.planes)} data.planes in their order, one "
                "pattern, ('auto',) or ()",
            )
