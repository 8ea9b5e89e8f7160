"""From a workdir to classes: what `load(...).classify(...)` promises, and networks in files."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_support import CLASS_NAMES, saved_run, states_differ, tiny_config, tiny_split
from scipy.special import softmax

import lensjax
from lensjax.config import Config
from lensjax.data.dataset import LensSplit
from lensjax.errors import ConfigError, RequestError
from lensjax.inference import pretrained
from lensjax.inference.classifier import LensClassifier, load_classifier, resize
from lensjax.inference.generator import LensGenerator, load_generator
from lensjax.inference.trained import restore
from lensjax.run.networks import make_image_fn

pytestmark = pytest.mark.usefixtures("quick_compiles")
CONFIG = tiny_config(
    model={"name": "cnn"},
    classify={"batch_size": 4},
    data={"scaling": "asinh"},
    optim={"ema_more_half_lives_images": (500.0,)},
)
IMAGES = tiny_split(10, seed=3).images
GENERATOR = tiny_config()
AUTOENCODER = tiny_config(model={"name": "mae"})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    """A classifier of random numbers, calibrated at its newest step."""
    folder = tmp_path_factory.mktemp("classifier")
    for step in (3, 5):
        saved_run(folder, CONFIG, tiny_split(), step)
    (folder / "classifier.json").write_text('{"step": 5, "loss": 1.0, "temperature": 2.5}')
    return folder


@pytest.fixture(scope="module")
def classifier(workdir) -> LensClassifier:
    return lensjax.load(workdir)


def test_a_prediction_is_what_the_network_says_of_scaled_images(classifier):
    found = classifier.predict(IMAGES)
    scaled = classifier.scaling.to_model(jnp.asarray(IMAGES))
    expected = make_image_fn(CONFIG)(classifier.params, scaled, None)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    probabilities = softmax(found.logits.astype(np.float64) / 2.5, axis=1)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-5)
    assert {rows.dtype for rows in found} == {np.dtype("float32")}
    assert [rows.shape for rows in found] == [(10, 8), (10, 3), (10, 3)]


def test_a_class_is_the_most_probable_one(classifier):
    found, probabilities = classifier.classify(IMAGES), classifier.predict(IMAGES).probabilities
    np.testing.assert_array_equal(found.probabilities, probabilities)
    np.testing.assert_array_equal(found.label, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(found.probability, probabilities.max(axis=1))
    assert found.class_name == tuple(CLASS_NAMES[label] for label in found.label)
    assert found.label.dtype == np.int32
    assert len(set(found.class_name)) > 1


def test_what_a_classifier_knows_of_its_run(classifier, workdir):
    assert (classifier.step, classifier.ema, classifier.temperature) == (5, "main", 2.5)
    assert classifier.class_names == CLASS_NAMES
    assert classifier.image_shape == (16, 16, 1)
    assert classifier.folder == workdir
    assert (classifier.flux_unit, classifier.pixel_scale_arcsec) == ("counts", 0.1)


def test_another_step_and_other_parameters_by_name(workdir, classifier):
    older = lensjax.load(workdir, step=3)
    assert (older.step, older.temperature) == (3, 1.0)  # nobody calibrated that step
    assert states_differ(older.params, classifier.params)
    for ema, name in ((False, "raw"), ("500", "500"), ("main", "main")):
        other = lensjax.load(workdir, ema=ema)
        assert other.ema == name
        assert bool(states_differ(other.params, classifier.params)) == (name != "main")
    with pytest.raises(RequestError, match="ema: got '7'; allowed: True, False, 'main', '500'"):
        lensjax.load(workdir, ema="7")


@pytest.mark.parametrize(
    "images",
    [
        IMAGES[..., 0],
        IMAGES[0],
        IMAGES[0, ..., 0],
        IMAGES.astype(np.float64),
        jnp.asarray(IMAGES),
        IMAGES[..., 0].tolist(),
    ],
    ids=["N H W", "H W C", "H W", "double", "jax", "list"],
)
def test_images_come_in_several_shapes(classifier, images):
    expected = classifier.classify(IMAGES).probabilities[: np.size(images) // 256]
    np.testing.assert_array_equal(classifier.classify(images).probabilities, expected)


def test_whole_numbers_are_flux_too(classifier):
    counts = np.round(IMAGES * 10).astype(np.uint16)
    expected = classifier.predict(counts.astype(np.float32)).logits
    np.testing.assert_array_equal(classifier.predict(counts).logits, expected)


@pytest.mark.parametrize("num", [1, 3, 4, 5, 8, 9])
def test_an_image_is_the_same_bit_for_bit_wherever_it_stands(classifier, num):
    """Four images are computed at once."""
    whole = classifier.predict(IMAGES)
    for found, expected in zip(classifier.predict(IMAGES[-num:]), whole, strict=True):
        np.testing.assert_array_equal(found, expected[-num:])


@pytest.mark.parametrize("batch_size", [1, 16])
def test_another_chunk_changes_roundings_alone(workdir, classifier, batch_size):
    settings = dataclasses.replace(CONFIG.classify, batch_size=batch_size)
    other = load_classifier(workdir, dataclasses.replace(CONFIG, classify=settings))
    for found, expected in zip(other.predict(IMAGES), classifier.predict(IMAGES), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_no_image_has_no_class(classifier):
    for images in (IMAGES[:0], IMAGES[:0, ..., 0]):
        found = classifier.classify(images)
        assert found.label.shape == found.probability.shape == (0,)
        assert found.class_name == ()
        assert found.probabilities.shape == (0, 3)
        assert [rows.shape for rows in classifier.predict(images)] == [(0, 8), (0, 3), (0, 3)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(classifier, value):
    images = IMAGES.copy()
    images[[4, 7], 3, 2] = value
    message = (
        r"images: 2 of 10 have pixels that are NaN or infinite in float32, the first is number 4"
    )
    with pytest.raises(RequestError, match=message):
        classifier.classify(images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 16, 16, 3)),
            r"got shape \(2, 16, 16, 3\); allowed: \[N, 16, 16, 1\] or w",
        ),
        (
            np.zeros((1, 2, 16, 16, 1)),
            r"got shape \(1, 2, 16, 16, 1\); allowed: \[N, 16, 16, 1\]",
        ),
        (np.zeros(256), r"got shape \(256,\); allowed"),
        (np.float32(1), r"got shape \(\); allowed"),
        (np.zeros((2, 0, 16, 1)), r"got shape \(2, 0, 16, 1\); allowed"),
        (np.zeros((2, 16, 16, 1), bool), "got bool; allowed: real numbers, flux per pixel"),
        (np.zeros((2, 16, 16, 1), complex), "got complex128; allowed: real numbers"),
        (np.full((16, 16), "a"), "got <U1; allowed: real numbers"),
        (np.zeros((2, 16, 18, 1)), r"got 16x18 pixels; allowed: 16x16, .* resize=True\), or"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(np.shape(value)),
)
def test_what_is_no_image_of_this_kind_is_refused(classifier, images, message):
    with pytest.raises(RequestError, match=f"^images: {message}"):
        classifier.classify(images)


def blobs(num: int, rows: int, columns: int) -> np.ndarray:
    """Round sources well within the image."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:rows, :columns]
    y, x = (y + 0.5) / rows - 0.5, (x + 0.5) / columns - 0.5
    places = rng.uniform(-0.1, 0.1, (num, 2, 1, 1))
    return np.exp(-((x - places[:, 0]) ** 2 + (y - places[:, 1]) ** 2) / 0.02)[..., None]


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (24, 40), (32, 16), (37, 19)], ids=str)
def test_resizing_keeps_the_flux_and_its_place(classifier, size):
    images = blobs(3, *size).astype(np.float32)
    resized = resize(images, 16, 16)
    assert resized.shape == (3, 16, 16, 1)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized.sum(axis=(1, 2)), images.sum(axis=(1, 2)), rtol=0.01)
    for axis in (1, 2):
        centres = [
            (one.sum(axis=(3 - axis, 3)) @ (np.arange(one.shape[axis]) + 0.5)) / one.shape[axis]
            for one in (resized, images)
        ]
        fluxes = [one.sum(axis=(1, 2, 3)) for one in (resized, images)]
        found, expected = (centre / flux for centre, flux in zip(centres, fluxes, strict=True))
        np.testing.assert_allclose(found, expected, atol=0.002)
    if size != (16, 16):
        with pytest.raises(RequestError, match=f"got {size[0]}x{size[1]} pixels; allowed: 16x16"):
            classifier.classify(images)
    probabilities = classifier.classify(images, resize=True).probabilities
    np.testing.assert_array_equal(probabilities, classifier.classify(resized).probabilities)


