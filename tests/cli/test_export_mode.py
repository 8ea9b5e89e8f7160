"""`--mode=export`: every format, source and scale is read back by the programs it is meant for."""

import csv
import dataclasses
import io
import json
import math
import os
import resource
import sys
import types

import numpy as np
import pytest
from allpairspy import AllPairs
from folder_children import in_fork
from run_support import CLASS_NAMES, tiny_config, tiny_split

from lensjax.cli import export_formats, export_hdf5
from lensjax.cli import export_mode as exporting
from lensjax.cli.export_mode import EXPORT_FILE, export_mode
from lensjax.data.dataset import LensSplit
from lensjax.errors import ConfigError, DataError, FileError, UserError, WorkdirError
from lensjax.files.atomic import write_json
from lensjax.run import datasets
from lensjax.run import workdir as files

h5py = pytest.importorskip("h5py")
fits = pytest.importorskip("astropy.io.fits")
wcs = pytest.importorskip("astropy.wcs")

FORMATS = ("npy", "fits", "hdf5")
SCALES = {"flux": 1.0, "published": 2.0}
SIZES = {"train": 7, "test": 4}
PARAMETER_NAMES = ("exposure_time_s", "log10_axion_mass")
SOURCES = ["data", "generated"]
SHAPES = {"one channel": (16, 16, 1), "three channels": (16, 12, 3)}
META = {
    "weights_sha256": "0123456789abcdef" * 4,
    "seed": 17,
    "num_images": 7,
    "sampler": "heun",
    "versions": {"jax": "0.9.0"},
}


def make_split(
    name="train", shape=(16, 16, 1), class_names=CLASS_NAMES, seed=0, band_names=()
) -> LensSplit:
    """Random images with negative zeros, tiny numbers and missing parameters."""
    num = SIZES[name]
    rng = np.random.default_rng([seed, num])
    images = rng.normal(size=(num, *shape)).astype(np.float32)
    images[0, 0, 0] = -0.0
    images[-1, 1, 1] = 1e-40
    parameters = rng.normal(size=(num, 2)).astype(np.float32)
    parameters[1] = np.nan
    parameters[2, 0] = np.nan
    info = dataclasses.replace(
        tiny_split(2).info,
        class_names=class_names,
        parameter_names=PARAMETER_NAMES,
        split_sizes=SIZES,
        image_shape=shape,
        flux_unit="counts/s",
        published_scale=2.0,
        psf_fwhm_arcsec=0.16,
        zero_point_mag=24.0,
        band_names=band_names,
    )
    labels = np.arange(num, dtype=np.int32) % max(1, len(class_names))
    return LensSplit(images, labels, parameters, info)


def expected_of(source: str, part: str, **changes) -> LensSplit:
    split = make_split(part, **changes)
    if source == "data":
        return split
    info = dataclasses.replace(split.info, parameter_names=())
    return dataclasses.replace(split, parameters=split.parameters[:, :0], info=info)


class HandMade:
    """A set of hand-made images, as `datasets.prepare` returns one."""

    def __init__(self, changes):
        self.changes = changes

    def info(self):
        return make_split(**self.changes).info

    def read(self, split, *, masked_values=False):
        return make_split(split, **self.changes)


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """Returns what makes a workdir and a data set of hand-made images."""

    def make(**changes):
        monkeypatch.setattr(datasets, "prepare", lambda data: HandMade(changes))
        workdir = tmp_path / "run"
        split = make_split(**changes)
        files.claim(workdir, tiny_config())
        described = {
            field.name: getattr(split.info, field.name)
            for field in dataclasses.fields(split.info)
            if field.name not in ("parameter_names", "split_sizes")
        }
        write_json(
            workdir / "dataset.json",
            described | {"scaling": {"kind": "linear", "shift": 0.0, "spread": 1.0}},
        )
        (workdir / "generated").mkdir()
        np.save(workdir / "generated" / "images.npy", split.images)
        np.save(workdir / "generated" / "labels.npy", split.labels)
        write_json(workdir / "generated" / "meta.json", META)
        return workdir

    return make


def run(workdir, **settings):
    export_mode(tiny_config(export=settings), workdir)


def parts_of(source: str) -> tuple[str, ...]:
    return tuple(SIZES) if source == "data" else ("train",)  # generated ones are those of train


def folder_of(folder, source: str, part: str):
    return folder / part if source == "data" else folder


