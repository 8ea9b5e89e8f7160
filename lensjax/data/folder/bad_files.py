"""Files of a folder that cannot be used: refused, or left out and listed."""

from collections.abc import Mapping

from lensjax.data.folder.entries import Listing
from lensjax.data.folder.image import ScannedImage
from lensjax.data.folder.reading import Reading
from lensjax.errors import BadFileError


class BadFiles:
    """Files that cannot be used: the first of them raises, or all are left out and listed."""

    def __init__(self, reading: Reading) -> None:
        self.skip = reading.on_bad_file == "skip"
        self.errors: list[BadFileError] = []

    def add(self, error: BadFileError) -> None:
        """Raises the error, or keeps it."""
        if not self.skip:
            reason = f"{error.reason} (data.on_bad_file=skip leaves such files out)"
            raise BadFileError(error.path, reason) from error
        self.errors.append(error)

    def leave_out(
        self, images: list[ScannedImage], wrong: Mapping[int, str], listing: Listing
    ) -> list[ScannedImage]:
        """Leaves out the images of wrong files; `wrong` has the reasons by file."""
        for file, reason in wrong.items():
            self.add(BadFileError(listing.files[file].path, reason))
        return [image for image in images if image.file not in wrong]

    def explanation(self) -> str:
        """The end of a message on missing images."""
        if not self.errors:
            return ""
        return f"; {len(self.errors)} bad files were left out, the first is {self.errors[0]}"
