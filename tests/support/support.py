"""What several tests share: closed forms of Gaussian data, and weights in other layouts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import prng
from lensjax.diffusion.guidance import make_denoiser
from lensjax.diffusion.losses import LossSettings
from lensjax.diffusion.paths import FlowPath


def loss_settings(**changes: Any) -> LossSettings:
    """Settings of a plain flow-matching loss for two classes, with the given changes."""
    plain = LossSettings(
        prediction="velocity",
        space="velocity",
        min_sigma=0.05,
        weight="uniform",
        min_snr_gamma=5.0,
        data_std=0.5,
        time_distribution="uniform",
        time_mean=0.0,
        time_std=1.0,
        uniform_share=0.0,
        stratified=False,
        label_drop=0.0,
        null_label=2,
    )
    return plain._replace(**changes)


def random_like(params: Any, seed: int = 0, scale: float = 0.2) -> Any:
    """Normal numbers in place of all parameters: a network that starts at zero hides faults."""
    leaves, structure = jax.tree.flatten(params)
    random = np.random.default_rng(seed)
    values = [jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(structure, values)


def nanodit_from_torch(weights: Mapping[str, np.ndarray], depth: int) -> dict[str, Any]:
    """Parameters of `DiT` from weights in torch layout; the position table is not among them."""

    def linear(name: str) -> dict[str, np.ndarray]:
        return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}

    patches = weights["x_embedder.proj.weight"]  # [out, in, kh, kw]
    params: dict[str, Any] = {
        "patches_in": {
            "kernel": patches.transpose(2, 3, 1, 0).reshape(-1, len(patches)),
            "bias": weights["x_embedder.proj.bias"],
        },
        "condition": {
            "time_in": linear("t_embedder.mlp.0"),
            "time_out": linear("t_embedder.mlp.2"),
            "label": {"embedding": weights["y_embedder.embedding_table.weight"]},
        },
        "final_modulation": linear("final_layer.adaLN_modulation.1"),
        "patches_out": linear("final_layer.linear"),
    }
    for index in range(depth):
        block = f"blocks.{index}"
        params[f"block_{index}"] = {
            "modulation": linear(f"{block}.adaLN_modulation.1"),
            "attention": {
                "qkv": linear(f"{block}.attn.qkv"),
                "out": linear(f"{block}.attn.proj"),
            },
            "mlp_in": linear(f"{block}.mlp.fc1"),
            "mlp_out": linear(f"{block}.mlp.fc2"),
        }
    return params


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Images `[side, side, 1]` from N(mean of the label, covariance), all closed forms in float64.

    Attributes:
      side: pixels a side.
      means: `[K, D]`, one for each label.
      covariance: `[D, D]`.
    """

    side: int
    means: np.ndarray
    covariance: np.ndarray

    @property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Variances `[D]` and directions `[D, D]` (in columns) of the covariance."""
        variances, directions = np.linalg.eigh(self.covariance)
        return variances, directions

    def images(self, flat: Any) -> Any:
        """Pixels `[N, D]` as images `[N, side, side, 1]`."""
        return flat.reshape(-1, self.side, self.side, 1)

    def draw(self, seed: int, labels: np.ndarray) -> np.ndarray:
        """One flat image for each label, `[N, D]`."""
        variances, directions = self.modes
        normal = np.random.default_rng(seed).normal(size=(len(labels), len(variances)))
        return self.means[labels] + (normal * np.sqrt(variances)) @ directions.T

    def draw_in_step(self, seed: int, step: jax.Array, labels: jax.Array) -> jax.Array:
        """The same in JAX, fresh for each step, as images."""
        variances, directions = self.modes
        root = jnp.asarray((directions * np.sqrt(variances)).T, jnp.float32)
        key = prng.key(seed, "gaussian", step)
        normal = jax.random.normal(key, (len(labels), len(variances)))
        return self.images(jnp.asarray(self.means, jnp.float32)[labels] + normal @ root)

    def flow_velocity(self, x_t: Any, t: Any, labels: Any) -> Any:
        """E[eps - x0 | x_t, label] of the straight path.

        Along each mode, x_t has the variance `v = (1 - t)^2 s + t^2` and the covariance
        `t - (1 - t) s` with `eps - x0`.

        Args:
          x_t: `[N, D]`.
          t: `[N, 1]`.
          labels: `[N]`.
        """
        library = jnp if isinstance(x_t, jax.Array) else np
        variances, directions, means = (
            library.asarray(part, x_t.dtype) for part in (*self.modes, self.means)
        )
        v = (1 - t) ** 2 * variances[None] + t**2
        modes = (x_t - (1 - t) * means[labels]) @ directions
        return (modes * (t - (1 - t) * variances[None]) / v) @ directions.T - means[labels]

    def flow_map(self, noise: np.ndarray, labels: np.ndarray, t: float = 0.0) -> np.ndarray:
        """Where the exact flow carries noise `[N, D]` from time 1 to time t.

        Along each mode the distance from the mean over the standard deviation stays as it is.
        """
        variances, directions = self.modes
        deviations = np.sqrt((1 - t) ** 2 * variances + t**2)
        return (1 - t) * self.means[labels] + (noise @ directions * deviations) @ directions.T

    def least_velocity_loss(self, t: float) -> float:
        """Mean variance of `eps - x0` given `x_t`: no network has a smaller loss at this time.

        Along a mode: `1 + s - (t - (1 - t) s)^2 / v = s / v`.
        """
        variances, _ = self.modes
        return float(np.mean(variances / ((1 - t) ** 2 * variances + t**2)))

    def denoiser(self, prediction: str, labels: Any) -> Any:
        """The closed-form velocity of the flow path as a network would put it out."""

        def network(params: Any, x: Any, t: Any, condition: Any) -> Any:
            flat, t = x.reshape(len(x), -1), t[:, None]
            output = self.flow_velocity(flat, t, condition["label"])
            if prediction == "x0":
                output = flat - t * output
            return output.reshape(x.shape)

        return make_denoiser(
            network,
            {},
            {"label": labels},
            path=FlowPath(),
            prediction=prediction,
        )


def smooth_gaussian(side: int, num_labels: int = 2) -> Gaussian:
    """Correlated pixels, further along columns than along rows, with variance 1."""
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1)
    place = place.reshape(-1, 2)
    row, column = np.moveaxis(place[:, None] - place[None], -1, 0)
    smooth = np.exp(-0.5 * row**2 - 0.5 * (column / 2) ** 2)
    mean = 0.5 * np.cos(place[:, 0] + 0.5 * place[:, 1])
    means = np.linspace(1, -1, num_labels)[:, None] * mean if num_labels > 1 else mean[None]
    return Gaussian(side, means, (smooth + 0.25 * np.eye(side**2)) / 1.25)
