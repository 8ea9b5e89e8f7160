"""The page of the baselines is what its numbers print; a training goes on where it was killed."""

import json

import numpy as np
import pytest

from lensjax.data.scaling import Scaling

pytestmark = pytest.mark.nightly
pytest.importorskip("torch", reason="PyTorch is only there for benchmarks")

import baseline  # noqa: E402
from networks import overridden, read_config  # noqa: E402

SMALL = {
    "model.patch_size": 16,
    "model.width": 16,
    "model.depth": 1,
    "model.num_heads": 2,
    "train.batch_size": 2,
    "optim.warmup_steps": 1,
    "sample.steps": 2,
}


def test_the_page_holds_what_was_measured():
    content = json.loads(baseline.RESULTS.read_text(encoding="utf-8"))
    page = baseline.RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert page == baseline.page(content)
    for row in content["rows"].values():
        outcomes = [check["outcome"] for check in row["checks"]]
        assert row["missed"] == outcomes.count("missed")


def test_a_training_goes_on_and_its_images_are_kept(tmp_path, monkeypatch):
    images = np.random.default_rng(0).random((6, 64, 64, 1), np.float32)
    table = {"label": np.arange(6) % 3}
    monkeypatch.setattr(baseline.lensjax, "load_data", lambda *_: (images, table))
    monkeypatch.setattr(baseline, "_STEPS_KEPT", 2)
    config = overridden(read_config("configs/dit_flow.py", (), SMALL), (), {"train.num_steps": 4})
    scaling = Scaling("linear", 0.5, 0.5)
    begun = overridden(config, (), {"train.num_steps": 2})
    _, before = baseline.train(begun, scaling, tmp_path)
    network, minutes = baseline.train(config, scaling, tmp_path)
    assert minutes > before > 0
    assert baseline.train(config, scaling, tmp_path)[1] == minutes
    labels = np.array([0, 1, 2], np.int32)
    drawn = baseline.drawn(network, config, scaling, labels, tmp_path / "drawn")
    assert drawn.shape == (3, 64, 64, 1)
    assert np.isfinite(drawn).all()
    kept = tmp_path / "drawn" / "0.npy"
    np.save(kept, 0 * drawn)
    again = baseline.drawn(network, config, scaling, labels, tmp_path / "drawn")
    np.testing.assert_array_equal(again, 0)
