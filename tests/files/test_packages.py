"""Packages of an extra that are missing are named with the command that installs them."""

import sys

import pytest

from lensjax.errors import UserError
from lensjax.files.packages import require_packages


def test_what_is_installed_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    require_packages("a mode", "files", "numpy", "antigravity")
    assert "antigravity" not in sys.modules


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    for name in ("h5py", "astropy"):
        monkeypatch.setitem(sys.modules, name, None)
    for names, missing in (
        (("numpy", "no_such_package"), "no_such_package"),
        (("h5py", "astropy"), "h5py and astropy"),
    ):
        with pytest.raises(UserError) as caught:
            require_packages("a mode", "files", *names)
        assert str(caught.value).startswith(f"a mode needs {missing}, ")
        assert str(caught.value).endswith("pip install 'lensjax[files]'")
