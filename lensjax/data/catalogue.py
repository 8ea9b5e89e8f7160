"""The names of the data sets and what each is made of; imports nothing heavy."""

import dataclasses
import itertools

from lensjax.data.surveys import SURVEYS, Survey

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
        parts = (("_noisy", self.noisy), ("_conserved", self.conserved), ("_mini", self.mini))
        return self.survey.name + "".join(part for part, present in parts if present)

    @property
    def takes_noise(self) -> bool:
        """Whether the instrument's noise can be added, with one exposure for all images."""
        return not self.noisy and self.survey.exposure_time_s is not None

    @property
    def images_per_class(self) -> dict[str, int]:
        """Number of images of each class by split."""
        return IMAGES_PER_CLASS["mini" if self.mini else "full"]


def _all_sets() -> list[SimulatedSet]:
    plain = [
        SimulatedSet(survey, noisy=noisy)
        for noisy, survey in itertools.product((False, True), SURVEYS.values())
    ]
    plain.append(SimulatedSet(SURVEYS["model_ii"], conserved=True))
    return plain + [dataclasses.replace(one, mini=True) for one in plain]


SIMULATED_SETS = {f"deeplense/{one.name}": one for one in _all_sets()}

# The user's own files, and how they may be read.
FOLDER_SET = "deeplense/folder"
NAN_POLICIES = ("refuse", "mask", "fill")
BAD_FILE_POLICIES = ("refuse", "skip")
