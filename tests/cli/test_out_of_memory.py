"""Out of memory: what a user is asked to lower."""

import jax
import jax.numpy as jnp
import pytest
from run_support import tiny_config

from lensjax.cli.out_of_memory import advising
from lensjax.devices.machine import describe_memory
from lensjax.errors import OutOfMemoryError

TOO_MUCH = 2**45  # float32: 128 TiB


@pytest.mark.parametrize(
    ("mode", "changes", "words"),
    [
        ("train", {}, "lower train.batch_size (8), or set data.placement=stream"),
        ("train", {"data": {"placement": "stream"}}, "train.batch_size (8), or set model.dtype="),
        (
            "train",
            {"data": {"placement": "stream"}, "model": {"dtype": "bfloat16"}},
            "lower train.batch_size (8). ",
        ),
        ("sample", {}, "lower sample.batch_size (6). "),
        ("evaluate", {}, "lower sample.batch_size (6). "),
        ("classify", {}, f"lower classify.batch_size ({tiny_config().classify.batch_size}). "),
    ],
)
def test_the_field_to_lower_is_named(mode, changes, words):
    message = "RESOURCE_EXHAUSTED: Out of memory allocating "
    with (
        pytest.raises(OutOfMemoryError) as caught,
        advising(mode, tiny_config(**changes)),
    ):
        jax.block_until_ready(jax.jit(lambda: jnp.zeros(TOO_MUCH))())
    assert words in str(caught.value)
    assert message in str(caught.value)
    assert f"out of memory ({describe_memory()})" in str(caught.value)


def test_memory_of_the_host_counts_too():
    words = r"lower sample\.batch_size"
    with pytest.raises(OutOfMemoryError, match=words), advising("sample", tiny_config()):
        raise MemoryError("Unable to allocate 64 TiB")


def test_other_errors_pass():
    error = jax.errors.JaxRuntimeError("INVALID_ARGUMENT: something else")
    with pytest.raises(jax.errors.JaxRuntimeError) as caught, advising("train", tiny_config()):
        raise error
    assert caught.value is error
