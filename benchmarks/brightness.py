"""Are generated lenses as bright as real ones, and how many frames are spoiled?

    python benchmarks/brightness.py [--workdir=pretrained/model_ii] [--name=NAME]
    python benchmarks/brightness.py --noise

Draws the same images with Karras grids that end at several times and have several numbers of
passes, fits each by the lens without sub-structure with a free brightness, and compares the mean
with that of fresh lenses. Residuals are medians of RMS(image - fit) / RMS(image), with the
brightness fixed and free. `--noise` compares shares of fresh noise of `ddim`, and times between
which it is added, at the usual end. A frame is spoiled where the outer sixteenth of the image has
an RMS above 0.3 % of its peak. The answer goes to `brightness.json` and `brightness.md` among the
results (`--name=NAME`: `brightness_NAME`, `--noise`: `brightness_noise`); rows that are there with
the same weights and number of images are not drawn again.
"""

import argparse
import pathlib
from typing import Any

import numpy as np

import lensjax
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.files.atomic import write_json
from lensjax.inference.describe import weights_hash
from lensjax.inference.generator import LensGenerator
from lensjax.metrics.lensing import fit_smooth
from lensjax.metrics.shapes import outer_frame
from lensjax.run import provenance, workdir

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
ENDS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05)
PASSES = (8, 12, 16, 20, 40, 200)
USUAL_END, USUAL_PASSES, NOISE_PASSES = 0.02, 12, 20
NOISE = (
    (0.0, (0.0, 1.0)),
    (0.5, (0.0, 1.0)),
    (0.5, (0.0, 0.9)),
    (0.5, (0.5, 1.0)),
    (1.0, (0.0, 1.0)),
    (1.0, (0.3, 1.0)),
)
SPOILED_PERCENT = 0.3
Row = dict[str, Any]


def spoiled_frames(images: np.ndarray) -> int:
    """How many images, `[N, H, W, 1]`, have light in their outer frame."""
    frame = outer_frame(images.shape[1:3])[0]
    rms = np.sqrt(np.mean(np.square(images[:, frame, 0], dtype=np.float64), axis=1))
    return int(np.sum(100 * rms > SPOILED_PERCENT * images.max(axis=(1, 2, 3))))


def _numbers(images: np.ndarray, set_name: str) -> Row:
    """Brightness and residuals of images of one class, `[N, H, W, 1]`."""
    survey = SIMULATED_SETS[set_name].survey
    fixed, free = (
        fit_smooth(images[..., 0], survey, free_amplitude=is_free) for is_free in (False, True)
    )
    return {
        "brightness": float(free.amplitude.mean(dtype=np.float64)),
        "error": float(free.amplitude.std(dtype=np.float64) / np.sqrt(len(images))),
        "fixed": float(np.median(fixed.ratio)),
        "free": float(np.median(free.ratio)),
        "spoiled": spoiled_frames(images),
    }


def _real(set_name: str, class_names: tuple[str, ...]) -> Row:
    return {
        name: _numbers(lensjax.simulate(set_name, name, num=2_000, seed=1)[0], set_name)
        for name in class_names
    }


def _drawn(run: LensGenerator, wanted: Row, num: int) -> Row:
    names = run.class_names
    labels = run.labels(None, num * len(names))
    settings = {"steps" if name == "passes" else name: value for name, value in wanted.items()}
    images = run.generate(labels, len(labels), time_grid="karras", **settings)
    return wanted | {
        name: _numbers(images[labels == i], run.data_name) for i, name in enumerate(names)
    }


def ends(sampler: str) -> list[Row]:
    """Rows that differ in the end of the grid and in passes."""
    pairs = [
        *((end, USUAL_PASSES) for end in ENDS),
        *((end, passes) for end in (0.0, USUAL_END) for passes in PASSES if passes != USUAL_PASSES),
    ]
    return [{"sampler": sampler, "t_end": end, "passes": passes} for end, passes in pairs]


def noises() -> list[Row]:
    """Rows that differ in the noise that is added anew."""
    common = {"t_end": USUAL_END, "passes": NOISE_PASSES}
    return [
        {"sampler": "dpmpp_2m"} | common,
        *(
            {"sampler": "ddim", "eta": eta, "eta_interval": list(times)} | common
            for eta, times in NOISE
        ),
    ]


