"""Calls from Python with wrong arguments: each ends with lensjax's own error, which names them."""
# Wrong types are what is tested.
# mypy: disable-error-code="arg-type, union-attr, return-value, var-annotated"

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lensjax
from lensjax import config as configuration
from lensjax.data import parameters, raytracing, simulator
from lensjax.data.surveys import SURVEYS
from lensjax.data.tables import make_table
from lensjax.diffusion import samplers, time_grids
from lensjax.diffusion.schedules import LinearPath
from lensjax.errors import UserError
from lensjax.metrics import classification, frechet, kernel, lensing, neighbours, two_sample
from lensjax.models import build_model

SURVEY = SURVEYS["model_ii"]
NAN, HUGE = float("nan"), 10**5000
NO_COUNT = (0, -1, 2.5, 60.0, "3", None, True, NAN, HUGE, [1], np.array([1]), np.array(True))
NO_SEED = (-1, 1.5, "0", 2**70, HUGE, True, NAN)
NO_PATH = (None, 5, "", b"x", "a\0b", [], pathlib.Path)
NO_NAME = (None, 5, "x", [], {}, np.zeros(2), NAN)
WHAT_TO_DO = "allowed|expected|need|choose|pass|look|see default|compare|must"
RAGGED: Any = [[1.0, 2.0], [3.0]]
NO_NUMBERS = (None, "x", RAGGED, [None], [1j, 2.0], {"a": 1}, object(), np.array(["a"]))
ROWS = np.ones((8, 2))
# Each call: the function, arguments that are right, and wrong ones by name.
CALLS: dict[str, tuple[Callable, dict[str, Any], dict[str, tuple]]] = {
    "load": (
        lensjax.load,
        {"workdir": "RUN"},
        {
            "workdir": NO_PATH,
            "step": (-1, 60.0, "60", True, [], NAN, HUGE),
            "ema": (3, None, "x", [], 0.5, np.zeros(2)),
        },
    ),
    "load_data": (
        lensjax.load_data,
        {"name": "folder", "split": "train", "folder": "NOWHERE"},
        {
            "name": NO_NAME,
            "split": NO_NAME,
            "directory": NO_PATH[1:],
            "folder": NO_PATH,
            "with_planes": (None, 1, "yes"),
            "layout": (5, "x"),
            "test_share": ("x", NAN, 2.0),
            "no_such_option": (1,),
        },
    ),
    "simulate": (
        lensjax.simulate,
        {"name": "model_ii", "class_name": "cdm", "num": 1},
        {
            "name": NO_NAME,
            "class_name": NO_NAME,
            "num": (*NO_COUNT, 10**9, 10**12),
            "seed": NO_SEED,
        },
    ),
    "from_config_dict": (
        configuration.from_config_dict,
        {},
        {"config_dict": (None, 5, "ab", ["ab"], {}, {1: 2}, {"seed": 0}, [("seed", 0)])},
    ),
    "to_dict": (configuration.to_dict, {}, {"config": (None, {}, configuration.Config)}),
    "build_model": (build_model, {}, {"config": (None, "dit", configuration.Config(), 5)}),
    "sample_lens": (
        simulator.sample_lens,
        {"key": jax.random.key(0), "survey": SURVEY, "class_name": "cdm"},
        {"survey": (None, "model_ii", 5), "class_name": (None, "x", 3, [])},
    ),
    "simulator.simulate": (
        simulator.simulate,
        {"keys": jax.random.split(jax.random.key(0), 1), "survey": SURVEY, "class_name": "cdm"},
        {"survey": (None, "model_ii"), "class_name": (None, "x")},
    ),
    "smooth_lens": (
        simulator.smooth_lens,
        {"survey": SURVEY, "source_x": 0.0, "source_y": 0.0},
        {"survey": (None, "model_ii")},
    ),
    "add_noise": (
        simulator.add_noise,
        {"key": jax.random.key(0), "image": jnp.ones((4, 4)), "survey": SURVEY},
        {"survey": (None, "model_ii")},
    ),
    "render": (
        raytracing.render,
        {"lens": simulator.smooth_lens(SURVEY, 0.0, 0.0), "survey": SURVEY},
        {"lens": (None, 1), "survey": (None, "x"), "supersampling": (0, -1, 1.5, "2")},
    ),
    "render_parameters": (
        parameters.render_parameters,
        {
            "parameters": np.zeros((1, len(parameters.PARAMETER_NAMES))),
            "labels": np.array([2]),
            "survey": SURVEY,
        },
        {
            "parameters": (*NO_NUMBERS, ROWS),
            "labels": (*NO_NUMBERS, [0.5], [3], [-1], [[0]], 1),
            "survey": (None, "model_ii"),
        },
    ),
    "frechet": (
        frechet.frechet_distance,
        {"a": frechet.Moments.of(ROWS), "b": frechet.Moments.of(ROWS)},
        {"a": (None, ROWS, 5), "b": (None, ROWS)},
    ),
    "Moments": (frechet.Moments.of, {}, {"features": (*NO_NUMBERS, 1.0, ROWS[0], ROWS * NAN)}),
    "kernel": (
        kernel.kernel_distance,
        {"a": ROWS, "b": ROWS},
        {"a": (*NO_NUMBERS, ROWS[:2]), "b": (*NO_NUMBERS, ROWS[:, :1]), "seed": NO_SEED},
    ),
    "compare": (
        two_sample.compare,
        {"real": np.arange(20.0), "generated": np.arange(20.0)},
        {"real": (*NO_NUMBERS, ROWS), "generated": (*NO_NUMBERS, []), "seed": NO_SEED},
    ),
    "compare_vectors": (
        two_sample.compare_vectors,
        {"real": np.ones((20, 2)), "generated": np.ones((20, 2))},
        {"real": (*NO_NUMBERS, ROWS[0]), "generated": NO_NUMBERS, "seed": NO_SEED},
    ),
    "manifold": (
        neighbours.manifold_scores,
        {"real": ROWS, "generated": ROWS},
        {"real": NO_NUMBERS, "generated": NO_NUMBERS, "precision_k": NO_COUNT, "density_k": (9,)},
    ),
    "score": (
        classification.score,
        {"labels": [0, 1], "probabilities": np.eye(2), "class_names": ("a", "b")},
        {
            "labels": (*NO_NUMBERS, [0.0, 1.0], [0], [0, 2], [-1, 0], 1),
            "probabilities": (*NO_NUMBERS, np.ones((2, 2)), np.eye(3), -np.eye(2)),
            "class_names": (None, 5, "ab", ("a",), ("a", "a"), (1, 2)),
        },
    ),
    "reliability": (
        classification.reliability,
        {"labels": [0, 1], "probabilities": np.eye(2)},
        {"num_bins": NO_COUNT},
    ),
    "softmax": (
        classification.softmax,
        {"logits": np.eye(2)},
        {"logits": NO_NUMBERS, "temperature": (0, -1, NAN, "x", None, True, [1.0])},
    ),
    "fit_smooth": (
        lensing.fit_smooth,
        {"images": np.ones((1, 64, 64)), "survey": SURVEY},
        {"images": (*NO_NUMBERS, np.ones((1, 8, 8))), "survey": (None, "model_ii")},
    ),
    "ks": (lensing.uniform_ks_distance, {}, {"values": (*NO_NUMBERS, [], ROWS)}),
    "faint_pixel_rms": (
        lensing.faint_pixel_rms,
        {"images": np.ones((2, 8, 8)), "fitted": np.ones((2, 8, 8))},
        {"images": (*NO_NUMBERS, ROWS), "fitted": (*NO_NUMBERS, np.ones((1, 8, 8)))},
    ),
    "time_grid": (
        time_grids.time_grid,
        {"path": LinearPath(), "steps": 4},
        {"steps": (*NO_COUNT, 10**9), "name": NO_NAME, "shift": (0, NAN, "x", None)},
    ),
    "check_times": (
        time_grids.check_times,
        {"path": LinearPath()},
        {"times": (*NO_NUMBERS, [1.0], [1.0, NAN, 0.0], [[1.0, 0.0]])},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_refused_under_their_names(name, tmp_path, trained_generator):
    function, right, wrongs = CALLS[name]
    places = {"RUN": str(trained_generator[0]), "NOWHERE": str(tmp_path)}
    right = {key: places.get(v, v) if isinstance(v, str) else v for key, v in right.items()}
    for argument, values in wrongs.items():
        for value in values:
            with pytest.raises(UserError) as caught:
                function(**right | {argument: value})
            words = str(caught.value)
            assert len(words) < 2500
            assert re.search(
                "allowed|expected|need|choose|pass|look|see default|compare|must", words
            ), words


class Place:
    """A path that is neither text nor of pathlib."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


def test_numbers_and_paths_of_other_libraries_are_as_good(trained_generator):
    folder = trained_generator[0]
    run = lensjax.load(pathlib.Path(folder), step=np.int64(trained_generator[1].step), ema=np.True_)
    assert run.step == lensjax.load(Place(str(folder)), jnp.int32(run.step)).step
    for seven in (np.int8(7), np.array(7), jnp.array(7), np.uint64(7)):
        images, table = lensjax.simulate("model_ii", np.str_("no_sub"), np.int64(1), seed=seven)
        assert images.shape == (1, 64, 64, 1)
    row = table[0]
    whole = lensjax.to_lenstronomy(row)
    assert lensjax.to_lenstronomy({name: row[name] for name in table.dtype.names})
    assert whole["kwargs_source"][0]["center_x"] == float(row["source_x_arcsec"])
    moments = frechet.Moments.of(jnp.ones((3, 2)))
    assert moments.count == 3
    assert classification.reliability([0, 1], np.eye(2), np.int32(3)).num_images.sum() == 2
    assert two_sample.compare(list(range(20)), jnp.arange(20), seed=np.uint8(1))


GENERATE: dict[str, tuple] = {
    "label": ([0.0], 1.5, RAGGED, ["cdm"], "x", 9, -1, [0, 1], [[0]], {}, object(), None),
    "num": (*NO_COUNT, 10**9, 10**12),
    "seed": NO_SEED,
    "steps": (0, -1, 2.0, 1e9, 10**9, "60", True, [1]),
    "guidance": (NAN, float("inf"), "x", [1.0], -1, {}),
    "sampler": (5, "x", [], np.zeros(2)),
    "num_images": (3,),
    "ema": (True,),
    "no_such_field": (1,),
}


def test_generate_refuses_wrong_arguments(trained_generator):
    run = lensjax.load(trained_generator[0])
    for argument, values in GENERATE.items():
        for value in values:
            if value is None:
                continue
            with pytest.raises(UserError, match=rf"{argument}.*: got .*(allowed|use)"):
                run.generate(**{argument: value})
    settings = run.settings(steps=np.array(3), guidance=jnp.float32(1.0), sampler=np.str_("euler"))
    assert (settings.steps, settings.guidance, settings.sampler) == (3, 1.0, "euler")
    np.testing.assert_array_equal(run.labels(jnp.array([1, 0]), np.int64(2)), [1, 0])
    np.testing.assert_array_equal(run.labels(np.int8(1), 2), [1, 1])


def test_log_prob_refuses_wrong_arguments(trained_generator):
    run = lensjax.load(trained_generator[0])
    images = np.ones((1, *run.image_shape), np.float32)
    wrongs: dict[str, tuple] = {
        "images": (*NO_NUMBERS, images[0], images[:0], images * NAN, images[:, 1:]),
        "label": GENERATE["label"][:-1],
        "seed": NO_SEED,
        "steps": (*NO_COUNT, 10**9),
        "num_probes": (*NO_COUNT, 10**9),
        "trace": NO_NAME,
        "space": NO_NAME,
        "t_min": (-1, NAN, "x", True, 1.0, [0.1]),
    }
    for argument, values in wrongs.items():
        for value in values:
            with pytest.raises(UserError, match=f"{argument}.*(got|allowed)"):
                run.log_prob(**{"images": images, argument: value})


def test_a_classifier_refuses_wrong_arguments(trained_classifier):
    run = lensjax.load(trained_classifier)
    side = run.image_shape[0]
    wrong = (*NO_NUMBERS, 1.0, np.ones(3), np.ones((1, side, side, 2)), np.ones((1, 3, 3)))
    for images in (*wrong, np.full((1, side, side), NAN), np.ones((1, 1, side, side, 1))):
        for method in (run.classify, run.predict, run.outside):
            with pytest.raises(UserError, match=r"images.*allowed"):
                method(images)
    for value in (None, "yes", 1):
        with pytest.raises(UserError, match=r"resize: got .*allowed: True or False"):
            run.classify(np.ones((1, side, side)), resize=value)


def test_rows_that_lenstronomy_cannot_draw_are_refused_by_set_and_column():
    columns = parameters.PARAMETER_NAMES
    table = make_table(
        "deeplense/model_ii", ("cdm",), np.zeros(2, int), columns, np.ones((2, len(columns)))
    )
    for row in ({}, None, 5, "x", table, table[:1], [1], {"data_set": "deeplense/model_ii"}):
        with pytest.raises(UserError, match=r"row: got .*allowed: one row"):
            lensjax.to_lenstronomy(row)
    wrongs: dict[str, tuple] = {
        "data_set": ("deeplense/folder", "", None, 5),
        "class_name": ("", "wdm", None, "nan", 1),
        "theta_e_arcsec": (NAN, float("inf"), None, "x", [1.0]),
        "subhalo_24_y_arcsec": (NAN, None),
    }
    good = {name: table[0][name] for name in table.dtype.names}
    for column, values in wrongs.items():
        for value in values:
            with pytest.raises(UserError, match=rf"row.*{column}.*allowed|row: got 1 .*{column}"):
                lensjax.to_lenstronomy(good | {column: value})
        with pytest.raises(UserError, match=rf"row: got no column {column}"):
            lensjax.to_lenstronomy({name: one for name, one in good.items() if name != column})
    assert lensjax.to_lenstronomy(good | {"log10_axion_mass": NAN})  # cdm has none


def test_a_sampler_refuses_shapes_that_do_not_go_together():
    problem = samplers.Problem(LinearPath(), lambda x, t: x, samplers.SamplerSettings("euler"), 2)
    noise, times = jnp.ones((2, 4, 4, 1)), jnp.array([1.0, 0.5, 0.0])
    keys = jax.random.split(jax.random.key(0), 3)
    unknown = problem._replace(settings=samplers.SamplerSettings("x"))
    for arguments in (
        (problem, noise, times[:1]),
        (problem, noise, times[None]),
        (problem, jnp.ones(()), times),
        (problem, noise, times, keys),
        (unknown, noise, times),
    ):
        with pytest.raises(UserError, match="allowed"):
            samplers.sample(*arguments)
