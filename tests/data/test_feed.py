"""Both feeds give the same batches, from any step on."""

import dataclasses
import logging as std_logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipeline_support import all_examples, batch_at, single_device, split_of, steps_of

from lensjax.data import feed as feeds
from lensjax.data.feed import DeviceFeed, StreamFeed, choose_kind, open_feed
from lensjax.errors import DataError

FEEDS: dict[str, Any] = {"device": DeviceFeed, "stream": StreamFeed}


@pytest.fixture(params=FEEDS)
def make_feed(request):
    """Makes feeds of one kind and closes them."""
    made = []

    def make(split, seed, batch_size, **options):
        made.append(FEEDS[request.param](split, seed, single_device(batch_size), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(("num", "batch_size"), [(7, 1), (7, 3), (12, 5), (12, 12)])
def test_feed_gives_the_examples_of_the_order(make_feed, num, batch_size):
    split, stream = split_of(num), all_examples(5, num)
    feed = make_feed(split, 5, batch_size)
    shapes = set()
    for step in steps_of(num, batch_size):
        shapes.add(str(jax.tree.map(jnp.shape, feed.arguments(step))))
        image, label, *others = batch_at(feed, batch_size, step)
        expected = stream[step * batch_size : (step + 1) * batch_size]
        np.testing.assert_array_equal(image, split.images[expected])
        np.testing.assert_array_equal(label, split.labels[expected])
        assert others == [None, None, None]
    assert len(shapes) == 1


def test_variances_go_with_their_images(make_feed):
    split = split_of(12)
    variance = np.asarray(1 + split.images**2)
    split = dataclasses.replace(split, variance=variance)
    feed = make_feed(split, 5, 5, variance=True)
    for step in (0, 1, 2, 7):
        batch = batch_at(feed, 5, step)
        np.testing.assert_array_equal(batch.variance, 1 + np.asarray(batch.image) ** 2)
    assert batch_at(make_feed(split, 5, 5), 5, 0).variance is None  # the step needs none


def test_feed_may_start_anywhere(make_feed):
    """A resumed run asks for a late step first; nothing of what came before is needed."""
    split = split_of(12)
    whole, resumed = make_feed(split, 0, 5), make_feed(split, 0, 5)
    for step in range(8):
        before = batch_at(whole, 5, step)
    after = batch_at(resumed, 5, 7)
    np.testing.assert_array_equal(before.image, after.image)


def test_steps_may_repeat_and_jump(make_feed):
    split, stream = split_of(12), all_examples(0, 12)
    feed = make_feed(split, 0, 5)
    for step in (3, 3, 4, 2, 7, 8, 0):
        image = batch_at(feed, 5, step).image
        np.testing.assert_array_equal(image, split.images[stream[5 * step : 5 * step + 5]])


def test_both_feeds_read_the_last_step_there_can_be():
    split, step = split_of(12), 2**31 - 2
    device, stream = (kind(split, 1, single_device(5)) for kind in FEEDS.values())
    one, other = (batch_at(feed, 5, step) for feed in (device, stream))
    stream.close()
    np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("name", ["device", "stream", "auto"])
def test_batch_larger_than_the_set_is_refused(name):
    with pytest.raises(DataError, match=r"train\.batch_size: got 8; allowed: at most the 7 images"):
        open_feed(split_of(7), name, 0, single_device(8))


@pytest.mark.parametrize(("share", "expected"), [(1.0, "device"), (1e-12, "stream")])
def test_auto_chooses_by_memory_and_says_why(monkeypatch, caplog, share, expected):
    monkeypatch.setattr(feeds, "_MEMORY_SHARE", share)
    split = split_of(12)
    choice = choose_kind(split.info, len(split), single_device(5).mesh)
    assert choice.name == expected
    assert "GiB of images are 0 % of the" in choice.reason
    with caplog.at_level(std_logging.INFO, logger="absl"):
        feed = open_feed(split, "auto", 0, single_device(5))
    feed.close()
    assert isinstance(feed, FEEDS[expected])
    assert f"data.placement=auto: {expected}, because " in caplog.text


def test_what_is_chosen_depends_on_the_images(monkeypatch):
    monkeypatch.setattr(feeds, "_memory_bytes", lambda mesh: (4 * 4 * 12 * 12, "a toy"))
    split = split_of(12)  # 3 x 2 x 2 floats each
    mesh = single_device(5).mesh
    assert choose_kind(split.info, 12, mesh).name == "device"
    assert choose_kind(split.info, 13, mesh).name == "stream"


def test_a_machine_that_does_not_say_its_memory_streams(monkeypatch):
    monkeypatch.setattr(feeds, "_memory_bytes", lambda mesh: (None, "a toy"))
    choice = choose_kind(split_of(12).info, 12, single_device(5).mesh)
    assert choice == ("stream", "a toy does not say how much memory it has")


def test_a_host_reads_its_own_places_of_each_batch():
    own, stream = np.array([2, 3]), all_examples(5, 7)
    batches = feeds._StepBatches(split_of(7), 5, 4, own)
    for step in range(4):
        np.testing.assert_array_equal(batches.indices(step), stream[4 * step + own])
