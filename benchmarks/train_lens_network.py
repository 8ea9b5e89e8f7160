"""Trains the lens network that comes with lensjax, whose penultimate layer is a feature extractor.

`python benchmarks/train_lens_network.py --output lensjax/weights` takes at most 12 minutes on two
CPU cores and writes `lens_network.safetensors` and `lens_network.json`; the learning rate falls to
zero with the steps or with the time, whichever ends first. Every image is drawn afresh, half of
them with the instrument's noise at a source magnitude of 20 to 23, so that the network serves
noise-free and observed images. A part of the axion and cdm images conserves the mass inside the
ring: the ring's radius alone then does not give the class away.
"""

import argparse
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import lensjax
from lensjax import prng, provenance
from lensjax.data import simulator
from lensjax.data.surveys import SOURCE_MAGNITUDE
from lensjax.models import lens_network
from lensjax.models.lens_network import SURVEY, LensNetwork

IMAGES_PER_CLASS = 16  # in a batch
CONSERVED_PER_CLASS = 4
NOISE_FREE_SHARE = 0.5
MAGNITUDES = (20.0, 23.0)
PEAK_LEARNING_RATE = 2e-3
WARMUP_SHARE = 0.03
WEIGHT_DECAY = 1e-4
PREDICT_CHUNK = 250


class Batch(NamedTuple):
    """A batch of training images and what they show.

    Attributes:
      images: flux per pixel, float32 `[B, H, W]`.
      labels: int32 `[B]`.
      parameters: `lens_network.PARAMETER_NAMES` in units of half their ranges, NaN where a class
        has none, float32 `[B, P]`.
    """

    images: Array
    labels: Array
    parameters: Array


def _targets(draw: simulator.Draw) -> Array:
    """Returns the parameters of one class's draws, float32 `[N, P]`."""
    lowest, highest = simulator.LOG10_AXION_MASS_RANGE
    half = (highest - lowest) / 2
    columns = (
        draw.lens.source_x / simulator.SOURCE_POSITION_LIMIT,
        draw.lens.source_y / simulator.SOURCE_POSITION_LIMIT,
        (draw.log10_axion_mass - (lowest + highest) / 2) / half,
        jnp.cos(2 * draw.vortex_angle),
        jnp.sin(2 * draw.vortex_angle),
    )
    return jnp.stack(columns, axis=1)


def observe(key: Array, image: Array, magnitude: float | Array) -> Array:
    """Returns one image `[H, W]` with its flux scaled to a magnitude and the instrument's noise."""
    faded = image * 10 ** (-0.4 * (magnitude - SOURCE_MAGNITUDE))
    return simulator.add_noise(key, faded, SURVEY)[0]


def _perhaps_observe(key: Array, image: Array) -> Array:
    noise_key, magnitude_key, choice_key = jax.random.split(key, 3)
    magnitude = jax.random.uniform(magnitude_key, (), jnp.float32, *MAGNITUDES)
    noise_free = jax.random.uniform(choice_key) < NOISE_FREE_SHARE
    return jnp.where(noise_free, image, observe(noise_key, image, magnitude))


def draw_batch(seed: int, step: Array) -> Batch:
    """Draws the images of one step, a function of seed and step."""
    parts = []
    for label, class_name in enumerate(simulator.CLASS_NAMES):
        keys = prng.keys(
            prng.key(seed, "lens_network/lenses", step, label), jnp.arange(IMAGES_PER_CLASS)
        )
        conserved = 0 if class_name == "no_sub" else CONSERVED_PER_CLASS
        for chosen, conserve in ((keys[:conserved], True), (keys[conserved:], False)):
            if len(chosen):
                images, draw, _ = simulator.simulate(chosen, SURVEY, class_name, conserved=conserve)
                labels = jnp.full(len(chosen), label, jnp.int32)
                parts.append(Batch(images, labels, _targets(draw)))
    images, labels, parameters = (jnp.concatenate(each) for each in zip(*parts, strict=True))
    count = jnp.arange(len(images))
    noise_keys = prng.keys(prng.key(seed, "lens_network/noise", step), count)
    images = jax.vmap(_perhaps_observe)(noise_keys, images)
    turn = jax.random.bernoulli(prng.key(seed, "lens_network/turn", step), 0.5, count.shape)
    images = jnp.where(turn[:, None, None], images[:, ::-1, ::-1], images)
    # Half a turn moves the source to the other side and leaves a line through the origin.
    sign = jnp.where(turn[:, None] & (jnp.arange(parameters.shape[1]) < 2)[None], -1.0, 1.0)
    return Batch(images, labels, parameters * sign)