def test_resizing_keeps_even_light_even():
    resized = resize(np.full((1, 30, 20, 1), 2.0, np.float32), 16, 16)
    np.testing.assert_allclose(resized, 2.0 * 30 * 20 / 16**2, rtol=1e-6)


def test_negative_pixels_are_refused_where_roots_are_taken(tmp_path):
    saved_run(tmp_path, tiny_config(model={"name": "cnn"}, data={"scaling": "sqrt"}), tiny_split())
    classifier = lensjax.load(tmp_path)
    classifier.classify(np.zeros((1, 16, 16, 1)))
    images = IMAGES.copy()
    images[2, 3, 4] = -0.5
    message = r"images: got a pixel of -0\.5; allowed with data\.scaling=sqrt: pixels of 0 or more"
    with pytest.raises(RequestError, match=message):
        classifier.classify(images)


def write_config(folder: pathlib.Path, config: Config) -> pathlib.Path:
    from lensjax.config import to_dict

    (folder / "config.json").write_text(json.dumps({"config": to_dict(config)}))
    return folder


@pytest.mark.parametrize(
    ("loader", "config", "message"),
    [
        (load_classifier, GENERATOR, "'dit'; this network generates images; .* of a classifier"),
        (load_classifier, AUTOENCODER, "'mae'; this network is an autoencoder; .* a classifier"),
        (load_generator, CONFIG, "'cnn'; this network is a classifier; .* of a generator"),
        (load_generator, AUTOENCODER, "'mae'; this network is an autoencoder; .* of a generator"),
        (lensjax.load, AUTOENCODER, "'mae'; this network is an autoencoder; allowed: the workdir"),
    ],
)
def test_a_run_of_another_task_is_named(tmp_path, loader, config, message):
    with pytest.raises(ConfigError, match=rf"^model\.name: got {message}"):
        loader(write_config(tmp_path, config))