def rows_of(folder) -> list[dict[str, str]]:
    with (folder / "parameters.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("source", "scale", "shape", "file_format"),
    list(AllPairs([SOURCES, list(SCALES), list(SHAPES.values()), ["npy", "fits"]])),
)
def test_each_file_holds_its_image_bit_for_bit(set_up, source, file_format, scale, shape):
    workdir = set_up(shape=shape)
    run(workdir, source=source, format=file_format, scale=scale)
    for part in parts_of(source):
        folder = folder_of(workdir / "export", source, part)
        split = expected_of(source, part, shape=shape)
        rows = rows_of(folder)
        assert len(rows) == len(split)
        images = split.images * np.float32(SCALES[scale])
        for index, (row, image) in enumerate(zip(rows, images, strict=True)):
            name = CLASS_NAMES[split.labels[index]]
            assert row["file"] == f"{name}/{index:06d}.{file_format}"
            plane = image[..., 0] if shape[-1] == 1 else image
            if file_format == "npy":
                found = np.load(folder / row["file"], allow_pickle=False)
            elif shape[-1] == 1:
                found = fits.getdata(folder / row["file"])
            else:
                with fits.open(folder / row["file"]) as units:
                    found = np.stack([unit.data for unit in units[1:]], axis=-1)
            assert found.shape == plane.shape
            assert found.dtype.newbyteorder("=") == np.float32
            assert found.astype("=f4").tobytes() == np.ascontiguousarray(plane).tobytes()
        assert len(list(folder.rglob(f"*.{file_format}"))) == len(split)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("file_format", ["npy", "fits"])
def test_the_table_has_labels_and_the_parameters_bit_for_bit(set_up, source, file_format):
    workdir = set_up()
    run(workdir, source=source, format=file_format)
    for part in parts_of(source):
        split = expected_of(source, part)
        rows = rows_of(folder_of(workdir / "export", source, part))
        assert list(rows[0]) == ["file", "label", "class_name", *split.info.parameter_names]
        assert [int(row["label"]) for row in rows] == split.labels.tolist()
        assert [row["class_name"] for row in rows] == [CLASS_NAMES[i] for i in split.labels]
        for column, name in enumerate(split.info.parameter_names):
            for row, value in zip(rows, split.parameters[:, column], strict=True):
                assert (row[name] == "") == np.isnan(value)
                if row[name]:
                    assert np.float32(row[name]) == value


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("source", SOURCES)
def test_fits_headers_pass_the_verification_and_say_what_is_known(set_up, source, scale):
    workdir = set_up()
    run(workdir, source=source, format="fits", scale=scale)
    for part in parts_of(source):
        split = expected_of(source, part)
        folder = folder_of(workdir / "export", source, part)
        for index, row in enumerate(rows_of(folder)):
            with fits.open(folder / row["file"]) as units:
                units.verify("exception")
                assert len(units) == 1
                header = units[0].header
            assert header["CLASS"] == row["class_name"]
            assert header["LABEL"] == split.labels[index]
            assert header["DATASET"] == split.info.name
            assert header["DATAFP"] == split.info.fingerprint
            assert header["PIXSCALE"] == 0.1
            assert header["PSFFWHM"] == 0.16
            assert header["FLUXFACT"] == SCALES[scale]
            # Twice the counts stay as bright: the zero point takes the factor.
            flux = header["FLUXFACT"] * 10 ** (0.4 * 24)
            assert header["MAGZERO"] - 2.5 * math.log10(flux) == pytest.approx(0, abs=1e-12)
            assert header.get("BUNIT") == ("count/s" if scale == "flux" else None)
            made = source == "generated"
            assert header.get("SEED") == (META["seed"] if made else None)
            assert header.get("WSHA256") == (META["weights_sha256"] if made else None)
            exposure = split.parameters[index, :1]
            for keyword, values in (
                ("EXPTIME", exposure),
                ("EXPOSURE_TIME_S", exposure),
                ("LOG10_AXION_MASS", split.parameters[index, 1:]),
            ):
                if values.size and np.isfinite(values[0]):
                    assert header[keyword] == float(values[0])
                else:
                    assert keyword not in header


