"""`--mode=evaluate` as a whole, on tiny images: what it writes, prints, keeps and refuses."""

import contextlib
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
from run_support import SHARED_GENERATOR, SHARED_SPLIT, tiny_split

from lensjax.errors import ConfigError, DataError, MeasureError, UserError, WorkdirError
from lensjax.evaluation import evaluate_generator as mode
from lensjax.evaluation.evaluate_generator import evaluate_generator
from lensjax.inference import generator
from lensjax.inference.describe import weights_hash
from lensjax.metrics import baselines
from lensjax.run import datasets

pytestmark = pytest.mark.usefixtures("quick_compiles")
NUM = 24
BASELINES = set(baselines.BASELINES) - {"simulator"}
SHOWN = "shapes,copies"  # the measures that take images of 16 x 16 pixels
SPLITS = {"train": SHARED_SPLIT, "test": tiny_split(3 * NUM, seed=2)}


class TinySet:
    """Stands for a data set on disk."""

    def open_split(self, name):
        return SPLITS[name]


def _prepare(patch, cache):
    patch.setattr(datasets, "prepare", lambda data: TinySet())
    patch.setattr(mode, "show", lambda *arguments: None)
    patch.setenv("LENSJAX_CACHE", str(cache))


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """A set in place, and a report without its pictures, which take most of the time."""
    _prepare(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(mode.report, "_pictures", lambda *arguments: [])


def config_with(**evaluate):
    settings = {"num_images": NUM, "measures": SHOWN, "download": False, "train_images": 20}
    changed = dataclasses.replace(SHARED_GENERATOR.evaluate, **settings | evaluate)
    return dataclasses.replace(SHARED_GENERATOR, evaluate=changed)


@pytest.fixture(scope="module")
def evaluated(trained_generator, tmp_path_factory):
    """Workdir of a run that was judged, with baselines and pictures, and what was printed."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained_generator[0], folder)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        _prepare(patch, folder / "cache")
        evaluate_generator(config_with(), folder)
    return folder, printed.getvalue()


def metrics_of(folder):
    return json.loads((folder / "evaluation" / "metrics.json").read_text())


def test_a_run_is_drawn_from_and_judged(evaluated):
    trained, printed = evaluated
    content = metrics_of(trained)
    protocol = content["protocol"]
    assert protocol["images_per_class"] == NUM
    assert protocol["comparable_with_the_headline"] is False
    assert protocol["generated"]["checkpoint_step"] == 12
    assert protocol["generated"]["guidance"] == 2.0
    assert protocol["generated"]["weights_sha256"] == weights_hash(
        generator.load_generator(trained).params
    )
    measured = {name for name, one in content["measures"].items() if one["status"] == "measured"}
    assert measured == set(SHOWN.split(","))
    for name in measured:
        # The shipped guidance, guidance 1 beside it, real images, and the baselines.
        wanted = {"generated", "generated at guidance 1", "real", *BASELINES}
        assert set(content["measures"][name]["rows"]) == wanted
        assert set(content["measures"][name]["rows"]["generated"]) == {"axion", "cdm", "no_sub"}
    assert set(content["checks"]) == {"generated", "generated at guidance 1"}
    assert printed.splitlines()[-1] == content["verdict"][-1]
    assert (trained / "evaluation" / "grid.png").is_file()


def test_the_report_opens_without_a_network(evaluated):
    trained, _ = evaluated
    page = (trained / "evaluation" / "report.html").read_text()
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "@import" not in page
    assert "url(" not in page
    for words in ("Domain of validity", "Not for", "not comparable with headline", "Goals"):
        assert words in page
    for sentence in metrics_of(trained)["verdict"]:
        assert sentence in page
    for name in BASELINES:
        assert f"<td>{name}</td>" in page


def test_images_of_any_generator_are_judged_alike(evaluated, prepared, tmp_path):
    """What a run draws and the same images from a file have the same numbers."""
    trained, _ = evaluated
    images = generator.load_generator(trained).generate(None, 3 * NUM, 0)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(3 * NUM) % 3)
    config = config_with(baselines=False)
    evaluate_generator(config, tmp_path / "other", tmp_path / "images.npy")
    ours, theirs = metrics_of(trained), metrics_of(tmp_path / "other")
    for name in SHOWN.split(","):
        rows = ours["measures"][name]["rows"], theirs["measures"][name]["rows"]
        assert rows[0]["generated"] == rows[1]["generated"]
    assert theirs["protocol"]["generated"] == {"images": str(tmp_path / "images.npy")}


def test_images_without_labels_are_one_group(prepared, tmp_path):
    np.save(tmp_path / "images.npy", tiny_split(60, seed=3).images[..., 0])
    evaluate_generator(config_with(measures="shapes,taught"), tmp_path, tmp_path / "images.npy")
    measures = metrics_of(tmp_path)["measures"]
    assert measures["taught"]["reason"].startswith("the images have no labels; ")
    rows = measures["shapes"]["rows"]
    assert set(rows["generated"]) == {"all"}
    assert set(rows["training"]) == {"axion", "cdm", "no_sub"}


def test_numbers_of_real_images_and_baselines_are_kept(prepared, tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", tiny_split(60, seed=3).images)
    np.save(tmp_path / "labels.npy", tiny_split(60, seed=3).labels)
    evaluate_generator(config_with(), tmp_path, tmp_path / "images.npy")
    first = metrics_of(tmp_path)
    asked: list[str] = []

    def note(row, real, setting):
        asked.append(row.name)
        return {}

    measures = [one._replace(measure=note) for one in mode.measures.MEASURES]
    monkeypatch.setattr(mode.measures, "MEASURES", measures)
    evaluate_generator(config_with(), tmp_path, tmp_path / "images.npy")
    assert set(asked) == {"generated"}
    rows = metrics_of(tmp_path)["measures"]["copies"]["rows"]
    assert rows["blurred"] == first["measures"]["copies"]["rows"]["blurred"]


@pytest.mark.parametrize("scale", ["max", "minmax"])
def test_scaled_images_are_judged_beside_real_ones_scaled_alike(prepared, tmp_path, scale):
    split = tiny_split(60, seed=3)
    np.save(tmp_path / "images.npy", 7 * split.images)
    np.save(tmp_path / "labels.npy", split.labels)
    evaluate_generator(
        config_with(baselines=False, image_scale=scale), tmp_path, tmp_path / "images.npy"
    )
    shapes = metrics_of(tmp_path)["measures"]["shapes"]["rows"]["generated"]["cdm"]
    assert "peak" not in shapes
    assert "total_flux" not in shapes
    assert shapes["gini"]["z"] < 6


@pytest.mark.parametrize("require", ["c2st", "inception", "shapes,hole", "all"])
def test_a_required_measure_that_is_missing_is_an_error(prepared, tmp_path, require):
    np.save(tmp_path / "images.npy", tiny_split(60, seed=3).images)
    with pytest.raises(DataError, match=r"evaluate\.require names measures that cannot "):
        evaluate_generator(
            config_with(baselines=False, require=require), tmp_path, tmp_path / "images.npy"
        )
    assert not (tmp_path / "evaluation").exists()


def test_a_measure_that_cannot_take_the_images_is_not_measured_unless_it_is_required(
    prepared, tmp_path, monkeypatch
):
    def refuse(row, real, setting):
        raise MeasureError("real images are black; pass flux")

    np.save(tmp_path / "images.npy", tiny_split(60, seed=3).images)
    measures = [
        one._replace(measure=refuse) if one.name == "copies" else one
        for one in mode.measures.MEASURES
    ]
    monkeypatch.setattr(mode.measures, "MEASURES", measures)
    evaluate_generator(config_with(baselines=False), tmp_path, tmp_path / "images.npy")
    found = metrics_of(tmp_path)["measures"]["copies"]
    assert found == {"status": "not measured", "reason": "real images are black; pass flux"}
    with pytest.raises(UserError, match=r"require: copies cannot take these images: real"):
        evaluate_generator(
            config_with(baselines=False, require="copies"), tmp_path, tmp_path / "images.npy"
        )


def test_missing_weights_are_said_with_the_remedy(prepared, tmp_path, monkeypatch):
    monkeypatch.delenv("LENSJAX_INCEPTION_WEIGHTS", raising=False)
    np.save(tmp_path / "images.npy", tiny_split(60, seed=3).images)
    evaluate_generator(
        config_with(baselines=False, measures="inception"), tmp_path, tmp_path / "images.npy"
    )
    found = metrics_of(tmp_path)["measures"]["inception"]
    assert found["status"] == "not measured"
    assert "LENSJAX_INCEPTION_WEIGHTS" in found["reason"]


def test_a_wrong_file_of_weights_is_an_error(prepared, tmp_path):
    np.save(tmp_path / "images.npy", tiny_split(60, seed=3).images)
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    config = config_with(
        baselines=False, measures="inception", inception_weights=str(tmp_path / "weights.pth")
    )
    with pytest.raises(DataError, match=r"weights\.pth: has the SHA-256 "):
        evaluate_generator(config, tmp_path, tmp_path / "images.npy")


def test_more_images_than_the_test_split_has_are_refused(prepared, tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate\.num_images: got 25; .* the 24 images"):
        evaluate_generator(
            config_with(baselines=False, num_images=25), tmp_path, tmp_path / "images.npy"
        )


def test_without_a_number_all_of_the_test_split_are_judged(prepared, tmp_path):
    np.save(tmp_path / "images.npy", tiny_split(90, seed=3).images)
    np.save(tmp_path / "labels.npy", tiny_split(90, seed=3).labels)
    evaluate_generator(
        config_with(baselines=False, num_images=None), tmp_path, tmp_path / "images.npy"
    )
    assert metrics_of(tmp_path)["protocol"]["images_per_class"] == NUM


def test_a_folder_that_is_no_run_is_refused(prepared, tmp_path):
    with pytest.raises(WorkdirError, match=r"config\.json does not exist"):
        evaluate_generator(config_with(baselines=False), tmp_path)


def test_pixels_of_real_images_that_were_not_measured_are_filled(prepared, tmp_path, monkeypatch):
    split = SPLITS["test"]
    images = split.images.copy()
    images[::2, 3, 4] = np.nan
    info = dataclasses.replace(split.info, masked=True)
    monkeypatch.setitem(SPLITS, "test", dataclasses.replace(split, images=images, info=info))
    np.save(tmp_path / "images.npy", tiny_split(60, seed=3).images)
    config = config_with(measures="shapes", baselines=False)
    evaluate_generator(config, tmp_path, tmp_path / "images.npy")
    content = metrics_of(tmp_path)
    assert 0 < content["protocol"]["share_of_masked_pixels_filled"] < 0.01
    assert content["measures"]["shapes"]["status"] == "measured"
    assert "real pixels were not measured" in (tmp_path / "evaluation/report.html").read_text()