def test_load_gives_what_the_run_is(tmp_path, workdir):
    saved_run(tmp_path, GENERATOR, tiny_split())
    assert isinstance(lensjax.load(str(tmp_path)), LensGenerator)
    assert isinstance(lensjax.load(str(workdir)), LensClassifier)


@pytest.fixture
def weights(tmp_path, workdir, monkeypatch) -> pathlib.Path:
    """A folder with the classifier and a generator as networks that come with lensjax."""
    trained = restore(workdir, CONFIG, best=True)
    pretrained.save(tmp_path / "lenses", trained, {"temperature": 2.5, "accuracy": 0.9})
    (tmp_path / "not_a_network").mkdir()
    load_there = functools.partial(pretrained.load_trained, weights=tmp_path)
    monkeypatch.setattr(pretrained, "load_trained", load_there)
    return tmp_path


def test_a_network_that_comes_with_lensjax_says_what_its_run_said(weights, classifier):
    loaded = lensjax.load("pretrained/lenses")
    assert isinstance(loaded, LensClassifier)
    assert states_differ(loaded.params, classifier.params) == []
    assert (loaded.step, loaded.ema, loaded.temperature) == (5, "main", 2.5)
    assert loaded.folder is None
    assert loaded.config == CONFIG
    for found, expected in zip(loaded.predict(IMAGES), classifier.predict(IMAGES), strict=True):
        np.testing.assert_array_equal(found, expected)
    card = pretrained.load_card("lenses", weights)
    assert card["accuracy"] == 0.9
    assert card["num_parameters"] == sum(leaf.size for leaf in jax.tree.leaves(loaded.params))


@pytest.mark.parametrize("place", [0, 8, 300, -1])
def test_a_changed_byte_of_the_weights_is_refused(weights, place):
    file = weights / "lenses" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    message = r"pretrained/lenses: weights\.safetensors has the SHA-256 [0-9a-f]{64}, but its card "
    with pytest.raises(RequestError, match=message):
        lensjax.load("pretrained/lenses")