def loss_of(params: Any, batch: Batch, parameter_weight: float) -> tuple[Array, Array]:
    """Returns cross-entropy + weight x mean squared error of the parameters, and the accuracy."""
    output = lens_network.apply(params, batch.images[..., None])
    entropy = optax.softmax_cross_entropy_with_integer_labels(output.logits, batch.labels)
    known = jnp.isfinite(batch.parameters)
    error = jnp.where(known, output.parameters - jnp.nan_to_num(batch.parameters), 0.0)
    error = jnp.sum(jnp.square(error)) / jnp.sum(known)
    accuracy = jnp.mean(jnp.argmax(output.logits, axis=-1) == batch.labels)
    return jnp.mean(entropy) + parameter_weight * error, accuracy


def learning_rate(progress: float) -> float:
    """Returns a warm-up and a cosine to zero; progress goes from 0 to 1."""
    warmup = min(progress / WARMUP_SHARE, 1.0)
    return PEAK_LEARNING_RATE * warmup * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def make_optimizer() -> optax.GradientTransformation:
    """Returns AdamW whose state holds the learning rate."""
    adamw = optax.inject_hyperparams(optax.adamw)(0.0, weight_decay=WEIGHT_DECAY)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def make_step(
    optimizer: optax.GradientTransformation, seed: int, parameter_weight: float
) -> Callable[[Any, Any, Array, Array], tuple[Any, Any, Array, Array]]:
    """Returns the step: (params, optimizer state, step, rate) -> params, state, loss, accuracy."""

    @jax.jit
    def step_fn(params: Any, state: Any, step: Array, rate: Array) -> tuple[Any, Any, Array, Array]:
        state = optax.tree.set(state, learning_rate=rate)
        batch = draw_batch(seed, step)
        value = jax.value_and_grad(loss_of, has_aux=True)
        (loss, accuracy), gradient = value(params, batch, parameter_weight)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss, accuracy

    return step_fn


def train(arguments: argparse.Namespace) -> tuple[Any, int, float]:
    """Trains, saving the weights now and then; returns parameters, steps done and seconds."""
    side = SURVEY.num_pixels
    start_key = prng.key(arguments.seed, "lens_network/init")
    params = LensNetwork().init(start_key, jnp.zeros((1, side, side, 1)))["params"]
    optimizer = make_optimizer()
    step_fn = make_step(optimizer, arguments.seed, arguments.parameter_weight)
    state = optimizer.init(params)
    begun, seconds, done, since_last = time.perf_counter(), 0.0, 0, []
    while (progress := max(done / arguments.steps, seconds / (60 * arguments.minutes))) < 1:
        rate = jnp.float32(learning_rate(progress))
        params, state, *numbers = step_fn(params, state, jnp.int32(done), rate)
        since_last.append(jax.device_get(numbers))
        seconds = time.perf_counter() - begun
        done += 1
        if done % arguments.save_every == 0:
            loss, accuracy = np.mean(since_last, axis=0)
            since_last = []
            if not np.isfinite(loss):
                raise FloatingPointError(f"the mean loss is {loss} before step {done}")
            lens_network.save_weights(arguments.output, jax.device_get(params))
            print(f"{done} loss {loss:.3f} accuracy {accuracy:.3f} {seconds:.0f} s", flush=True)
    return params, done, seconds


