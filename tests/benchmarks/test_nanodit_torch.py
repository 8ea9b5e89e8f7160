"""The network that the benchmarks compare with is the same one: outputs, gradients, a step."""

import json
import subprocess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench_support import torch_python
from flax.traverse_util import flatten_dict
from run_support import ROOT, tiny_config
from support import random_like

from lensjax.config import Config, SampleConfig, to_dict
from lensjax.diffusion.losses import make_error_fn
from lensjax.diffusion.samplers import Problem, SamplerSettings, sample
from lensjax.interfaces import Batch
from lensjax.run.learning import abstract_state, loss_settings
from lensjax.run.networks import build_network, build_path, make_guided_fn
from lensjax.run.optim import build_optimizer, ema_decay, make_schedule, update_ema

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("quick_compiles")]
PROGRAM = ROOT / "tests" / "support" / "torch_numbers.py"
SHAPE = (16, 16, 1)
# Adam's first step divides a gradient by its own size, which makes rounding a step of full length;
# this epsilon stands above the small ones.
CONFIG = tiny_config(
    model={"width": 16, "depth": 2, "patch_size": 4, "num_heads": 2},
    optim={"eps": 1e-2, "weight_decay": 0.1, "learning_rate": 1e-2, "clip_norm": 0.05},
    train={"batch_size": 6, "num_steps": 10},
)
TIMES = np.array([1.0, 0.7, 0.2, 0.0], np.float32)


def drawn_arrays(config: Config) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    batch = config.train.batch_size
    images = rng.standard_normal((3, batch, *SHAPE)).astype(np.float32)
    return {
        "image": images[0],
        "eps": images[1],
        "noise": images[2],
        "t": rng.random(batch).astype(np.float32),
        "label": np.array([0, 1, 2, 3, 0, 1], np.int32),  # 3 is the null label
        "times": TIMES,
    }


def flattened(tree: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep=".").items()}


def as_lensjax(arrays: dict[str, np.ndarray], prefix: str, like: Any) -> dict[str, np.ndarray]:
    """Returns PyTorch's arrays under lensjax's names and in its layout."""
    found = {}
    for name in flattened(like):
        module, _, leaf = name.rpartition(".")
        array = arrays[f"{prefix}.{module}.{'bias' if leaf == 'bias' else 'weight'}"]
        found[name] = array.T if leaf == "kernel" else array
    return found


@pytest.fixture(scope="module")
def params(quick_compiles) -> Any:
    params = random_like(abstract_state(CONFIG, SHAPE).params, seed=5)
    return jax.tree.map(lambda leaf: 0.3 * leaf, params)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, params) -> dict[str, np.ndarray]:
    """What PyTorch makes of the same numbers."""
    folder = tmp_path_factory.mktemp("torch")
    given = {f"params.{name}": array for name, array in flattened(params).items()}
    given |= drawn_arrays(CONFIG) | {"config": np.array(json.dumps(to_dict(CONFIG)))}
    np.savez(folder / "in.npz", **given)  # type: ignore[arg-type]
    program = [torch_python(), PROGRAM, folder / "in.npz", folder / "out.npz"]
    done = subprocess.run(list(map(str, program)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "out.npz"))


def ours(params: Any) -> tuple[jax.Array, Any]:
    """Returns lensjax's loss and gradient with given times, noise and labels."""
    path, given = build_path(CONFIG), jax.tree.map(jnp.asarray, drawn_arrays(CONFIG))
    error_fn = make_error_fn(build_network(CONFIG).apply_fn, path, loss_settings(CONFIG))
    batch = Batch(given["image"], given["label"])

    def loss(params: Any) -> jax.Array:
        return jnp.mean(error_fn(params, batch, given["t"], given["eps"], given["label"]))

    return jax.jit(jax.value_and_grad(loss))(params)


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in expected:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-4, atol=1e-4 * scale, err_msg=name
        )


def test_outputs_are_the_same(theirs, params):
    given = drawn_arrays(CONFIG)
    network = jax.jit(build_network(CONFIG).apply_fn)
    output = network(params, given["image"], given["t"], {"label": given["label"]})
    assert np.abs(output).max() > 0.1
    close(theirs, {"output": np.asarray(output)})
    error = theirs["output_bfloat16"] - theirs["output"]
    assert 0 < np.abs(error).max() < 0.1 * np.abs(theirs["output"]).max()


def test_loss_and_gradient_are_the_same(theirs, params):
    loss, gradient = ours(params)
    np.testing.assert_allclose(theirs["loss"], loss, rtol=1e-5)
    close(as_lensjax(theirs, "gradient", params), flattened(gradient))


def test_a_step_of_optimizer_and_average_is_the_same(theirs, params):
    settings = CONFIG.optim
    schedule = make_schedule(
        settings.learning_rate,
        CONFIG.train.num_steps,
        settings.warmup_steps,
        settings.learning_rate_floor,
    )
    optimizer = build_optimizer(
        schedule,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        b1=settings.b1,
        b2=settings.b2,
        eps=settings.eps,
    )
    half_life, share = settings.ema_half_life_images, settings.ema_warmup_share
    batch = CONFIG.train.batch_size

    @jax.jit
    def at(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        return schedule(step), ema_decay(step, batch, half_life, share)

    rates, decays = np.transpose([at(jnp.asarray(step)) for step in range(12)])
    np.testing.assert_allclose(theirs["rates"], rates, rtol=1e-5)
    np.testing.assert_allclose(theirs["decays"], decays, rtol=1e-5)

    @jax.jit
    def step(params: Any, gradient: Any) -> tuple[Any, Any]:
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        stepped = jax.tree.map(jnp.add, params, updates)
        return stepped, update_ema(params, stepped, jnp.float32(decays[0]))

    stepped, average = step(params, ours(params)[1])
    found = as_lensjax(theirs, "stepped", params)
    before = flattened(params)
    # Moves are small beside parameters, so that they are compared as far as float32 tells them.
    for name, after in flattened(stepped).items():
        move = after - before[name]
        assert np.abs(move).max() > 1e-5
        np.testing.assert_allclose(found[name] - before[name], move, rtol=1e-2, atol=2e-7)
    close(as_lensjax(theirs, "average", params), flattened(average))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_drawn_images_are_the_same(theirs, params, guidance):
    given, path = drawn_arrays(CONFIG), build_path(CONFIG)
    settings = SampleConfig(sampler="euler", steps=3, guidance=guidance)
    denoise = make_guided_fn(build_network(CONFIG), settings)(
        params, None, jnp.asarray(given["label"])
    )
    problem = Problem(path, denoise, SamplerSettings("euler"), 3)
    images = jax.jit(lambda noise: sample(problem, noise, jnp.asarray(TIMES)))(given["noise"])
    close(theirs, {f"drawn_{guidance:g}": np.asarray(images)})