@pytest.mark.parametrize(
    ("bands", "names"),
    [
        (("g", "r", "i"), ["g", "r", "i"]),
        (("", "", ""), ["BAND1", "BAND2", "BAND3"]),
        (("I", "i", "β/2"), ["I", "i_2", "2"]),
        (("primary", "日本", "BAND2"), ["primary_1", "BAND2", "BAND2_3"]),
        (("x" * 99, "x" * 98), ["x" * 60, "x" * 60 + "_2"]),
    ],
)
def test_extensions_are_named_after_bands_and_differ_for_readers_that_ignore_case(bands, names):
    assert export_formats.extension_names(bands) == names


@pytest.mark.parametrize(
    ("source", "band_names", "extensions"),
    [
        ("data", ("I", "i", "β/2"), ("I", "i_2", "2")),
        ("generated", (), ("BAND1", "BAND2", "BAND3")),
    ],
)
def test_each_band_is_an_extension_with_all_facts(set_up, source, band_names, extensions):
    workdir = set_up(shape=(16, 12, 3), band_names=band_names)
    run(workdir, source=source, format="fits", split="test")
    folder = workdir / "export" if source == "generated" else workdir / "export" / "test"
    with fits.open(folder / "axion" / "000000.fits") as units:
        units.verify("exception")
        assert [unit.header.get("EXTNAME") for unit in units] == [None, *extensions]
        assert units[0].data is None
        assert "CTYPE1" not in units[0].header
        for unit in units:
            assert unit.header["CLASS"] == "axion"
            assert unit.header["MAGZERO"] == 24.0
            assert unit.header["DATAFP"] == make_split().info.fingerprint
        for number, unit in enumerate(units[1:], start=1):
            band = band_names[number - 1] if band_names else f"band {number}"
            assert unit.header["BAND"] == band.encode("ascii", "backslashreplace").decode()
            assert units[extensions[number - 1]].data is unit.data  # found by its name
            assert (unit.header["CDELT1"], unit.header["CRPIX2"]) == (0.1, 8.5)
    record = json.loads((workdir / "export" / EXPORT_FILE).read_text())
    assert record["band_names"] == list(band_names)


def test_hdf5_names_the_bands(set_up):
    workdir = set_up(shape=(16, 12, 2), band_names=("g", "β"))
    run(workdir, format="hdf5", split="test")
    with h5py.File(workdir / "export" / "test.h5") as file:
        assert file["band_names"].asstr()[()].tolist() == ["g", "β"]


def test_the_fits_coordinates_are_offsets_in_arcsec_that_grow_with_row_and_column(set_up):
    workdir = set_up(shape=(16, 12, 1))
    run(workdir, format="fits", split="test")
    header = fits.getheader(workdir / "export" / "test" / "axion" / "000000.fits")
    plane = wcs.WCS(header)
    assert [str(unit) for unit in plane.wcs.cunit] == ["arcsec", "arcsec"]
    assert not plane.has_celestial  # these lenses have no place on the sky
    columns, rows = plane.wcs_pix2world([[0, 0], [11, 15], [5.5, 7.5]], 0).T
    np.testing.assert_allclose(columns, [-0.55, 0.55, 0], atol=1e-12)
    np.testing.assert_allclose(rows, [-0.75, 0.75, 0], atol=1e-12)


@pytest.mark.parametrize("unit", ["counts", "electron/s", "nanomaggy", "arbitrary", "unknown"])
def test_a_unit_is_written_unless_there_is_none(tmp_path, unit):
    split = make_split()
    info = dataclasses.replace(
        split.info,
        flux_unit=unit,
        pixel_scale_arcsec=None,
        psf_fwhm_arcsec=None,
        zero_point_mag=None,
        class_names=("größe", "b", "c"),
    )
    description = export_formats.Description(info, factor=1.0)
    named = dataclasses.replace(split, info=info)
    export_formats.write_files(named, tmp_path, description, "fits", lambda count: None)
    header = fits.getheader(tmp_path / "größe" / "000000.fits")
    no_unit = unit in ("arbitrary", "unknown")
    assert header.get("BUNIT") == (None if no_unit else {"counts": "count"}.get(unit, unit))
    for keyword in ("PIXSCALE", "CDELT1", "PSFFWHM", "MAGZERO", "SEED"):
        assert keyword not in header
    assert header["CLASS"] == "gr\\xf6\\xdfe"  # FITS knows ASCII alone


