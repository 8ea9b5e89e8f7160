"""Packages of an extra that are missing are named with the command that installs them."""

import sys

import pytest

from lensjax.errors import UserError
from lensjax.files.packages import require_packages


def test_what_is_installed_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    require_packages("a mode", "files", "numpy", "antigravity")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("numpy", "no_such_package"), "a mode needs no_such_package, which is not installed: "),
        (("h5py", "astropy"), "a mode needs h5py and astropy, which are not installed: "),
    ],
)
def test_what_is_missing_is_said_with_the_command(monkeypatch, names, said):
    for name in ("h5py", "astropy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError) as caught:
        require_packages("a mode", "files", *names)
    assert str(caught.value) == f"{said}pip install 'lensjax[files]'"
