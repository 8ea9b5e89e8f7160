"""Where the Inception weights come from: a path, the environment, the cache, one download."""

import functools
import hashlib
import http.server
import pathlib
import re
import threading

import numpy as np
import pytest
from inception_support import made_up_weights
from torch_support import write_arrays

from lensjax.errors import WeightsError
from lensjax.files.cache_folder import CACHE_VARIABLE
from lensjax.models import inception_weights
from lensjax.models.inception_weights import (
    FILE_NAME,
    SHA256,
    VARIABLE,
    load_inception,
    search_weights,
)

CONTENT = b"the weights"
HASH = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"others").hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """An empty cache folder, and nothing in the environment."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Server:
    """Serves one file and counts how often it is asked for."""

    def __init__(self, folder: pathlib.Path, content: bytes, length: int | None = None) -> None:
        outer = self
        self.requests = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(length or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{FILE_NAME}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve(tmp_path):
    """Starts servers and stops them in the end."""
    servers: list[Server] = []

    def start(*arguments) -> Server:
        servers.append(Server(tmp_path, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def write(path: pathlib.Path, content: bytes = CONTENT) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


offline = functools.partial(search_weights, download=False, sha256=HASH)


def test_the_published_prefix_is_that_of_the_hash():
    assert re.fullmatch("[0-9a-f]{64}", SHA256)
    assert f"pt_inception-2015-12-05-{SHA256[:8]}.pth" == FILE_NAME


def test_a_path_comes_first_then_the_environment_then_the_cache(tmp_path, cache, monkeypatch):
    given, named = write(tmp_path / "given.pth"), write(tmp_path / "named.pth")
    cached = write(cache / FILE_NAME)
    assert offline() == (cached, "")
    monkeypatch.setenv(VARIABLE, str(named))
    assert offline() == (named, "")
    assert offline("") == (named, "")
    assert offline(str(given)) == (given, "")


def test_the_cache_lies_in_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    cached = write(tmp_path / ".cache" / "lensjax" / FILE_NAME)
    assert offline() == (cached, "")


def test_without_a_file_there_is_a_remedy(cache):
    path, remedy = offline()
    assert path is None
    for words in ("downloads are switched off", FILE_NAME, VARIABLE, HASH, str(cache), "https://"):
        assert words in remedy
    assert not cache.exists()


@pytest.mark.parametrize("source", ["path", "environment"])
def test_a_given_file_of_another_hash_is_an_error_and_stays(tmp_path, monkeypatch, source):
    given = write(tmp_path / "given.pth", b"others")
    if source == "environment":
        monkeypatch.setenv(VARIABLE, str(given))
    with pytest.raises(WeightsError) as caught:
        offline(given if source == "path" else None)
    for words in (str(given), f"has the SHA-256 {OTHER}", f"have {HASH}"):
        assert words in str(caught.value)
    assert given.exists()


def test_a_given_file_that_does_not_exist_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"no such file, .* the configuration names"):
        offline(tmp_path / "none.pth")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.pth"))
    with pytest.raises(WeightsError, match=f"no such file, .*{VARIABLE} names"):
        offline()
    with pytest.raises(WeightsError, match="no such file"):
        search_weights()


def test_a_download_happens_once(cache, serve):
    server = serve(CONTENT)
    for _ in range(2):
        assert search_weights(sha256=HASH, url=server.url) == (cache / FILE_NAME, "")
    assert server.requests == 1
    assert list(cache.iterdir()) == [cache / FILE_NAME]
    assert (cache / FILE_NAME).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_deleted_and_fetched_again(cache, serve):
    write(cache / FILE_NAME, b"others")
    path, remedy = offline()
    assert path is None
    assert f"had the SHA-256 {OTHER}, not {HASH}, and was deleted" in remedy
    assert list(cache.iterdir()) == []
    write(cache / FILE_NAME, b"others")
    assert search_weights(sha256=HASH, url=serve(CONTENT).url) == (cache / FILE_NAME, "")
    assert (cache / FILE_NAME).read_bytes() == CONTENT


FAILURES = {
    "another hash": ((b"others",), f"has the SHA-256 {OTHER}, not {HASH}, and was deleted"),
    "nothing there": ((b"",), "failed: Not Found"),
    "broken off": ((CONTENT[:5], len(CONTENT)), "and was deleted"),
}


@pytest.mark.parametrize(("arguments", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_download_leaves_nothing_and_says_so(cache, serve, arguments, words):
    path, remedy = search_weights(sha256=HASH, url=serve(*arguments).url)
    assert path is None
    assert words in remedy
    assert VARIABLE in remedy
    assert list(cache.iterdir()) == []


def test_a_download_without_end_is_given_up(cache, serve, monkeypatch):
    monkeypatch.setattr(inception_weights, "_MAX_BYTES", 5)
    assert "longer than 5 bytes" in search_weights(sha256=HASH, url=serve(CONTENT).url).remedy
    monkeypatch.setattr(inception_weights, "_MAX_DOWNLOAD_S", -1)
    monkeypatch.setattr(inception_weights, "_MAX_BYTES", 500)
    assert "takes longer than" in search_weights(sha256=HASH, url=serve(CONTENT).url).remedy
    assert list(cache.iterdir()) == []


def test_a_server_that_does_not_answer_and_a_cache_that_cannot_be_are_said(
    cache, serve, monkeypatch
):
    server = serve(CONTENT)
    server.server.shutdown()  # it still takes connections, and never answers
    monkeypatch.setattr(inception_weights, "_SILENCE_S", 0.2)
    assert "timed out" in search_weights(sha256=HASH, url=server.url).remedy
    cache.rmdir()
    cache.write_bytes(b"")
    assert "failed: " in search_weights(sha256=HASH, url=server.url).remedy


def hashed(path: pathlib.Path) -> dict:
    return {"path": path, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_whole_file_of_either_format_is_read(tmp_path, form):
    path = write_arrays(tmp_path / "whole.pth", made_up_weights(), form)
    found = load_inception(**hashed(path))
    assert found.keys() == made_up_weights().keys()
    for name, array in made_up_weights().items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_counters_are_left_out_and_other_arrays_refused(tmp_path):
    counter = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros(1, np.int64)}
    path = write_arrays(tmp_path / "counted.pth", {**made_up_weights(), **counter}, "zip")
    assert load_inception(**hashed(path)).keys() == made_up_weights().keys()
    few = {"fc.bias": made_up_weights()["fc.bias"]}
    path = write_arrays(tmp_path / "few.pth", few, "zip")
    with pytest.raises(WeightsError, match=r"few\.pth: does not hold .* 471 of 472 arrays are"):
        load_inception(**hashed(path))


def test_another_file_is_refused_by_its_hash_before_it_is_read(tmp_path):
    path = write(tmp_path / "x.pth", b"others")
    with pytest.raises(WeightsError, match=f"has the SHA-256 {OTHER}, but .* {SHA256}"):
        load_inception(path)
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        load_inception(tmp_path / "none.pth")