@pytest.mark.parametrize(
    ("source", "scale", "shape"), list(AllPairs([SOURCES, list(SCALES), list(SHAPES.values())]))
)
def test_hdf5_holds_the_split_bit_for_bit(set_up, source, scale, shape):
    workdir = set_up(shape=shape)
    run(workdir, source=source, format="hdf5", scale=scale)
    for part in parts_of(source):
        split = expected_of(source, part, shape=shape)
        name = part if source == "data" else "generated"
        with h5py.File(workdir / "export" / f"{name}.h5") as file:
            images = split.images * np.float32(SCALES[scale])
            for key, value in (
                ("images", images),
                ("labels", split.labels),
                ("parameters", split.parameters),
            ):
                assert file[key].dtype == value.dtype
                assert file[key].shape == value.shape
                assert file[key][()].tobytes() == value.tobytes()
            assert file["images"].chunks is not None
            for key, names in (
                ("class_names", CLASS_NAMES),
                ("parameter_names", split.info.parameter_names),
            ):
                assert h5py.check_string_dtype(file[key].dtype).encoding == "utf-8"
                assert tuple(file[key].asstr()[()]) == names
            attributes = dict(file.attrs)
            made = source == "generated"
            assert attributes == {
                "data_set": split.info.name,
                "fingerprint": split.info.fingerprint,
                "flux_unit": "counts/s" if scale == "flux" else "counts/s x 2",
                "scale_factor": SCALES[scale],
                "pixel_scale_arcsec": 0.1,
                "psf_fwhm_arcsec": 0.16,
                "zero_point_mag": 24 + 2.5 * math.log10(SCALES[scale]),
                **({"seed": 17, "weights_sha256": META["weights_sha256"]} if made else {}),
            }


def test_images_are_written_in_blocks(set_up, monkeypatch):
    monkeypatch.setattr(export_formats, "_BLOCK", 3)
    monkeypatch.setattr(export_hdf5, "_CHUNK_BYTES", 2 * 4 * 256)
    workdir = set_up()
    for file_format in FORMATS:
        run(workdir, format=file_format, split="train", folder=str(workdir / file_format))
    split = make_split()
    with h5py.File(workdir / "hdf5" / "train.h5") as file:
        assert file["images"].chunks == (2, 16, 16, 1)
        assert file["images"][()].tobytes() == split.images.tobytes()
    last = workdir / "npy" / "train" / CLASS_NAMES[split.labels[-1]] / "000006.npy"
    assert np.array_equal(np.load(last), split.images[-1, ..., 0])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("file_format", FORMATS)
def test_the_record_says_where_the_images_come_from(set_up, source, file_format):
    workdir = set_up()
    run(workdir, source=source, format=file_format, scale="published")
    record = json.loads((workdir / "export" / EXPORT_FILE).read_text())
    info = make_split().info
    assert record["complete"] is True
    assert record["source"] == source
    assert record["format"] == file_format
    assert (record["scale"], record["scale_factor"]) == ("published", 2.0)
    assert record["data_set"] == info.name
    assert record["fingerprint"] == info.fingerprint
    assert record["pixel_scale_arcsec"] == 0.1
    assert record["psf_fwhm_arcsec"] == 0.16
    assert record["class_names"] == list(CLASS_NAMES)
    assert record["num_images"] == (SIZES if source == "data" else {"generated": 7})
    assert "jax" in record["versions"]
    assert record["generated"] == (META if source == "generated" else None)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_one_split_is_exported_alone(set_up, tmp_path, file_format, split):
    folder = tmp_path / "elsewhere" / "files"
    run(set_up(), format=file_format, split=split, folder=str(folder))
    name = f"{split}.h5" if file_format == "hdf5" else split
    assert {path.name for path in folder.iterdir()} == {name, EXPORT_FILE}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("file_format", FORMATS)
def test_an_unlabelled_set_lies_flat(set_up, source, file_format):
    workdir = set_up(class_names=())
    run(workdir, source=source, format=file_format)
    run(workdir, source=source, format=file_format)  # and is replaced
    folder = folder_of(workdir / "export", source, "train")
    if file_format == "hdf5":
        name = "train" if source == "data" else "generated"
        with h5py.File(workdir / "export" / f"{name}.h5") as file:
            assert file["class_names"].shape == (0,)
        return
    rows = rows_of(folder)
    assert [row["file"] for row in rows] == [f"{i:06d}.{file_format}" for i in range(7)]
    assert {row["class_name"] for row in rows} == {""}
    assert (folder / "000006").with_suffix(f".{file_format}").exists()
    if file_format == "fits":
        assert "CLASS" not in fits.getheader(folder / "000000.fits")


