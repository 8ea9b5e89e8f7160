"""Training without a disc of sources: what is left out is in no batch, and all else is."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from pipeline_support import all_examples, batch_at, single_device, split_of, steps_of
from run_support import captured_log, states_differ, tiny_config, tiny_split

from lensjax.data import catalogue, deeplense
from lensjax.data.dataset import LensSplit
from lensjax.data.feed import DeviceFeed, StreamFeed, open_feed
from lensjax.data.subset import SOURCE_POSITION, SubsetSplit, without_disc
from lensjax.errors import ConfigError, DataError
from lensjax.run import writers
from lensjax.training import generator_watch
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")
DISC = (0.05, -0.1, 0.15)
FEEDS: dict[str, Any] = {"device": DeviceFeed, "stream": StreamFeed}


def with_sources(split: LensSplit, seed: int = 0) -> LensSplit:
    """Returns the split with random source positions among its parameters."""
    rng = np.random.default_rng(seed)
    parameters = rng.uniform(-0.35, 0.35, (len(split), 3)).astype(np.float32)
    names = ("other", *SOURCE_POSITION)
    info = dataclasses.replace(split.info, parameter_names=names)
    return dataclasses.replace(split, parameters=parameters, info=info)


def kept_of(split: LensSplit) -> np.ndarray:
    """Returns the places of the images outside the disc, by a loop."""
    x, y, radius = DISC
    return np.array(
        [
            place
            for place, (_, source_x, source_y) in enumerate(split.parameters.astype(np.float64))
            if (source_x - x) ** 2 + (source_y - y) ** 2 > radius**2
        ]
    )


def test_images_in_the_disc_are_left_out_and_counted():
    whole = with_sources(split_of(40))
    kept = kept_of(whole)
    assert 20 < len(kept) < 40
    with captured_log() as log:
        part = without_disc(whole, DISC)
    assert len(part) == len(kept)
    assert f"{40 - len(kept)} of the 40 training images have their source within 0.15" in log[-1]
    images, labels, _ = part.examples(np.array([3, 0, 3]))
    np.testing.assert_array_equal(images, whole.images[kept[[3, 0, 3]]])
    np.testing.assert_array_equal(labels, whole.labels[kept[[3, 0, 3]]])
    loaded = part.in_memory()
    np.testing.assert_array_equal(loaded.images, whole.images[kept])
    np.testing.assert_array_equal(loaded.labels, whole.labels[kept])
    np.testing.assert_array_equal(loaded.parameters, whole.parameters[kept])
    assert loaded.labels.dtype == np.int32
    np.testing.assert_array_equal(part.parameter_columns(("other",)), whole.parameters[kept, :1])


def test_no_disc_leaves_the_split_as_it_is():
    whole = split_of(7)
    assert without_disc(whole, ()) is whole


def test_a_part_is_read_in_several_chunks():
    whole = split_of(2500, shape=(1, 1, 1))
    indices = np.random.default_rng(0).permutation(2500)[:2100]
    loaded = SubsetSplit(whole, indices).in_memory()
    np.testing.assert_array_equal(loaded.images, whole.images[indices])


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_no_batch_of_either_feed_has_an_image_of_the_disc(batch_size):
    whole = with_sources(split_of(40))
    kept, part = kept_of(whole), without_disc(whole, DISC)
    stream = all_examples(5, len(kept))
    made = {
        name: kind(
            part.in_memory() if name == "device" else part,
            5,
            single_device(batch_size),
        )
        for name, kind in FEEDS.items()
    }
    seen: list[int] = []
    for step in steps_of(len(kept), batch_size):
        one, other = (batch_at(each, batch_size, step) for each in made.values())
        assert np.asarray(one.image).tobytes() == np.asarray(other.image).tobytes()
        np.testing.assert_array_equal(one.label, other.label)
        expected = kept[stream[step * batch_size : (step + 1) * batch_size]]
        np.testing.assert_array_equal(one.image, whole.images[expected])
        seen += expected.tolist()
    made["stream"].close()
    assert set(seen) == set(kept.tolist())


@pytest.mark.parametrize("name", ["device", "stream"])
def test_a_batch_may_not_be_larger_than_what_is_left(name):
    part = without_disc(with_sources(split_of(40)), DISC)
    with pytest.raises(DataError, match=rf"got 40; allowed: at most the {len(part)} images"):
        open_feed(part, name, 0, single_device(40))


@pytest.mark.parametrize(
    ("disc", "message"),
    [((0.0, 0.0, 1e-4), "none of the 40"), ((0.0, 0.0, 0.4945), "40 of the 40")],
)
def test_a_hole_with_nothing_or_everything_is_refused(disc, message):
    with pytest.raises(DataError, match=rf"exclude_source_disc: got .* {message}"):
        without_disc(with_sources(split_of(40)), disc)


def test_a_set_without_source_positions_is_refused():
    with pytest.raises(DataError, match=r"allowed: \(\) for test/set, which has no source pos"):
        without_disc(split_of(7), DISC)


def test_a_set_on_disk_and_one_in_memory_lose_the_same_images(tfds_directory, monkeypatch):
    monkeypatch.setitem(catalogue.IMAGES_PER_CLASS, "mini", {"train": 40, "test": 2})
    name, folder = "deeplense/model_iii_mini", str(tfds_directory / "subset")
    deeplense.prepare(name, folder)
    on_disk = deeplense.open_split(name, folder, "train")
    in_memory = on_disk.in_memory()
    columns = on_disk.parameter_columns(SOURCE_POSITION)
    names = in_memory.info.parameter_names
    expected = in_memory.parameters[:, [names.index(one) for one in SOURCE_POSITION]]
    np.testing.assert_array_equal(columns, expected)
    parts = [without_disc(split, DISC).in_memory() for split in (on_disk, in_memory)]
    assert 80 < len(parts[0]) < 120
    for one, other in zip(parts[0].__dict__.values(), parts[1].__dict__.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert set(parts[0].labels.tolist()) == {0, 1, 2}


@pytest.fixture
def _plain(monkeypatch):
    blank = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)
    monkeypatch.setattr(generator_watch.Samples, "draw", lambda self, params: (blank, {}))


@pytest.mark.nightly
@pytest.mark.usefixtures("_plain")
def test_a_run_trains_on_what_is_left_and_goes_on_exactly(tmp_path):
    """The images in the disc are NaN here: one of them in a step, or a constant, would show."""
    split = with_sources(tiny_split(40))
    kept = kept_of(split)
    images = np.full_like(split.images, np.nan)
    images[kept] = split.images[kept]
    holed = dataclasses.replace(split, images=images)
    hole, constant = {"exclude_source_disc": DISC}, {"learning_rate_floor": 1.0}

    config = tiny_config(data=hole, optim=constant, train={"num_steps": 8})
    whole = train(config, tmp_path / "whole", holed)
    described = json.loads((tmp_path / "whole" / "dataset.json").read_text())
    assert described["num_train_images"] == len(kept)
    assert described["scaling"]["shift"] == pytest.approx(split.images[kept].mean(), rel=1e-5)

    shorter = tiny_config(data=hole, optim=constant, train={"num_steps": 4})
    train(shorter, tmp_path / "cut", holed)
    streamed = tiny_config(
        data=hole | {"placement": "stream"}, optim=constant, train={"num_steps": 8}
    )
    resumed = train(streamed, tmp_path / "cut", holed)
    assert states_differ(resumed, whole) == []

    for other in ((), (0.05, -0.1, 0.16)):
        changed = tiny_config(data={"exclude_source_disc": other}, optim=constant)
        was, now = re.escape(repr(list(DISC))), re.escape(repr(list(other)))
        message = rf"data\.exclude_source_disc: the workdir has {was}, this run {now}"
        with pytest.raises(ConfigError, match=message):
            train(changed, tmp_path / "cut", split)


@pytest.mark.usefixtures("_plain")
def test_a_run_whose_batch_does_not_fit_what_is_left_is_refused_before_it_writes(tmp_path):
    config = tiny_config(data={"exclude_source_disc": DISC}, train={"batch_size": 40})
    with pytest.raises(DataError, match=r"train\.batch_size: got 40; allowed: at most the 3"):
        train(config, tmp_path / "run", with_sources(tiny_split(40)))
    assert not (tmp_path / "run").exists()
