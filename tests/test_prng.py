"""Named streams: what differs gives another key, what is the same gives the same key."""

import itertools
import pathlib
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lensjax
from lensjax import prng

SEEDS = (0, 1, 12345, prng.MAX_SEED)


def data(key) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def streams_in_use() -> set[str]:
    sources = pathlib.Path(lensjax.__file__).parent.rglob("*.py")
    texts = [source.read_text(encoding="utf8") for source in sources]
    return set(itertools.chain(*(re.findall(r"prng\.key\([^\")]*\"(\w+)\"", t) for t in texts)))


def test_seed_stream_and_counters_give_distinct_keys():
    streams = ("init", "data", "loss", "generate")
    counters = ((), (0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (1, 2, 3), (3, 2, 1))
    cases = list(itertools.product(SEEDS, streams, counters))
    found = {data(prng.key(seed, stream, *counter)) for seed, stream, counter in cases}
    assert len(found) == len(cases)


def test_streams_of_the_package_have_distinct_names():
    streams = streams_in_use()
    assert {"init", "data", "loss", "generate", "augmentation"} <= streams
    assert len({zlib.crc32(stream.encode()) for stream in streams}) == len(streams)


@pytest.mark.parametrize("seed", SEEDS)
def test_traced_seed_and_counters_agree_with_python_integers(seed):
    traced = jax.jit(lambda seed, step: prng.key(seed, "loss", step))
    assert data(traced(jnp.int32(seed), jnp.int32(7))) == data(prng.key(seed, "loss", 7))


def test_keys_fold_in_each_index():
    indices = [5, 0, 2**31 - 1]
    many = prng.keys(prng.key(3, "loss", 4), jnp.asarray(indices, jnp.int32))
    assert many.shape == (3,)
    assert [data(key) for key in many] == [data(prng.key(3, "loss", 4, i)) for i in indices]


def test_keys_are_typed_threefry_keys():
    # Other generators give other numbers on other devices, or depend on the batch under vmap.
    key = prng.key(0, "loss")
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    assert str(jax.random.key_impl(key)) == "threefry2x32"


def test_streams_are_uncorrelated():
    def normals(stream, step):
        keys = prng.keys(prng.key(0, stream, step), jnp.arange(10_000))
        return jax.vmap(lambda key: jax.random.normal(key, ()))(keys)

    draws = [normals(*one) for one in itertools.product(("loss", "generate"), (0, 1))]
    correlation = np.corrcoef(np.stack(draws)) - np.eye(4)
    assert np.max(np.abs(correlation)) < 4 / np.sqrt(10_000)
