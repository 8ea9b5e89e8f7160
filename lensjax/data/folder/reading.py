"""How a user wants the files of a folder read."""

from typing import NamedTuple

from lensjax.files.limits import Limits
from lensjax.files.planes import PlaneRules


class Reading(NamedTuple):
    """The fields of `data` of the same names.

    Attributes:
      layout: the axes of an array.
      nan_policy: `refuse`, `mask` or `fill`.
      on_bad_file: `refuse` or `skip`.
      test_share: share of the images that becomes the test split where there is none.
      files: pattern of the files that are read; None for all.
      folders: `auto`, `classes` or `objects`.
      group: a regular expression or a column that says which files show one object; None for none.
      rules: `planes`, `variance_planes`, `mask_planes`, `mask_bits`, `bands`.
      limits: `file_memory_gib`, `file_seconds`.
    """

    layout: str = "auto"
    nan_policy: str = "refuse"
    on_bad_file: str = "refuse"
    test_share: float = 0.1
    files: str | None = None
    folders: str = "auto"
    group: str | None = None
    rules: PlaneRules = PlaneRules()
    limits: Limits = Limits()

    @property
    def identity(self) -> str:
        """All that decides which set the files become.

        Without the newer choices it reads as in version 0.2, so that sets of that version are
        recognised.
        """
        newer = (self.files, self.folders, self.group, self.rules)
        default = Reading()
        text = (
            f"Reading(layout={self.layout!r}, nan_policy={self.nan_policy!r}, "
            f"on_bad_file={self.on_bad_file!r}, test_share={self.test_share!r})"
        )
        if newer == (default.files, default.folders, default.group, default.rules):
            return text
        return f"{text} {newer!r}"

    @property
    def has_group_column(self) -> bool:
        """Whether `group` names a column of the table beside the files."""
        return self.group is not None and "(" not in self.group
