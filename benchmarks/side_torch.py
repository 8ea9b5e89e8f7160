"""PyTorch's side of the speed benchmarks: a child that `pairs.py` starts, see `channel.py`.

python benchmarks/side_torch.py cpu|gpu
"""

import os
import platform
import sys
from collections.abc import Callable
from typing import Any

import channel
import nanodit_torch
import numpy as np
import torch
from channel import Answer
from torch import Tensor
from torch.nn import functional

DEVICE = "cuda" if sys.argv[1:] == ["gpu"] else "cpu"


def hello() -> Answer:
    """Versions and threads.

    Raises:
      RuntimeError: where a GPU is asked for and PyTorch sees none.
    """
    if DEVICE == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU, but JAX does: install PyTorch for CUDA")
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "cuda": torch.version.cuda,
        },
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "tunables": os.environ.get("GLIBC_TUNABLES"),
    }


def peak_bytes() -> int:
    """The peak of the memory that counts: the GPU's, or this process's on a CPU."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    return channel.host_peak_bytes()


def wait() -> None:
    """Waits for what was handed to the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def set_precision(precision: str) -> None:
    """Lets float32 products use TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def build_network(settings: Answer) -> nanodit_torch.NanoDiT:
    """The network of the settings on the device."""
    set_precision(settings["precision"])
    torch.manual_seed(settings["config"]["seed"])
    shape = tuple(settings["image_shape"])
    return nanodit_torch.NanoDiT(settings["config"]["model"], shape).to(DEVICE)


def compile_mode(settings: Answer) -> str | None:
    """The mode of `torch.compile`, None on a CPU."""
    return settings["compile_mode"] if DEVICE == "cuda" else None


class Repeated:
    """A function of no arguments as a job; built by a first call, which compiles it.

    Args:
      function: what is repeated.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        first, second = channel.first_and_second(self.run)
        # PyTorch compiles in the first call, so that its price is what that one took longer.
        compiled = max(first - second, 0.0) if DEVICE == "cuda" else 0.0
        self.info: Answer = {"first_seconds": second, "compile_seconds": compiled}

    def run(self, count: int) -> None:
        """Calls so often."""
        for _ in range(count):
            self._function()
        wait()


def train(settings: Answer) -> Repeated:
    """The train step as a job."""
    network, num = build_network(settings), settings["num_images"]
    trainer = nanodit_torch.Trainer(
        settings["config"], network, settings["precision"], compile_mode(settings)
    )
    images = torch.randn((num, *settings["image_shape"]), device=DEVICE)
    labels = torch.randint(settings["config"]["model"]["num_classes"], (num,), device=DEVICE)
    return Repeated(lambda: trainer.step(images, labels))


def sample(settings: Answer) -> Repeated:
    """The drawing of `num_images` images, which end on the host, as a job."""
    network: Any = build_network(settings).eval()
    if compile_mode(settings):
        network = torch.compile(network, mode=compile_mode(settings))
    values, num = settings["config"], settings["num_images"]
    batch, num_classes = values["sample"]["batch_size"], values["model"]["num_classes"]
    labels = torch.arange(batch, device=DEVICE) % num_classes
    guidance = values["sample"]["guidance"]

    def draw_all() -> None:
        for _ in range(-(-num // batch)):
            noise = torch.randn((batch, *settings["image_shape"]), device=DEVICE)
            images = nanodit_torch.draw(
                network,
                noise,
                labels,
                settings["times"],
                guidance,
                num_classes,
                settings["precision"],
            )
            images.cpu()

    return Repeated(draw_all)


def product(settings: Answer) -> Repeated:
    """A product of two square matrices as a job."""
    set_precision(settings["precision"])
    size, half = settings["size"], settings["precision"] == "bfloat16"
    kind = torch.bfloat16 if half else torch.float32
    left, right = (torch.randn((size, size), device=DEVICE, dtype=kind) for _ in range(2))
    return Repeated(lambda: left @ right)


def _functions(settings: Answer) -> dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]]:
    """Each operation with the shapes of its arguments."""
    model, (height, length, _) = settings["config"]["model"], settings["image_shape"]
    batch, width, heads = settings["batch_size"], model["width"], model["num_heads"]
    tokens = (height // model["patch_size"]) * (length // model["patch_size"])
    wide = model["mlp_ratio"] * width
    x, vector = (batch, tokens, width), (batch, width)

    def norm(x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, h: Tensor) -> Tensor:
        normed = functional.layer_norm(x, (width,), eps=1e-6)
        return nanodit_torch.modulate(normed, shift, scale) + gate[:, None] * h

    def products(x: Tensor, h: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        first, first_bias, second, second_bias = weights
        return functional.linear(x, first, first_bias), functional.linear(h, second, second_bias)

    def layer(columns: int, rows: int) -> list[tuple[int, ...]]:
        return [(columns, rows), (columns,)]

    return {
        "attention": (lambda qkv: nanodit_torch.mix(qkv, heads), [(batch, tokens, 3 * width)]),
        "qkv_out": (products, [x, x, *layer(3 * width, width), *layer(width, width)]),
        "mlp": (products, [x, (batch, tokens, wide), *layer(wide, width), *layer(width, wide)]),
        "gelu": (functional.gelu, [(batch, tokens, wide)]),
        "norm": (norm, [x, vector, vector, vector, x]),
    }


def operation(settings: Answer) -> Repeated:
    """An operation's forward and backward pass as a job."""
    set_precision(settings["precision"])
    if settings["operation"] == "update":
        return _update(settings)
    function, shapes = _functions(settings)[settings["operation"]]
    mode = compile_mode(settings)
    called: Any = torch.compile(function, mode=mode) if mode else function
    half = settings["precision"] == "bfloat16"

    def tensor(shape: tuple[int, ...]) -> Tensor:
        activation = len(shape) == 3 or settings["operation"] == "norm"  # weights stay float32
        kind = torch.bfloat16 if half and activation else torch.float32
        return torch.randn(shape, device=DEVICE, dtype=kind, requires_grad=True)

    arguments = [tensor(shape) for shape in shapes]

    def forward() -> Any:
        with nanodit_torch.computing_in(settings["precision"], DEVICE):
            return called(*arguments)

    with torch.no_grad():
        out = forward()
    weights = [torch.randn_like(part) for part in (out if isinstance(out, tuple) else (out,))]

    def both() -> None:
        out = forward()
        torch.autograd.grad(out if isinstance(out, tuple) else (out,), arguments, weights)

    return Repeated(both)


def _update(settings: Answer) -> Repeated:
    trainer = nanodit_torch.Trainer(
        settings["config"], build_network(settings), settings["precision"], None
    )
    for parameter in trainer.parameters:
        parameter.grad = torch.randn_like(parameter)
    return Repeated(trainer.update)


JOBS = {"train": train, "sample": sample, "product": product, "operation": operation}

if __name__ == "__main__":
    channel.serve(JOBS, hello, peak_bytes)
