"""What the benchmarks' network in PyTorch computes, as arrays: `torch_numbers.py IN.npz OUT.npz`.

A program of its own, because PyTorch and JAX may be installed apart.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))


def network_of(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    import nanodit_torch

    network = nanodit_torch.NanoDiT(values["model"], tuple(arrays["image"].shape[1:]))
    parts = {name[7:]: array for name, array in arrays.items() if name.startswith("params.")}
    nanodit_torch.copy_parameters(network, parts)
    return network


def main() -> None:
    import nanodit_torch
    import torch

    arrays = dict(np.load(sys.argv[1]))
    values = json.loads(str(arrays.pop("config")))
    network = network_of(values, arrays)
    names = ("image", "t", "eps", "label", "noise")
    image, t, eps, label, noise = (torch.from_numpy(arrays[name]) for name in names)
    label = label.long()
    trainer = nanodit_torch.Trainer(values, network, "float32", None)
    found = {"output": network(image, t, label)}
    for guidance in (1.0, 3.0):
        found[f"drawn_{guidance:g}"] = nanodit_torch.draw(
            network,
            noise,
            label,
            arrays["times"].tolist(),
            guidance,
            values["model"]["num_classes"],
            "float32",
        )
    with nanodit_torch.computing_in("bfloat16", "cpu"):
        found["output_bfloat16"] = network(image, t, label)
    found["loss"] = trainer.gradient(image, t, eps, label)
    found |= {f"gradient.{name}": p.grad.clone() for name, p in network.named_parameters()}
    trainer.update()
    found |= {f"stepped.{name}": p.clone() for name, p in network.named_parameters()}
    averages = zip(network.named_parameters(), trainer.average, strict=True)
    found |= {f"average.{name}": average.clone() for (name, _), average in averages}
    rates = [nanodit_torch.learning_rate(values, step) for step in range(12)]
    decays = [nanodit_torch.average_decay(values, step) for step in range(12)]
    found |= {"rates": torch.tensor(rates), "decays": torch.tensor(decays)}
    loss = trainer.step(torch.rand((12, *image.shape[1:])), torch.arange(12) % 3)
    assert torch.isfinite(loss)
    assert trainer.steps == 2
    np.savez(sys.argv[2], **{name: array.detach().numpy() for name, array in found.items()})


if __name__ == "__main__":
    main()
