"""NanoDiT in PyTorch, written for the benchmarks: what lensjax's numbers are held against.

The same network, loss, optimizer and sampler as `configs/dit_flow.py`; modules have the names of
lensjax's parameters. Flash attention (cuDNN's first, as in lensjax), fused AdamW, averages in one
call, and on a GPU `torch.compile` of the network.
"""

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

_TIME_EMBEDDING = 256
_MAX_PERIOD = 10_000.0
# The first one that takes the shapes, dtype and device.
_KERNELS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
Values = Mapping[str, Any]


def time_frequencies(size: int) -> np.ndarray:
    """The frequencies of the embedding of a time in [0, 1], float32 `[size / 2]`."""
    half = size // 2
    exponents = np.float32(-math.log(_MAX_PERIOD)) * np.arange(half, dtype=np.float32) / half
    return np.float32(1000.0) * np.exp(exponents.astype(np.float64)).astype(np.float32)


def position_table(rows: int, columns: int, size: int) -> np.ndarray:
    """The sine-cosine table of a grid of patches, float32 `[rows * columns, size]`."""
    frequencies = _MAX_PERIOD ** -(np.arange(size // 4) / (size / 4))
    row, column = np.indices((rows, columns)).reshape(2, -1)
    angles = [np.outer(axis, frequencies) for axis in (column, row)]
    parts = [function(angle) for angle in angles for function in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x (1 + scale) + shift` for tokens `[B, T, D]` and vectors `[B, D]`."""
    return x * (1 + scale[:, None]) + shift[:, None]


def mix(qkv: Tensor, num_heads: int) -> Tensor:
    """What attention mixes, `[B, T, D]`, from `[B, T, 3 D]`."""
    batch, tokens, width = qkv.shape
    split = qkv.view(batch, tokens, 3, num_heads, width // 3 // num_heads)
    query, key, value = split.permute(2, 0, 3, 1, 4)  # each [B, heads, T, D / heads]
    with sdpa_kernel(_KERNELS, set_priority=True):
        mixed = functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).reshape(batch, tokens, width // 3)


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
      width: of a token.
      num_heads: heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens `[B, T, D]` to `[B, T, D]`."""
        return self.out(mix(self.qkv(x), self.num_heads))


class Block(nn.Module):
    """Attention and a perceptron, modulated and gated.

    Args:
      model: the fields of `ModelConfig`.
    """

    def __init__(self, model: Values) -> None:
        super().__init__()
        width = model["width"]
        self.modulation = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, model["num_heads"])
        self.mlp_in = nn.Linear(width, model["mlp_ratio"] * width)
        self.mlp_out = nn.Linear(model["mlp_ratio"] * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps tokens `[B, T, D]` and vectors `[B, D]` to tokens."""
        parts = self.modulation(functional.silu(condition)).chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        x = x + gate_a[:, None] * self.attention(modulate(self.norm(x), shift_a, scale_a))
        h = functional.gelu(self.mlp_in(modulate(self.norm(x), shift_m, scale_m)))
        return x + gate_m[:, None] * self.mlp_out(h)


class Condition(nn.Module):
    """Time and label as one vector.

    Args:
      width: its length.
      num_classes: classes; one more row is the null label.
    """

    frequencies: Tensor

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        table = torch.from_numpy(time_frequencies(_TIME_EMBEDDING))
        self.register_buffer("frequencies", table, persistent=False)
        self.time_in = nn.Linear(_TIME_EMBEDDING, width)
        self.time_out = nn.Linear(width, width)
        self.label = nn.Embedding(num_classes + 1, width)

    def forward(self, t: Tensor, label: Tensor) -> Tensor:
        """`[B, D]` from times `[B]` and labels `[B]`."""
        angles = t[:, None] * self.frequencies
        embedded = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.time_out(functional.silu(self.time_in(embedded))) + self.label(label)


class NanoDiT(nn.Module):
    """The denoiser.

    Args:
      model: the fields of `ModelConfig` by name.
      image_shape: `(H, W, C)`.
    """

    positions: Tensor

    def __init__(self, model: Values, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, length, channels = image_shape
        self.patch, self.depth, width = model["patch_size"], model["depth"], model["width"]
        self.grid = (height // self.patch, length // self.patch)
        values = self.patch**2 * channels
        self.patches_in = nn.Linear(values, width)
        self.register_buffer(
            "positions", torch.from_numpy(position_table(*self.grid, width)), persistent=False
        )
        self.condition = Condition(width, model["num_classes"])
        for index in range(self.depth):
            self.add_module(f"block_{index}", Block(model))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.patches_out = nn.Linear(width, values)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith("condition") and parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif parameter.ndim == 2 and "modulation" not in name and "patches_out" not in name:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Maps images `[B, H, W, C]`, times `[B]` and labels `[B]` to velocities, float32."""
        batch, (rows, columns), patch = x.shape[0], self.grid, self.patch
        tokens = x.view(batch, rows, patch, columns, patch, -1).transpose(2, 3)
        tokens = self.patches_in(tokens.reshape(batch, rows * columns, -1))
        tokens = tokens + self.positions.to(tokens.dtype)  # else all that follows is float32
        vector = self.condition(t, label)
        for index in range(self.depth):
            tokens = getattr(self, f"block_{index}")(tokens, vector)
        shift, scale = self.final_modulation(functional.silu(vector)).chunk(2, dim=-1)
        patches = self.patches_out(modulate(self.norm(tokens), shift, scale))
        patches = patches.view(batch, rows, columns, patch, patch, -1).transpose(2, 3)
        return patches.reshape(x.shape).float()


@torch.no_grad()
def copy_parameters(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copies lensjax's parameters into the network.

    Args:
      network: whose modules have lensjax's names.
      arrays: parameters by path, such as `block_0.attention.qkv.kernel`.
    """
    names = {"kernel": "weight", "embedding": "weight", "bias": "bias"}
    parameters = dict(network.named_parameters())
    for path, array in arrays.items():
        module, _, leaf = path.rpartition(".")
        values = torch.from_numpy(np.array(array.T if leaf == "kernel" else array))
        parameters.pop(f"{module}.{names[leaf]}").copy_(values)
    assert not parameters, f"without a value: {sorted(parameters)}"


def computing_in(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """The context of a precision: parameters stay float32, products may be bfloat16."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def velocity_loss(network: Any, image: Tensor, t: Tensor, eps: Tensor, label: Tensor) -> Tensor:
    """The mean squared error of the velocity `eps - x0`.

    Args:
      network: `(x_t, t, label) -> velocity`.
      image: x0, float32 `[B, H, W, C]`.
      t: float32 `[B]`, in [0, 1].
      eps: noise, as `image`.
      label: `[B]`, the null label where it was dropped.
    """
    share = t[:, None, None, None]
    output = network((1 - share) * image + share * eps, t, label)
    return (output - (eps - image)).square().mean()


def learning_rate(values: Values, step: int) -> float:
    """The rate of a step: a linear warm-up, then `max(floor, cosine)`."""
    optim, warmup = values["optim"], values["optim"]["warmup_steps"]
    if step < warmup:
        return optim["learning_rate"] * (step + 1) / warmup
    progress = min((step - warmup) / max(values["train"]["num_steps"] - warmup, 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return optim["learning_rate"] * max(optim["learning_rate_floor"], cosine)


def average_decay(values: Values, step: int) -> float:
    """The decay of the average at a step, its warm-up included."""
    batch, optim = values["train"]["batch_size"], values["optim"]
    half_life = optim["ema_half_life_images"]
    if optim["ema_warmup_share"]:
        half_life = min(half_life, optim["ema_warmup_share"] * (step + 1) * batch)
    return 0.5 ** (batch / half_life)


class Trainer:
    """A training run without files.

    Args:
      values: the configuration as nested dicts.
      network: the denoiser, on its device.
      precision: `float32`, `tf32` or `bfloat16`.
      compile_mode: of `torch.compile`; None does not compile.
    """

    def __init__(
        self, values: Values, network: NanoDiT, precision: str, compile_mode: str | None
    ) -> None:
        optim = values["optim"]
        self._values, self._precision = values, precision
        self.network, self.steps = network, 0
        self.parameters: list[Tensor] = list(network.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=optim["learning_rate"],
            betas=(optim["b1"], optim["b2"]),
            eps=optim["eps"],
            weight_decay=optim["weight_decay"],
            fused=True,
        )
        called = torch.compile(network, mode=compile_mode) if compile_mode else network
        self._called: Any = called

    def gradient(self, image: Tensor, t: Tensor, eps: Tensor, label: Tensor) -> Tensor:
        """Computes the loss and leaves its gradient in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        with computing_in(self._precision, image.device.type):
            loss = velocity_loss(self._called, image, t, eps, label)
        loss.backward()
        return loss.detach()

    @torch.no_grad()
    def update(self) -> None:
        """Clips the gradient, moves the parameters and their average."""
        nn.utils.clip_grad_norm_(self.parameters, self._values["optim"]["clip_norm"])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self._values, self.steps)
        self.optimizer.step()
        decay = average_decay(self._values, self.steps)
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        self.steps += 1

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Makes a step with random examples, times, noise and label drop; returns its loss.

        Args:
          images: the training images in the model's range, float32 `[N, H, W, C]`.
          labels: `[N]`.
        """
        batch, device = self._values["train"]["batch_size"], images.device
        chosen = torch.randint(len(images), (batch,), device=device)
        image, label = images[chosen], labels[chosen]
        t = torch.rand(batch, device=device)
        dropped = torch.rand(batch, device=device) < self._values["loss"]["label_drop"]
        label = torch.where(dropped, self._values["model"]["num_classes"], label)
        loss = self.gradient(image, t, torch.randn_like(image), label)
        self.update()
        return loss


def guided_velocity(
    network: Any, x: Tensor, t: Tensor, labels: Tensor, guidance: float, null_label: int
) -> Tensor:
    """`uncond + g (cond - uncond)`, from one pass of twice the batch; 1 asks once."""
    if guidance == 1:
        return network(x, t.expand(len(x)), labels)
    both = torch.cat([labels, torch.full_like(labels, null_label)])
    wanted, weak = network(torch.cat([x, x]), t.expand(2 * len(x)), both).chunk(2)
    return weak + guidance * (wanted - weak)


@torch.inference_mode()
def draw(
    network: Any,
    noise: Tensor,
    labels: Tensor,
    times: Sequence[float],
    guidance: float,
    null_label: int,
    precision: str,
) -> Tensor:
    """Carries noise to data by Euler's rule.

    Args:
      network: `(x_t, t, label) -> velocity`.
      noise: float32 `[B, H, W, C]`.
      labels: `[B]`.
      times: falling from 1 to 0.
      guidance: g, see `guided_velocity`.
      null_label: the label that stands for none.
      precision: `float32`, `tf32` or `bfloat16`.

    Returns:
      Images in the model's range, float32 `[B, H, W, C]`.
    """
    x = noise
    grid = torch.tensor(times, device=noise.device)
    with computing_in(precision, noise.device.type):
        for t, t_next in itertools.pairwise(grid):
            slope = guided_velocity(network, x, t, labels, guidance, null_label)
            x = x + (t_next - t) * slope
    return x
