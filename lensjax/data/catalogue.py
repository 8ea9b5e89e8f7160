"""The names of the data sets, their settings, and the fingerprints that identify them on disk.

Imports nothing heavy.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable

from lensjax.arguments import refuse
from lensjax.data.surveys import SURVEYS, Survey
from lensjax.errors import DataError, shown

# Raised by hand whenever the same set would hold other pixels, labels or parameters; a test renders
# fixed lenses and compares them with stored pixels, so that nobody forgets.
SIMULATION_VERSION = 1
# lensjax 0.1.0 used a hash of its source text as fingerprint (of a set, and of a part of one);
# each hash with its version of the simulation.
_SOURCE_HASHES = {"c5b6bc2a447c337f": 1, "5498de9c2e6a5043": 1}

BUILDER_VERSION = "1.0.0"  # TFDS's: the layout of the files
SPLIT_INDEX = {"train": 0, "test": 1}  # folded into the random keys of a split
CHUNK = 128  # images a call and class: the working set stays in the cache

IMAGES_PER_CLASS = {
    "full": {"train": 30_000, "test": 5_000},
    "mini": {"train": 1_000, "test": 200},
}


@dataclasses.dataclass(frozen=True)
class SimulatedSet:
    """One simulated set.

    Attributes:
      survey: the DeepLense model.
      noisy: whether the instrument's noise is added.
      conserved: whether the sub-structure's mass is taken from the main halo.
      mini: whether it is the small version.
    """

    survey: Survey
    noisy: bool = False
    conserved: bool = False
    mini: bool = False

    @property
    def name(self) -> str:
        """Name within TFDS, such as `model_ii_noisy_mini`."""
        suffixes = (("_noisy", self.noisy), ("_conserved", self.conserved), ("_mini", self.mini))
        return self.survey.name + "".join(suffix for suffix, present in suffixes if present)

    @property
    def takes_noise(self) -> bool:
        """Whether the instrument's noise can be added, with one exposure for all images."""
        return not self.noisy and self.survey.exposure_time_s is not None

    @property
    def images_per_class(self) -> dict[str, int]:
        """Number of images of each class by split."""
        return IMAGES_PER_CLASS["mini" if self.mini else "full"]

    @property
    def fingerprint(self) -> str:
        """Identifies the content: the version of the simulation and a hash of the constants.

        A survey's field at its default does not enter the hash, so that a new field makes no set
        on any disk stale.
        """
        survey = {
            field.name: value
            for field in dataclasses.fields(self.survey)
            if (value := getattr(self.survey, field.name)) != field.default
        }
        constants = (
            (BUILDER_VERSION, SPLIT_INDEX, CHUNK, self.images_per_class),
            (survey, self.noisy, self.conserved),
        )
        digest = hashlib.sha256(json.dumps(constants, sort_keys=True).encode())
        return f"simulation-{SIMULATION_VERSION}-{digest.hexdigest()[:12]}"


def _all_sets() -> list[SimulatedSet]:
    plain = [
        SimulatedSet(survey, noisy=noisy)
        for noisy, survey in itertools.product((False, True), SURVEYS.values())
    ]
    plain.append(SimulatedSet(SURVEYS["model_ii"], conserved=True))
    return plain + [dataclasses.replace(simulated, mini=True) for simulated in plain]


SIMULATED_SETS = {f"deeplense/{simulated.name}": simulated for simulated in _all_sets()}


def is_same_content(written: str, fingerprint: str) -> bool:
    """Whether a fingerprint on disk, perhaps of an older lensjax, stands for a set's own.

    Args:
      written: the fingerprint of a set or a run on disk.
      fingerprint: that this version would write.
    """
    version = _SOURCE_HASHES.get(written)
    return written == fingerprint or fingerprint.startswith(f"simulation-{version}-")


# The user's own files, and how they may be read.
_PREFIX = "deeplense/"
FOLDER_SET = "deeplense/folder"
NAN_POLICIES = ("refuse", "mask", "fill")
BAD_FILE_POLICIES = ("refuse", "skip")
FOLDER_KINDS = ("auto", "classes", "objects")
BAND_KINDS = ("images", "channels")


def full_name(name: str, allowed: Iterable[str]) -> str:
    """The name of a set with `deeplense/` in front, which users may leave out.

    Args:
      name: as the user wrote it.
      allowed: full names.

    Raises:
      DataError: for a name that is not allowed.
    """
    if not isinstance(name, str):
        raise refuse("name", name, ", ".join(allowed), DataError)
    full = name if name.startswith(_PREFIX) else _PREFIX + name
    if full not in allowed:
        raise DataError(
            f"data set {shown(name)} does not exist; choose one of {', '.join(allowed)}"
        )
    return full
