"""Finds and reads the weights of the Inception network of published Frechet distances."""

import contextlib
import hashlib
import http.client
import os
import pathlib
import time
import urllib.request
from collections.abc import Mapping
from typing import IO, NamedTuple

import numpy as np
from absl import logging

from lensjax.errors import FileError, WeightsError
from lensjax.files.atomic import replacing
from lensjax.files.cache_folder import cache_folder
from lensjax.files.torch_files import load_tensors
from lensjax.files.user_paths import expanded
from lensjax.models.inception import find_fault

FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE_NAME}"
VARIABLE = "LENSJAX_INCEPTION_WEIGHTS"
_MAX_BYTES = 2**27  # the file has 95,628,359
_SILENCE_S = 5.0  # to connect, and between two pieces of a download
_MAX_DOWNLOAD_S = 900.0
_BLOCK_BYTES = 2**20


class Search(NamedTuple):
    """Where the weights are.

    Attributes:
      path: the file, its hash checked; None if it is not available.
      remedy: what to do without a file; empty if there is a file.
    """

    path: pathlib.Path | None
    remedy: str


def _hash_file(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_hash(path: pathlib.Path, sha256: str) -> None:
    actual = _hash_file(path)
    if actual != sha256:
        raise WeightsError(
            f"{path}: has the SHA-256 {actual}, but the Inception weights have {sha256}. Get them "
            f"from {URL}"
        )


def _copy(response: IO[bytes], target: pathlib.Path) -> None:
    """Writes a download to a file; raises `OSError` if it is too long or takes too long."""
    started, num_bytes = time.monotonic(), 0
    with target.open("wb") as file:
        while block := response.read(_BLOCK_BYTES):
            num_bytes += len(block)
            if num_bytes > _MAX_BYTES:
                raise OSError(f"it is longer than {_MAX_BYTES} bytes")
            if time.monotonic() - started > _MAX_DOWNLOAD_S:
                raise OSError(f"it takes longer than {_MAX_DOWNLOAD_S:.0f} s")
            file.write(block)


def _download(url: str, sha256: str, target: pathlib.Path) -> str:
    """Downloads a file with this hash, or leaves none; returns the fault, empty on success."""
    logging.info("Downloading %s to %s", url, target)
    try:
        with replacing(target) as partial:
            try:
                with urllib.request.urlopen(url, timeout=_SILENCE_S) as response:
                    _copy(response, partial)
            # URLError is an OSError; a connection that breaks off is an HTTPException.
            except (OSError, http.client.HTTPException) as error:
                raise WeightsError(
                    f"to {target} failed: {getattr(error, 'reason', error)}"
                ) from None
            actual = _hash_file(partial)
            if actual != sha256:
                raise WeightsError(f"has the SHA-256 {actual}, not {sha256}, and was deleted")
    except FileError as error:
        return f"the download from {url} failed: {error}"
    except WeightsError as error:
        return f"the download from {url} {error}"
    return ""


def _checked_file(file: pathlib.Path, source: str, sha256: str) -> pathlib.Path:
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such file, but {source} names it")
    _check_hash(file, sha256)
    return file


def search_weights(
    path: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    sha256: str = SHA256,
    url: str = URL,
) -> Search:
    """Looks for the file of weights, and downloads it once where it is missing.

    The places are: `path`; the environment variable `LENSJAX_INCEPTION_WEIGHTS`; the cache folder;
    the authors' public release, which is then stored in the cache folder. A file in the cache
    folder that has another hash is deleted.

    Args:
      path: the file; None or empty for the other places.
      download: whether it may be downloaded.
      sha256: the hash that the file must have.
      url: where it is downloaded from.

    Raises:
      WeightsError: if the file that `path` or the variable names does not exist or has another
        hash.
    """
    if path:
        file = expanded(path, "evaluate.inception_weights")
        return Search(_checked_file(file, "the configuration", sha256), "")
    if named := os.environ.get(VARIABLE):
        file = expanded(named, VARIABLE)
        return Search(_checked_file(file, f"the environment variable {VARIABLE}", sha256), "")
    cached = cache_folder() / FILE_NAME
    cache_fault = ""
    if cached.is_file():
        actual = _hash_file(cached)
        if actual == sha256:
            return Search(cached, "")
        cache_fault = f"{cached} had the SHA-256 {actual}, not {sha256}; "
        with contextlib.suppress(OSError):  # in a folder that may not be written, the file stays
            cached.unlink()
            cache_fault = f"{cached} had the SHA-256 {actual}, not {sha256}, and was deleted; "
    fault = _download(url, sha256, cached) if download else "downloads are switched off"
    if not fault:
        return Search(cached, "")
    return Search(
        None,
        f"{cache_fault}{fault}. Get {FILE_NAME} (96 MB, SHA-256 {sha256}) from {url}, and set "
        f"{VARIABLE} to its path or put it into {cached.parent}",
    )


def load_inception(
    path: str | os.PathLike[str], *, sha256: str = SHA256
) -> Mapping[str, np.ndarray]:
    """Reads the weights of the Inception network.

    Args:
      path: the file, in either of PyTorch's formats.
      sha256: the hash that it must have.

    Returns:
      The 472 arrays of `inception_blocks.weight_shapes`, in PyTorch's layout.

    Raises:
      WeightsError: if the file has another hash, cannot be read, or does not hold these arrays.
    """
    path = pathlib.Path(path)
    _check_hash(path, sha256)
    weights = load_tensors(path)
    fault = find_fault(weights)
    if fault:
        raise WeightsError(f"{path}: does not hold the Inception weights: {fault}")
    return {
        name: array for name, array in weights.items() if not name.endswith(".num_batches_tracked")
    }