def test_weights_that_do_not_fit_the_network_are_refused(weights):
    wider = dataclasses.replace(CONFIG.model, num_features=9)
    write_config(weights / "lenses", dataclasses.replace(CONFIG, model=wider))
    with pytest.raises(RequestError, match=r"has .*\[8, 3\]; allowed: \[9, 3\]"):
        lensjax.load("pretrained/lenses")


def test_an_unknown_name_is_answered_by_those_that_are_there(weights, tmp_path):
    for name in ("pretrained/lense", pathlib.Path("pretrained/lense")):
        with pytest.raises(RequestError) as caught:
            lensjax.load(name)
        expected = "pretrained/lense: there is no such network; allowed: pretrained/lenses"
        assert str(caught.value) == expected
    with pytest.raises(RequestError, match=r"allowed: none$"):
        pretrained.load_card("lenses", weights=tmp_path / "nothing")


@pytest.mark.parametrize("changes", [{"step": 5}, {"ema": False}, {"ema": "main"}], ids=str)
def test_a_network_that_comes_with_lensjax_has_one_set_of_weights(weights, changes):
    with pytest.raises(RequestError, match=r"^pretrained/lenses: got step=.*, ema=.*step=None"):
        lensjax.load("pretrained/lenses", **changes)


def test_a_folder_of_the_same_name_goes_first(tmp_path, workdir, monkeypatch):
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "own").symlink_to(workdir)
    monkeypatch.chdir(tmp_path)
    assert lensjax.load("pretrained/own").folder == pathlib.Path("pretrained/own")


def test_the_best_step_is_loaded_where_there_is_one(tmp_path):
    from lensjax.run.checkpoint import Checkpoints

    saved_run(tmp_path, CONFIG, tiny_split(), 7)
    state = saved_run(tmp_path / "other", CONFIG, tiny_split(), 4)
    checkpoints = Checkpoints(tmp_path / "best")
    checkpoints.save(4, state)
    checkpoints.close()
    assert lensjax.load(tmp_path).step == 4
    assert states_differ(lensjax.load(tmp_path).params, state.ema["main"]) == []
    assert lensjax.load(tmp_path, step=7).step == 7


def test_classes_of_a_split_of_its_own(tmp_path):
    """Oblong images with two channels, and names that are not those of the simulator."""
    split = tiny_split(class_names=("lens", "none"))
    images = np.concatenate([split.images[:, :, :12], split.images[:, :, 4:]], axis=-1)
    info = dataclasses.replace(split.info, image_shape=(16, 12, 2))
    other = LensSplit(images, split.labels, split.parameters, info)
    data = {"name": "deeplense/folder", "folder": "images"}
    config = tiny_config(model={"name": "cnn", "num_classes": 2}, data=data)
    saved_run(tmp_path, config, other)
    classifier = lensjax.load(tmp_path)
    found = classifier.classify(images[:3])
    assert set(found.class_name) <= {"lens", "none"}
    np.testing.assert_array_equal(
        classifier.classify(images[0]).probabilities, found.probabilities[:1]
    )
    message = r"got shape \(3, 16, 12\); allowed: \[N, 16, 12, 2\]$"
    with pytest.raises(RequestError, match=message):
        classifier.classify(images[:3, ..., 0])


def test_images_unlike_the_training_images_are_warned_of(classifier, caplog):
    inside = tiny_split(60, seed=4).images
    assert classifier.outside(inside) == [""] * 60
    classifier.classify(inside)
    assert not caplog.records
    strange = np.stack([inside[0], 0 * inside[1], 1e3 * inside[2], inside[3] - 50])
    reasons = classifier.outside(strange)
    assert [bool(reason) for reason in reasons] == [False, True, True, True]
    classifier.classify(strange, warn=False)
    assert not caplog.records
    classifier.classify(strange)
    (record,) = caplog.records
    assert "3 of 4 images are unlike the training images in counts" in record.getMessage()
    assert f"the first is number 1: its {reasons[1]}" in record.getMessage()


def test_a_run_of_an_older_version_cannot_say_what_its_images_were_like(workdir, caplog):
    older = lensjax.load(workdir)
    older._flux_ranges = []
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert older.outside(1e9 * IMAGES) == [""] * 10
    assert [record.getMessage().count("is not checked") for record in caplog.records] == [1]