@jax.jit
def _predict(params: Any, images: Array) -> Array:
    return jnp.argmax(lens_network.apply(params, images[..., None]).logits, axis=-1)


@jax.jit
def _observe_all(base: Array, first: Array, images: Array, magnitude: Array) -> Array:
    keys = prng.keys(base, first + jnp.arange(len(images)))
    return jax.vmap(observe, in_axes=(0, 0, None))(keys, images, magnitude)


def accuracy_by_class(
    params: Any, images: np.ndarray, labels: np.ndarray, magnitude: float | None
) -> dict[str, float]:
    """Returns the share of right classes, in total and of each class.

    Args:
      params: the network's parameters.
      images: noise-free flux, float32 `[N, H, W]`; N is a multiple of `PREDICT_CHUNK`.
      labels: int32 `[N]`.
      magnitude: of the source, with the instrument's noise; None for noise-free images.
    """
    base = prng.key(0, "lens_network/test noise")
    predicted = []
    for start in range(0, len(images), PREDICT_CHUNK):
        chunk = jnp.asarray(images[start : start + PREDICT_CHUNK])
        if magnitude is not None:
            chunk = _observe_all(base, jnp.int32(start), chunk, jnp.float32(magnitude))
        predicted.append(np.asarray(_predict(params, chunk)))
    right = np.concatenate(predicted) == labels
    names = enumerate(simulator.CLASS_NAMES)
    by_class = {name: round(float(right[labels == label].mean()), 4) for label, name in names}
    return {"all": round(float(right.mean()), 4), **by_class}


def measure(params: Any) -> dict[str, Any]:
    """Returns accuracies on the test split of Model II and on fresh conserved images."""
    images, table = lensjax.load_data("model_ii", "test")
    labels = table["label"]
    fresh = [lensjax.simulate("model_ii_conserved", name, 2000) for name in simulator.CLASS_NAMES]
    conserved = np.concatenate([part[0] for part in fresh])[..., 0]
    conserved_labels = np.concatenate([part[1]["label"] for part in fresh])
    return {
        "model_ii test": {
            "noise-free": accuracy_by_class(params, images[..., 0], labels, None),
            **{
                f"magnitude {magnitude}": accuracy_by_class(
                    params, images[..., 0], labels, magnitude
                )
                for magnitude in (20, 22, 23)
            },
        },
        "model_ii_conserved, 2,000 fresh images a class": {
            "noise-free": accuracy_by_class(params, conserved, conserved_labels, None),
            "magnitude 20": accuracy_by_class(params, conserved, conserved_labels, 20),
        },
    }


def write_card(
    arguments: argparse.Namespace, params: Any, steps: int, seconds: float
) -> Mapping[str, Any]:
    """Writes what the weights are beside them."""
    path = lens_network.save_weights(arguments.output, jax.device_get(params))
    card = {
        "sha256": lens_network.file_sha256(path),
        "command": "python " + " ".join(sys.argv),
        "trained_on": SURVEY.name,
        "classes": simulator.CLASS_NAMES,
        "num_steps": steps,
        "images_per_step": IMAGES_PER_CLASS * len(simulator.CLASS_NAMES),
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "seconds": round(seconds),
        "accuracy": measure(params),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }
    card_path = arguments.output / f"{lens_network.NAME}.json"
    card_path.write_text(json.dumps(card, indent=2) + "\n")
    return card


def main() -> None:
    """Trains, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for the files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000, help="at most")
    parser.add_argument("--minutes", type=float, default=12.0, help="at most")
    parser.add_argument("--save_every", type=int, default=200, help="steps")
    parser.add_argument("--parameter_weight", type=float, default=0.5)
    arguments = parser.parse_args()
    params, steps, seconds = train(arguments)
    print(json.dumps(write_card(arguments, params, steps, seconds), indent=2))


if __name__ == "__main__":
    main()
