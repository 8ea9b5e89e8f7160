"""lensjax's jobs compute what they are named after, and the programs run whole, small."""

import argparse
import json
import sys
from typing import Any

import growth
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pairs
import pytest
import sample
import side_lensjax
import train
from bench_support import torch_python
from run_support import ROOT

from lensjax.config import to_dict
from lensjax.errors import ConfigError
from lensjax.inference.sampling import passes_per_image

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("quick_compiles")]
SMALL = ["--width=16", "--depth=1", "--patch=8", "--heads=2", "--side=16", "--batch=2"]
SETTINGS = {"precision": "float32", "image_shape": (16, 16, 1), "num_images": 8, "batch_size": 2}


@pytest.fixture(autouse=True)
def _kept_precision():
    """A child settles the precision for its whole process, which here is that of the tests."""
    yield
    jax.config.update("jax_default_matmul_precision", None)


def options(*more: str) -> argparse.Namespace:
    return pairs.parser("").parse_args([*SMALL, *more])


def settings(**more: Any) -> dict[str, Any]:
    config = train.config_for(options(), "cpu", "float32")
    return SETTINGS | {"config": to_dict(config)} | more


def test_the_train_job_makes_steps():
    job = side_lensjax.Train(settings())
    job.run(3)
    assert int(job._state.step) == 4
    assert int(job._state.bad_step) == -1
    assert job.info["compile_seconds"] > 0
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(job._state))
    assert state < job.info["planned_bytes"] < 100 * state


@pytest.mark.parametrize(("guidance", "steps"), [(1.0, 4), (3.0, 2)])
def test_guidance_takes_two_passes_a_step(guidance, steps):
    asked = options()
    asked.guidance, asked.passes = guidance, 4
    config = sample.config_for(asked, "cpu", "float32")
    assert config.sample.steps == steps
    assert passes_per_image(config, config.sample) == 4


def test_odd_passes_and_guidance_do_not_go_together():
    asked = options()
    asked.guidance, asked.passes = 2.0, 5
    with pytest.raises(ConfigError, match=r"--passes: got 5.*even"):
        sample.config_for(asked, "cpu", "float32")


def test_attention_by_itself_mixes_values():
    config = train.config_for(options("--set=model.mlp_ratio=2"), "cpu", "float32")
    layer = side_lensjax.attention_of(config, (16, 16, 1))
    qkv = jax.random.normal(jax.random.key(0), (2, 4, 48))
    mixed = side_lensjax._mix(layer, qkv)
    query, key, value = np.asarray(qkv).reshape(2, 4, 3, 2, 8).transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(8)
    shares = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    expected = (shares @ value).swapaxes(1, 2).reshape(2, 4, 16)
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-5)


def test_an_operation_has_the_precision_of_the_network():
    config = to_dict(train.config_for(options(), "cpu", "bfloat16"))
    asked = settings(operation="mlp", config=config, precision="bfloat16")
    job = side_lensjax.operation(asked)
    (wide, narrow), gradients = job._compiled(*job._arguments)
    assert {wide.dtype, narrow.dtype} == {jnp.dtype(jnp.bfloat16)}
    kinds = [gradient.dtype.name for gradient in gradients]
    assert kinds == ["bfloat16"] * 2 + ["float32"] * 4
    assert wide.shape == (2, 4, 64)


def test_fields_are_replaced_and_what_a_flag_sets_is_refused():
    config = train.config_for(options("--set=loss.label_drop=0.25"), "cpu", "bfloat16")
    assert (config.loss.label_drop, config.model.dtype) == (0.25, "bfloat16")
    assert (config.model.width, config.train.batch_size) == (16, 2)
    with pytest.raises(ConfigError, match=r"--set=model.dtype"):
        train.config_for(options("--set=model.dtype=bfloat16"), "cpu", "float32")
    with pytest.raises(ConfigError, match=r"model.prediction: got 'x0'"):
        train.config_for(options("--set=model.prediction=x0"), "cpu", "float32")
    with pytest.raises(ConfigError, match=r"model.patch_size: got 8; allowed: a divisor"):
        train.config_for(options("--side=12"), "cpu", "float32")
    with pytest.raises(ConfigError, match="nowhere"):
        train.config_for(options("--set=model.nowhere=1"), "cpu", "float32")


def test_images_fit_into_a_quarter_gibibyte():
    assert networks.num_images(4, (64, 64, 1)) == 512
    assert networks.num_images(160, (64, 64, 1)) == 16_384
    assert networks.num_images(2_048, (256, 256, 1)) == 2_048


