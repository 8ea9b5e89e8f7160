"""An interrupted evaluation goes on from the images that are there."""

import dataclasses
import json

import numpy as np
import pytest
from run_support import SHARED_GENERATOR as CONFIG

from lensjax.evaluation import drawing
from lensjax.inference import generator as generators

pytestmark = pytest.mark.usefixtures("quick_compiles")
NUM = 20  # three chunks of 6 and a part of a fourth


@pytest.fixture(scope="module")
def generator(trained_generator):
    return generators.load_generator(trained_generator[0])


@pytest.fixture
def drawn(generator, monkeypatch):
    """The numbers of the chunks that were really drawn."""
    numbers: list[int] = []
    real = type(generator).generate_numbers

    def generate_numbers(self, wanted, sample):
        numbers.extend(wanted[:: sample.batch_size] // sample.batch_size)
        return real(self, wanted, sample)

    monkeypatch.setattr(type(generator), "generate_numbers", generate_numbers)
    return numbers


def test_images_are_those_of_generate(generator, tmp_path, drawn):
    images = drawing.draw_or_read(generator, CONFIG.sample, NUM, tmp_path)
    np.testing.assert_array_equal(images, generator.generate(None, NUM, CONFIG.sample.seed))
    assert drawn == [0, 1, 2, 3]


def test_what_is_there_is_not_drawn_again(generator, tmp_path, drawn):
    first = drawing.draw_or_read(generator, CONFIG.sample, NUM, tmp_path)
    drawn.clear()
    np.testing.assert_array_equal(
        drawing.draw_or_read(generator, CONFIG.sample, NUM, tmp_path), first
    )
    assert drawn == []
    more = drawing.draw_or_read(generator, CONFIG.sample, NUM + 6, tmp_path)
    assert drawn == [4]
    np.testing.assert_array_equal(more[:NUM], first)
    assert len(more) == NUM + 6


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "other"])
def test_a_chunk_that_is_missing_or_damaged_is_drawn_again(generator, tmp_path, drawn, damage):
    first = drawing.draw_or_read(generator, CONFIG.sample, NUM, tmp_path)
    (path,) = tmp_path.glob("*/000001_*.npy")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        np.save(path, np.zeros((6, 8, 8, 1), np.float32))
    else:
        path.write_bytes(content[: 0 if damage == "empty" else 200])
    drawn.clear()
    again = drawing.draw_or_read(generator, CONFIG.sample, NUM, tmp_path)
    np.testing.assert_array_equal(again, first)
    assert drawn == [1]
    assert path.read_bytes() == content


def test_stray_files_and_folders_are_neither_read_nor_removed(generator, tmp_path, drawn):
    first = drawing.draw_or_read(generator, CONFIG.sample, NUM, tmp_path)
    (own,) = tmp_path.iterdir()
    ones = np.ones((6, *first.shape[1:]), np.float32)
    strays = [own / "000001.npy", own / "000001_0000abcd.npy", tmp_path / "images.npy"]
    for path in strays:
        np.save(path, ones)
    folders = [own / "000000_00000000.npy", tmp_path / "0123456789abcdef", tmp_path / "notes"]
    for path in folders:
        path.mkdir()
        (path / "mine.txt").write_text("keep")
    drawn.clear()
    again = drawing.draw_or_read(generator, CONFIG.sample, NUM, tmp_path)
    np.testing.assert_array_equal(again, first)
    assert drawn == []
    drawing.draw_or_read(generator, dataclasses.replace(CONFIG.sample, seed=5), 6, tmp_path)
    assert [path.name for path in own.iterdir()] == ["000000_00000000.npy"]
    assert (tmp_path / "images.npy").exists()
    assert all((path / "mine.txt").exists() for path in folders)


@pytest.mark.parametrize("change", [{"steps": 3}, {"guidance": 1.5}, {"seed": 1}])
def test_other_settings_remove_what_is_there(generator, tmp_path, drawn, change):
    drawing.draw_or_read(generator, CONFIG.sample, 6, tmp_path)
    (old,) = tmp_path.iterdir()
    drawn.clear()
    drawing.draw_or_read(generator, dataclasses.replace(CONFIG.sample, **change), 6, tmp_path)
    assert drawn == [0]
    (new,) = tmp_path.iterdir()
    assert new != old


def test_what_the_images_depend_on_lies_beside_them(generator, tmp_path):
    drawing.draw_or_read(generator, CONFIG.sample, 6, tmp_path)
    (path,) = tmp_path.glob("*/meta.json")
    meta = json.loads(path.read_text())
    assert meta["checkpoint_step"] == 12
    assert meta["steps"] == CONFIG.sample.steps
