"""The benchmark of brightness: what counts as a spoiled frame, and its two tables."""

import brightness
import numpy as np
import pytest

NUMBERS = {"brightness": 1.01, "error": 0.001, "fixed": 0.02, "free": 0.01, "spoiled": 2}
REAL = {"brightness": 1.0, "error": 0.0, "fixed": 0.0, "free": 0.0, "spoiled": 0}


@pytest.mark.parametrize(
    ("row", "flux", "expected"),
    [(0, 0.02, 1), (63, 0.02, 1), (2, 0.005, 0), (4, 0.02, 0), (31, 0.02, 0)],
    ids=["upper edge", "lower edge", "faint", "inside the frame", "middle"],
)
def test_a_frame_is_spoiled_by_light_in_its_outer_pixels(row, flux, expected):
    images = np.zeros((3, 64, 64, 1), np.float32)
    images[:, 32, 32] = 1.0
    images[1, row, 4:-4] = flux
    assert brightness.spoiled_frames(images) == expected


@pytest.mark.parametrize("noise", [False, True])
def test_the_table_has_a_line_for_each_row(noise):
    rows = brightness.noises() if noise else brightness.ends("heun")
    content = {
        "protocol": {
            "command": "python benchmarks/brightness.py" + " --noise" * noise,
            "workdir": "runs/a",
            "checkpoint_step": 3,
            "num_images": 8,
        },
        "real": {"cdm": REAL, "no_sub": REAL},
        "rows": [row | {"cdm": NUMBERS, "no_sub": NUMBERS} for row in rows],
    }
    lines = [line for line in brightness.table(content).splitlines() if line.startswith("|")]
    assert len(lines) == 3 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    numbers = " | ".join(["+1.00 +- 0.10"] * 2 + ["0.0200 / 0.0100"] * 2)
    assert lines[-1].endswith(f"| {numbers} |{' 4 |' * noise}")
    samplers = {line.split("|")[1].strip() for line in lines[3:]}
    assert ("ddim, eta 0.5, noise at t from 0.5 to 1" in samplers) == noise