def test_a_repeated_export_replaces_its_own_and_nothing_else(set_up):
    workdir = set_up()
    folder = workdir / "export"
    run(workdir)
    (folder / "train" / "axion" / "999999.npy").write_text("left by a larger set")
    (folder / "notes.txt").write_text("mine")
    run(workdir, format="hdf5", split="test")
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "test.h5", EXPORT_FILE}
    run(workdir, source="generated")
    names = {*CLASS_NAMES, "parameters.csv", "notes.txt", EXPORT_FILE}
    assert {path.name for path in folder.iterdir()} == names
    run(workdir)
    assert {path.name for path in folder.iterdir()} == {*SIZES, "notes.txt", EXPORT_FILE}
    assert not (folder / "train" / "axion" / "999999.npy").exists()
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"written_by": "me", "contents": ["mine.npy"]}', "null"]
)
def test_a_folder_that_no_export_wrote_is_refused_and_left_alone(set_up, tmp_path, content):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.npy").write_text("dear")
    (folder / EXPORT_FILE).write_text(content)
    workdir = set_up()
    for source in ("data", "generated"):
        with pytest.raises(ConfigError, match=r"export.folder: got .*mine.*not written by an exp"):
            run(workdir, source=source, folder=str(folder))
    assert (folder / "mine.npy").read_text() == "dear"
    assert (folder / EXPORT_FILE).read_text() == content
    assert len(list(folder.iterdir())) == 2


def test_a_file_in_the_place_of_the_folder_is_refused(set_up, tmp_path):
    (tmp_path / "file").write_text("dear")
    with pytest.raises(ConfigError, match=r"export\.folder: got"):
        run(set_up(), folder=str(tmp_path / "file"))


def test_what_came_into_an_export_by_another_hand_is_not_overwritten(set_up):
    workdir = set_up()
    run(workdir, split="test")
    mine = workdir / "export" / "train" / "mine.npy"
    mine.parent.mkdir()
    mine.write_text("dear")
    with pytest.raises(ConfigError, match="train already exists and was not written by an export"):
        run(workdir)
    assert mine.read_text() == "dear"
    assert (workdir / "export" / "test" / "axion" / "000000.npy").exists()


@pytest.mark.parametrize("pattern", ["../precious", "/", "..", "", "a/../../precious", "."])
def test_an_edited_record_removes_nothing_outside_its_folder(set_up, pattern):
    workdir = set_up()
    (workdir / "precious").mkdir()
    run(workdir, split="test")
    path = workdir / "export" / EXPORT_FILE
    record = json.loads(path.read_text())
    record["contents"].append(pattern)
    path.write_text(json.dumps(record))
    run(workdir, split="test")
    assert (workdir / "precious").is_dir()
    assert (workdir / "export" / "test").is_dir()


def test_an_export_that_was_stopped_can_be_repeated(set_up, monkeypatch):
    workdir = set_up()
    write = export_formats._write_npy

    def stop(path, image, index):
        if index == 3:
            raise KeyboardInterrupt
        write(path, image, index)

    with monkeypatch.context() as patch:
        patch.setattr(export_formats, "_write_npy", stop)
        with pytest.raises(KeyboardInterrupt):
            run(workdir)
    assert not (workdir / "export").exists()
    run(workdir)
    path = workdir / "export" / EXPORT_FILE
    assert json.loads(path.read_text())["complete"] is True
    assert len(list((workdir / "export").rglob("*.npy"))) == sum(SIZES.values())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_is_cut_short_leaves_the_earlier_export(set_up, file_format):
    workdir = set_up()
    run(workdir, format="npy", split="test")
    (workdir / "export" / "notes.txt").write_text("mine")
    before = sorted(path.relative_to(workdir) for path in workdir.rglob("*"))

    def refused() -> str:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        sys.stderr = io.StringIO()  # pytest's own is a file, for which the limit holds too
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
        try:
            run(workdir, format=file_format)
        except FileError as error:
            return str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return "written"

    message = in_fork(refused)()
    assert "export" in message.partition(" cannot be written: ")[0]
    assert message.endswith("; the earlier export is as it was")
    assert sorted(path.relative_to(workdir) for path in workdir.rglob("*")) == before
    run(workdir, format=file_format)
    assert (workdir / "export" / "notes.txt").read_text() == "mine"
    assert not (workdir / "export" / "test" / "axion" / "000000.npy").exists() or (
        file_format == "npy"
    )


