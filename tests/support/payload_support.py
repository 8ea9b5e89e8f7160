"""Pickles that would run something, each making a file at a path."""

import os
import pathlib
import pickle
import subprocess


class Payload:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PAYLOADS = {
    "posix.system": lambda path: Payload(os.system, f"touch {path}"),
    "builtins.eval": lambda path: Payload(eval, f"open({str(path)!r}, 'w').close()"),
    "builtins.exec": lambda path: Payload(exec, f"open({str(path)!r}, 'w').close()"),
    f"{open.__module__}.open": lambda path: Payload(open, str(path), "w"),
    "subprocess.check_call": lambda path: Payload(subprocess.check_call, ["touch", str(path)]),
    "posix.mkdir": lambda path: Payload(os.mkdir, str(path)),
}


def check_payload(name: str, path: pathlib.Path, protocol: int) -> None:
    """Runs a payload, to show that it is one."""
    done = pickle.loads(pickle.dumps(PAYLOADS[name](path), protocol))
    if hasattr(done, "close"):
        done.close()
    assert path.exists()
