"""The one door to every data set: simulated ones, and a user's own folder."""

from typing import TYPE_CHECKING

from lensjax.data import deeplense
from lensjax.data.catalogue import FOLDER_SET
from lensjax.data.prepared import PreparedSet

if TYPE_CHECKING:
    from lensjax.config import DataConfig


def prepare(data: "DataConfig") -> PreparedSet:
    """Builds a set unless it is there, and returns it.

    Args:
      data: the `data` section of a configuration.

    Raises:
      DataError: for a set that cannot be made, or is stale or damaged.
    """
    if data.name == FOLDER_SET:
        from lensjax.data import folder_set
        from lensjax.data.folder_scan import Reading

        reading = Reading(data.layout, data.nan_policy, data.on_bad_file, data.test_share)
        return folder_set.prepare(data.folder or "", reading, data.directory)
    return deeplense.prepare(data.name, data.directory)


def prepare_in_parts(data: "DataConfig") -> PreparedSet | None:
    """Builds the part `data.part` of a simulated set, or joins its parts where that is None.

    Args:
      data: the `data` section of a configuration, with `num_parts`.

    Returns:
      The finished set; None where other parts are missing yet.

    Raises:
      DataError: for a part that cannot be made, or is stale or damaged; where the parts are to be
        joined, also for a missing one.
    """
    from lensjax.data import parts

    assert data.num_parts is not None
    if data.part is None:
        return parts.join(data.name, data.directory, data.num_parts)
    return parts.build_part(data.name, data.directory, data.num_parts, data.part)