def test_an_export_that_needs_more_room_than_there_is_is_refused_before(set_up, monkeypatch):
    workdir = set_up()
    status = os.statvfs(workdir)
    little = types.SimpleNamespace(f_bavail=1, f_frsize=1024, f_files=100, f_favail=50)
    monkeypatch.setattr(os, "statvfs", lambda path: little)
    for file_format in FORMATS:
        message = r"export cannot be written: it needs about .* but 1\.0 KiB are free in .*room"
        with pytest.raises(FileError, match=message):
            run(workdir, format=file_format)
    monkeypatch.setattr(os, "statvfs", lambda path: status)
    run(workdir)


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_room_that_is_asked_for_is_about_what_an_export_takes(set_up, file_format):
    workdir = set_up()
    run(workdir, format=file_format)
    info = make_split().info
    asked, num_files = export_formats.export_size(info, sum(SIZES.values()), file_format)
    written = [path for path in (workdir / "export").rglob("*") if path.is_file()]
    taken = sum(path.stat().st_blocks * 512 for path in written)
    assert 0.4 < asked / taken < 2.5
    assert abs(num_files - len(written)) < 5


def test_a_disk_that_is_full_is_said_in_one_line(set_up, monkeypatch):
    def full(path, image, index):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_formats, "_write_npy", full)
    with pytest.raises(FileError, match=r"export cannot be written: No space left .* are free in"):
        run(set_up())


@pytest.mark.parametrize(
    ("file_format", "package"), [("hdf5", "h5py"), ("fits", "astropy")], ids=lambda text: text
)
def test_a_missing_package_is_named_with_what_installs_it(
    set_up, monkeypatch, file_format, package
):
    workdir = set_up()
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"needs {package}.* pip install 'lensjax\[files\]'"):
        run(workdir, format=file_format)
    assert not (workdir / "export").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "..", "/", "/etc", ""])
def test_a_class_that_cannot_be_a_folder_is_refused(set_up, name):
    workdir = set_up(class_names=("fine", name, "other"))
    for source in SOURCES:
        # A run's own `dataset.json` may not have a class without a name at all.
        with pytest.raises(UserError, match=r"cannot be the name of a folder|class_names is"):
            run(workdir, source=source)
    assert not (workdir / "export").exists()


def test_generated_images_that_are_not_there_are_asked_for(set_up):
    workdir = set_up()
    (workdir / "generated" / "meta.json").unlink()
    with pytest.raises(WorkdirError, match=r"holds no images; draw them first \(--mode=sample\)"):
        run(workdir, source="generated")


@pytest.mark.parametrize("damage", ["fewer images", "fewer labels", "no array", "no labels"])
def test_generated_images_that_do_not_fit_together_are_refused(set_up, damage):
    workdir = set_up()
    images, labels = (workdir / "generated" / f"{name}.npy" for name in ("images", "labels"))
    if damage == "fewer images":
        np.save(images, np.load(images)[:3])
    elif damage == "fewer labels":
        np.save(labels, np.load(labels)[:3])
    elif damage == "no array":
        images.write_text("text")
    else:
        labels.unlink()
    with pytest.raises(WorkdirError, match="generated"):
        run(workdir, source="generated")
    assert not (workdir / "export").exists()


def test_a_run_of_before_there_were_zero_points_is_exported(set_up):
    workdir = set_up()
    dataset = json.loads((workdir / "dataset.json").read_text())
    del dataset["psf_fwhm_arcsec"], dataset["zero_point_mag"]
    write_json(workdir / "dataset.json", dataset)
    run(workdir, source="generated", format="fits")
    header = fits.getheader(workdir / "export" / "axion" / "000000.fits")
    assert "MAGZERO" not in header
    assert "PSFFWHM" not in header
    assert header["PIXSCALE"] == 0.1


def test_generated_images_belong_to_the_configuration_of_their_workdir(set_up):
    workdir = set_up()
    with pytest.raises(ConfigError, match="it belongs to another configuration"):
        export_mode(tiny_config(export={"source": "generated"}, model={"depth": 2}), workdir)


def test_the_formats_of_the_configuration_are_those_that_are_written():
    with pytest.raises(ConfigError) as caught:
        tiny_config(export={"format": "png"})
    for name in export_formats.FORMATS:
        assert name in str(caught.value)
    assert exporting.GENERATED_PART not in SIZES
