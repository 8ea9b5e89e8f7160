"""Probabilities that mean what they say, by a temperature (Guo et al. 2017, arXiv:1706.04599)."""

import numpy as np

_LOG_BOUNDS = (np.log(0.05), np.log(20.0))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns the probabilities `[N, K]` of logits `[N, K]` over a temperature, float32."""
    scaled = np.asarray(logits, np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Returns the mean cross-entropy in nats of logits `[N, K]` over a temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(scaled, np.asarray(labels)[:, None], axis=-1)[:, 0]
    return float(np.mean(np.log(np.exp(scaled).sum(axis=-1)) - chosen))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature T of `softmax(logits / T)` with the lowest log loss.

    It is between 0.05 and 20; logits that are never wrong go towards the lower end.

    Args:
      logits: `[N, K]`.
      labels: integers `[N]`.
    """
    from scipy.optimize import minimize_scalar

    if not np.isfinite(logits).all():
        return 1.0
    found = minimize_scalar(
        lambda log_t: log_loss(logits, labels, float(np.exp(log_t))),
        bounds=_LOG_BOUNDS,
        method="bounded",
    )
    return float(np.exp(found.x))