@pytest.mark.parametrize("program", [train, sample])
def test_a_benchmark_runs_whole(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    more = ["--rounds=2", "--product-size=16", f"--results={tmp_path}"]
    more += [f"--torch-python={torch_python()}"]
    more += (
        ["--operations", "--operation-seconds=0"]
        if program is train
        else ["--passes=2", "--guidance=3"]
    )
    monkeypatch.setattr(sys, "argv", [f"{program.__name__}.py", *SMALL, *more])
    program.main()
    (entry,) = json.loads((tmp_path / f"{program.__name__}.json").read_text())["devices"].values()
    (case,) = entry["cases"]
    assert entry["platform"] == "cpu"
    assert {child["tunables"] for child in entry["children"].values()} == {"glibc.malloc.hugetlb=1"}
    assert case["product"]["reference"] == max(case["product"]["rate"].values())
    for name in ("lensjax", "PyTorch"):
        assert len(case["rounds"]["seconds"][name]) == 2
        speed = case["flops"] / case["median_seconds"][name]
        assert case["mfu"][name] == pytest.approx(speed / case["product"]["reference"])
        assert case["memory"][name]["added_bytes"] >= 0
    shown = capsys.readouterr().out
    assert "lensjax over PyTorch" in shown
    if program is train:
        rows = {row["operation"]: row["milliseconds"] for row in case["operations"]}
        assert set(rows) >= {title for _, title, _ in train.OPERATIONS}
        for name in ("lensjax", "PyTorch"):
            parts = sum(row[name] for title, row in rows.items() if title != "all of it")
            assert parts == pytest.approx(rows["all of it"][name])
        assert "| GELU |" in shown
    else:
        assert case["passes"] == 2
        assert "4 images at 2 passes" in shown


class TestGrowth:
    """`growth.py`."""

    def options(self, *more: str) -> argparse.Namespace:
        made = growth._parser().parse_args(["--sides=32", "--devices=1", *more])
        made.precision = "float32"
        return made

    def test_rows_go_over_three_axes(self):
        made = growth._parser().parse_args([])
        rows = growth.rows_of(made, "cpu")
        assert [row.batch for row in rows if row.axis == "batch"] == [2**k for k in range(11)]
        assert [row.side for row in rows if row.axis == "side"] == [32, 64, 128, 256]
        assert [row.devices for row in rows if row.axis == "devices"] == [1, 2, 4, 8]
        assert not [row for row in growth.rows_of(made, "gpu") if row.axis == "devices"]

    def test_behind_a_row_that_stopped_larger_ones_are_not_tried(self, monkeypatch):
        tried = []

        def measure(options: Any, config: Any, row: growth.Row) -> dict[str, Any]:
            tried.append(row)
            if row.batch >= 4:
                return {"stopped": "does not fit into the memory"}
            return {"images_per_second": 5.0, "peak_bytes": 2**20, "compile_seconds": 1.0}

        monkeypatch.setattr(growth, "measure", measure)
        made = self.options("--batches", "1", "4", "16", "--base-batch=2", "--devices-batch=2")
        rows = growth.measure_all(made, "cpu", "configs/quickstart.py")
        assert [row.batch for row in tried] == [1, 4, 2, 2]
        shown = growth.table(rows).splitlines()
        assert shown[2:5] == [
            "| batch | 1 | 64 | 1 | 5.0 | 1 | 1.0 |",
            "| batch | 4 | 64 | 1 | does not fit into the memory | | |",
            "| batch | 16 | 64 | 1 | not tried: larger than the row before | | |",
        ]

    def test_rows_are_measured_and_one_that_is_late_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        made = self.options("--steps=2", "--row-seconds=300", "--set=model.widths=(8,)")
        row = growth.Row("devices", 2, 32, 2)
        config = growth.config_for(made, "configs/quickstart.py", row)
        found = growth.measure(made, config, row)
        assert found["steps"] == 2
        assert found["images_per_second"] == pytest.approx(2 / found["step_seconds"])
        made.row_seconds = 0.01
        late = growth.measure(made, config, row)
        assert late == {"stopped": "longer than 0.01 s"}
        rows = [row._asdict() | found, row._asdict() | late]
        child = {"versions": {"jax": "1.2.3"}}
        entry = {"rows": rows, "config": "c", "precision": "float32", "child": child}
        page = growth.report({"a CPU": entry | {"command": "python growth.py"}})
        assert "## a CPU" in page
        assert growth.table(rows) in page
        growth.draw({"a CPU": {"rows": rows}}, tmp_path / "growth.png")
        assert (tmp_path / "growth.png").stat().st_size > 1000


def test_results_of_other_devices_stay(tmp_path):
    path = tmp_path / "train.json"
    for device, number in (("a", 1), ("b", 2), ("a", 3)):
        pairs.save(path, device, {"number": number})
    devices = json.loads(path.read_text())["devices"]
    assert devices == {"b": {"number": 2}, "a": {"number": 3}}
    assert list(devices)[-1] == "a"


def test_products_of_the_two_precisions_differ():
    assert side_lensjax.product({"precision": "bfloat16", "size": 8})._arguments[0].dtype == (
        jnp.bfloat16
    )