def _sampler(row: Row) -> str:
    """The sampler in words."""
    if not row.get("eta"):
        return row["sampler"]
    low, high = row["eta_interval"]
    between = f", noise at t from {low:g} to {high:g}" if (low, high) != (0, 1) else ""
    return f"{row['sampler']}, eta {row['eta']:g}{between}"


def table(content: Row) -> str:
    """The rows as a Markdown page."""
    protocol, real = content["protocol"], content["real"]
    names = list(real)
    noise = "--noise" in protocol["command"]
    spoiled = (
        " Spoiled: images of all classes whose outer sixteenth has an RMS above "
        f"{SPOILED_PERCENT:g} % of the peak."
    )
    lines = [
        f"# Brightness against {'noise' if noise else 'the end of the grid and passes'}",
        "",
        f"`{protocol['command']}` on {protocol['workdir']}, step "
        f"{protocol['checkpoint_step']}, {protocol['num_images']} images a class from the same "
        "noise. Brightness: mean of the fitted one, in per cent above that of fresh lenses; its "
        "standard error is that of the drawn images. Residual: median of the smooth fit with the "
        f"brightness fixed / free.{spoiled * noise}",
        "",
        f"| sampler | last time | passes | {' | '.join(f'{n}: %' for n in names)} | "
        f"{' | '.join(f'{n}: residual' for n in names)} |{' spoiled |' * noise}",
        f"|---|--:|--:|{'--:|' * (2 * len(names) + noise)}",
    ]

    def line(head: str, row: Row) -> str:
        over = [
            f"{100 * (row[n]['brightness'] - real[n]['brightness']):+.2f} +- "
            f"{100 * row[n]['error']:.2f}"
            for n in names
        ]
        residuals = [f"{row[n]['fixed']:.4f} / {row[n]['free']:.4f}" for n in names]
        cells = [head, *over, *residuals]
        if noise:
            cells.append(str(sum(row[n]["spoiled"] for n in names)))
        return f"| {' | '.join(cells)} |"

    lines.append(line("fresh lenses | |", real))
    lines += [
        line(f"{_sampler(row)} | {row['t_end']:.3g} | {row['passes']}", row)
        for row in content["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draws and fits every row, and writes table and numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", default="pretrained/model_ii")
    parser.add_argument("--num-images", type=int, default=240, help="a class")
    parser.add_argument("--sampler", default="dpmpp_2m")
    parser.add_argument("--name", default="")
    parser.add_argument("--noise", action="store_true", help="noise of ddim instead of the end")
    parser.add_argument("--table", action="store_true", help="only the table, from the results")
    options = parser.parse_args()
    words = ["brightness", *(["noise"] if options.noise else []), *filter(None, [options.name])]
    target = RESULTS / f"{'_'.join(words)}.json"
    if options.table:
        target.with_suffix(".md").write_text(table(workdir.read_json(target)))
        return
    run = lensjax.load(options.workdir)
    protocol = {
        "command": f"python benchmarks/brightness.py{' --noise' * options.noise}",
        "workdir": options.workdir,
        "checkpoint_step": run.step,
        "weights_sha256": weights_hash(run.params),
        "num_images": options.num_images,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }
    known = workdir.read_json(target) if target.exists() else {}
    same = all(
        known.get("protocol", {}).get(name) == protocol[name]
        for name in ("weights_sha256", "num_images")
    )
    content = {
        "protocol": protocol,
        "real": known["real"] if same else _real(run.data_name, run.class_names),
        "rows": known["rows"] if same else [],
    }
    for wanted in noises() if options.noise else ends(options.sampler):
        if any(wanted.items() <= row.items() for row in content["rows"]):
            continue
        row = _drawn(run, wanted, options.num_images)
        content["rows"].append(row)
        write_json(target, content)
        print(table(content | {"rows": content["rows"][-1:]}).splitlines()[-1], flush=True)
    target.with_suffix(".md").write_text(table(content))


if __name__ == "__main__":
    main()
