"""The first reading of a folder: bad files, the split by content, and what identifies a set."""

import itertools
import os
import pathlib
import pickle

import numpy as np
import pytest
from folder_support import (
    CLASSES,
    SIDE,
    WRITERS,
    counts,
    object_array,
    pixels,
    prepare,
    scan,
    write,
    write_classes,
    write_flat,
)

from lensjax.data.dataset import DataError
from lensjax.data.file_image import BadFileError
from lensjax.data.folder_image import digest_of

# The axes of one file of four images, or of each of four files of one.
SHAPES: dict[str, tuple[int, ...]] = {
    "HW": (SIDE, SIDE),
    "1HW": (1, SIDE, SIDE),
    "HW1": (SIDE, SIDE, 1),
    "HW3": (SIDE, SIDE, 3),
    "NHW": (8, SIDE, SIDE),
    "N1HW": (8, 1, SIDE, SIDE),
    "NHW3": (8, SIDE, SIDE, 3),
    "N3HW": (8, 3, SIDE, SIDE),
}
DTYPES = ("f2", "f4", "f8", ">f2", ">f4", ">f8", "u1", "i2", ">i4", "u8")
OF_FITS = ("f4", "f8", ">f4", ">f8", "u1", "i2", ">i4")


def stored(seed: int, shape: str, dtype: str) -> np.ndarray:
    return counts(seed, SHAPES[shape]).astype(dtype)


def as_images(array: np.ndarray, shape: str) -> np.ndarray:
    """The same as float32 `[N, H, W, C]`, spelt out for each."""
    array = array.astype(np.float32)
    return {
        "HW": lambda: array[None, :, :, None],
        "1HW": lambda: array[:, :, :, None],
        "HW1": lambda: array[None],
        "HW3": lambda: array[None],
        "NHW": lambda: array[..., None],
        "N1HW": lambda: array.transpose(0, 2, 3, 1),
        "NHW3": lambda: array,
        "N3HW": lambda: array.transpose(0, 2, 3, 1),
    }[shape]()


def expected_digests(shape: str, files: int) -> list[bytes]:
    images = np.concatenate([as_images(stored(i, shape, "f4"), shape) for i in range(files)])
    return [digest_of(image) for image in images]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", WRITERS)
def test_container_layout_and_number_type_do_not_matter(tmp_path, suffix, shape):
    files = 1 if shape.startswith("N") else 4
    fingerprints = set()
    for dtype in OF_FITS if "fits" in suffix else DTYPES:
        root = tmp_path / dtype.replace(">", "big_")
        root.mkdir()
        for index in range(files):
            WRITERS[suffix](root / f"{index}{suffix}", stored(index, shape, dtype))
        found = scan(root)
        channels = 3 if "3" in shape else 1
        assert found.image_shape == (SIDE, SIDE, channels)
        assert found.class_names == ()
        assert sorted(image.digest for image in found.images) == sorted(
            expected_digests(shape, files)
        )
        assert found.integer
        fingerprints.add(found.fingerprint)
    assert len(fingerprints) == 1
    plain = tmp_path / "plain"
    for index in range(files):
        for place, image in enumerate(as_images(stored(index, shape, "f4"), shape)):
            write(plain / f"{index}_{place}.npy", image)
    assert scan(plain).fingerprint in fingerprints


@pytest.mark.parametrize("size", [(8, 8), (37, 50), (150, 150), (64, 8)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_size_and_memory_order(tmp_path, size, order):
    for index in range(3):
        write(tmp_path / f"{index}.npy", np.asarray(pixels(index, size), order=order))
    found = scan(tmp_path)
    assert found.image_shape == (*size, 1)
    expected = {digest_of(pixels(index, (*size, 1)).astype("f4")) for index in range(3)}
    assert {image.digest for image in found.images} == expected


def test_a_layout_that_is_set_is_obeyed(tmp_path):
    for index in range(2):
        write(tmp_path / f"{index}.npy", pixels(index, (3, SIDE, SIDE)))
    with pytest.raises(BadFileError, match=r"0\.npy: has the shape .* set data\.layout=NHW or"):
        scan(tmp_path)
    assert scan(tmp_path, layout="CHW").image_shape == (SIDE, SIDE, 3)
    assert len(scan(tmp_path, layout="NHW").images) == 6


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i4"])
@pytest.mark.parametrize("shape", ["HW", "1HW", "HW3"])
def test_object_arrays_give_the_mass(tmp_path, dtype, shape):
    masses = [10.0**-power for power in (22, 23, 24)]
    for index, mass in enumerate(masses):
        image = stored(index, shape, dtype)
        write(tmp_path / "vort" / f"{index}.npy", object_array(image, mass))
        write(tmp_path / "no" / f"{index}.npy", stored(10 + index, shape, dtype))
    found = scan(tmp_path)
    assert found.class_names == ("axion", "no_sub")
    assert found.parameter_names == ("log10_axion_mass",)
    wanted = {digest_of(as_images(stored(i, shape, "f4"), shape)[0]) for i in range(3)}
    assert {one.digest for one in found.images if one.parameters_digest} == wanted
    assert {one.class_name for one in found.images if one.parameters_digest} == {"axion"}


def test_labels_within_a_file_are_classes(tmp_path):
    images, names = pixels(0, (9, SIDE, SIDE)), ["vort", "no", "sphere"] * 3
    np.savez(tmp_path / "all.npz", images=images, labels=names)
    found = scan(tmp_path)
    assert found.class_names == CLASSES
    for image in found.images:
        assert image.class_name == ("axion", "no_sub", "cdm")[image.number % 3]


# Bad files -------------------------------------------------------------------------------------


class Bomb:
    """Leaves a file behind if anybody unpickles it."""

    def __init__(self, flag: pathlib.Path) -> None:
        self.flag = flag

    def __reduce__(self):
        return (os.system, (f"touch {self.flag}",))


def with_pixel(value: float) -> np.ndarray:
    image = pixels(7)
    image[3, 4] = value
    return image


def truncated(path: pathlib.Path) -> None:
    write(path, pixels(7))
    path.write_bytes(path.read_bytes()[:-50])


def text(path: pathlib.Path) -> None:
    path.write_text("no image at all, but text")


def with_bytes(data: bytes):
    return lambda path: path.write_bytes(data)


def holding(array: np.ndarray):
    return lambda path: write(path, array)


def loop(path: pathlib.Path) -> None:
    path.symlink_to(path)


def pipe(path: pathlib.Path) -> None:
    os.mkfifo(path)


def stack_with_nan(path: pathlib.Path) -> None:
    stack = pixels(7, (5, SIDE, SIDE))
    stack[3, 0, 0] = np.nan
    write(path, stack)


BAD = {
    "NaN": (holding(with_pixel(np.nan)), "1 of 144 pixels that are NaN or infinite"),
    "infinite": (holding(with_pixel(-np.inf)), "NaN or infinite"),
    "nothing finite": (holding(np.full((SIDE, SIDE), np.nan)), "has no finite pixel"),
    "NaN in a stack": (stack_with_nan, r"NaN or infinite; .* in \[3\]"),
    "another shape": (
        holding(pixels(7, (SIDE, SIDE + 1))),
        "12x13x1 .* 12 of 13 images have 12x12",
    ),
    "more channels": (holding(pixels(7, (SIDE, SIDE, 3))), "12x12x3"),
    "truncated": (truncated, "truncated: it has"),
    "text": (text, "is text, not what its suffix .npy says"),
    "0 bytes": (with_bytes(b""), "empty: it has 0 bytes"),
    "noise": (with_bytes(bytes(range(256))), "another kind, or damaged"),
    "complex": (holding(pixels(7) + 1j), "holds complex numbers"),
    "true or false": (holding(pixels(7) > 1), "holds true-or-false values"),
    "text array": (holding(np.full((SIDE, SIDE), "a")), "holds text"),
    "one axis": (holding(pixels(7, (500,))), "an image has at least two axes"),
    "no pixels": (holding(pixels(7, (0, SIDE))), "is empty"),
    "too small": (holding(pixels(7, (7, 7))), "a side has at least 8"),
    "beyond float32": (holding(with_pixel(1e39)), "beyond 3.4e38"),
    "objects: text": (holding(object_array(pixels(7), "mass")), "element 1 is text"),
    "objects: no image": (holding(object_array(None, 1e-22)), "element 0 is the value None"),
    "objects: mass 0": (holding(object_array(pixels(7), 0.0)), "a number above 0"),
    "link in a circle": (loop, "Too many levels of symbolic links"),
    "pipe": (pipe, "is a device, not a file"),
    "Git LFS": (with_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_before_anything_is_written(tmp_path, kind):
    make, words = BAD[kind]
    root = write_classes(tmp_path / "root")
    bad = root / "cdm" / "bad file.npy"
    make(bad)
    with pytest.raises(BadFileError, match=words) as caught:
        prepare(root, tmp_path / "sets")
    assert str(caught.value).startswith(f"{bad}: ")
    assert "data.on_bad_file=skip" in str(caught.value)
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_left_out_and_listed_on_demand(tmp_path, kind):
    make, _ = BAD[kind]
    root = write_classes(tmp_path / "root")
    good = scan(root)
    bad = root / "cdm" / "bad file.npy"
    make(bad)
    found = scan(root, on_bad_file="skip")
    assert [error.path for error in found.bad] == [bad]
    assert found.fingerprint == good.fingerprint
    assert {image.digest for image in found.images} == {image.digest for image in good.images}


@pytest.mark.parametrize("split", [("",), ("train", "test")])
@pytest.mark.parametrize("kind", ["NaN", "text", "another shape", "link in a circle"])
def test_a_class_that_loses_all_its_files_is_an_error(tmp_path, kind, split):
    root = tmp_path / "root"
    for number, name in enumerate(split):
        write_classes(root / name, seed=10 * number)
    bad = root / split[-1] / "cdm"
    for index, path in enumerate(sorted(bad.iterdir())):
        path.unlink()
        if index < 2:
            BAD[kind][0](path)
    for policy in ("refuse", "skip"):
        with pytest.raises(DataError) as caught:
            prepare(root, tmp_path / "sets", on_bad_file=policy)
        assert "cdm" in str(caught.value)
        assert str(bad / "000.npy") in str(caught.value)  # why it has none
    assert "no image in" in str(caught.value)
    assert not (tmp_path / "sets").exists()


def test_a_class_that_keeps_one_image_is_an_error_too(tmp_path):
    write_classes(tmp_path)
    for index in range(3):
        text(tmp_path / "cdm" / f"{index:03d}.npy")
    with pytest.raises(DataError, match=r"class cdm has one image .*003.npy; .*3 bad files"):
        scan(tmp_path, on_bad_file="skip")


def test_nothing_usable_is_an_error(tmp_path):
    for name in ("a", "b"):
        text(tmp_path / f"{name}.npy")
    with pytest.raises(
        DataError, match=r"no image of .* can be used; 2 bad files .*a\.npy: is tex"
    ):
        scan(tmp_path, on_bad_file="skip")


@pytest.mark.parametrize("flat", [True, False])
def test_one_image_alone_is_refused(tmp_path, flat):
    write_flat(tmp_path, 1) if flat else write_classes(tmp_path, num=1)
    who = "the set" if flat else "class axion"
    with pytest.raises(DataError, match=rf"{who} has one image .*000\.npy"):
        scan(tmp_path)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_one_image_are_one_image(tmp_path, copies):
    write_classes(tmp_path)
    for path in (tmp_path / "cdm").iterdir():
        path.unlink()
    for index in range(copies):
        write(tmp_path / "cdm" / f"{index}.npy", pixels(1))
    with pytest.raises(DataError, match="class cdm has one image"):
        scan(tmp_path)


def test_a_file_that_would_run_code_is_refused_by_name(tmp_path):
    write_flat(tmp_path / "root")
    flag, bad = tmp_path / "flag", tmp_path / "root" / "zzz.npy"
    write(bad, object_array(pixels(1), Bomb(flag)))
    with pytest.raises(BadFileError, match=r"zzz\.npy: "):
        prepare(tmp_path / "root", tmp_path / "sets")
    assert len(scan(tmp_path / "root", on_bad_file="skip").bad) == 1
    assert not flag.exists()
    pickle.loads(pickle.dumps(Bomb(flag)))
    assert flag.exists(), "the bomb is none"


def test_a_file_without_a_class_among_others_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=pixels(0, (6, SIDE, SIDE)), labels=["x", "y"] * 3)
    write(tmp_path / "b.npy", pixels(1))
    with pytest.raises(BadFileError, match=r"b\.npy: has an image without a class, others have"):
        scan(tmp_path)
    assert scan(tmp_path, on_bad_file="skip").class_names == ("x", "y")


@pytest.mark.parametrize("label", ["sphere", "two\nlines"])
def test_a_class_within_a_file_is_checked(tmp_path, label):
    write_classes(tmp_path, ("cdm", "no"))
    np.savez(tmp_path / "no" / "a.npz", images=pixels(9, (1, SIDE, SIDE)), labels=[label])
    words = "says cdm, its folder no_sub" if label == "sphere" else "not one line of printable"
    with pytest.raises(BadFileError, match=rf"a\.npz: .*{words}"):
        scan(tmp_path)


# FITS and what a file says ---------------------------------------------------------------------


def fits(path: pathlib.Path, image: np.ndarray, extension: bool = False, **header: object) -> None:
    from astropy.io import fits as astropy_fits

    path.parent.mkdir(parents=True, exist_ok=True)
    keywords = astropy_fits.Header(header)
    hdus = [astropy_fits.PrimaryHDU(header=keywords), astropy_fits.ImageHDU(image)]
    one = astropy_fits.PrimaryHDU(image, keywords)
    astropy_fits.HDUList(hdus if extension else [one]).writeto(path)


@pytest.mark.parametrize("extension", [False, True])
def test_fits_keeps_what_its_header_says(tmp_path, extension):
    for index in range(3):
        said = {"BUNIT": "nJy", "MAGZERO": 31.4, "EXPTIME": 100.0 + index, "PIXSCALE": 0.2}
        fits(tmp_path / f"{index}.fits", pixels(index), extension, **said)
    found = scan(tmp_path)
    assert found.flux_unit == "nJy"
    assert found.zero_point_mag == 31.4
    assert found.pixel_scale_arcsec == 0.2
    assert found.psf_fwhm_arcsec is None
    assert found.parameter_names == ("exposure_time_s", "zero_point_mag")


@pytest.mark.parametrize("other", ["BUNIT", "MAGZERO", "PIXSCALE", "PSFFWHM", "EXPTIME"])
def test_what_a_header_says_is_part_of_the_identity(tmp_path, other):
    common = {"BUNIT": "nJy", "MAGZERO": 31.4, "PIXSCALE": 0.2, "EXPTIME": 100.0, "PSFFWHM": 0.5}
    changed = common | {other: "Jy" if other == "BUNIT" else 7.5}
    for name, header in (("a", common), ("b", changed), ("c", common)):
        for index in range(3):
            fits(tmp_path / name / f"{index}.fits", pixels(index), **header)
    first, second, third = (scan(tmp_path / name).fingerprint for name in "abc")
    assert first == third != second


def test_facts_that_differ_between_images_are_unknown_for_the_set(tmp_path):
    for index in range(3):
        fits(tmp_path / f"{index}.fits", pixels(index), PIXSCALE=0.2 + 0.01 * index, MAGZERO=30.0)
    found = scan(tmp_path)
    assert found.pixel_scale_arcsec is None
    assert found.zero_point_mag == 30.0


def test_images_in_different_units_are_refused_by_name(tmp_path):
    for index, unit in enumerate(("nJy", "nJy", "adu")):
        fits(tmp_path / f"{index}.fits", pixels(index), BUNIT=unit)
    with pytest.raises(DataError, match=r"units: .*0\.fits has nJy; .*2\.fits has adu"):
        scan(tmp_path)


def test_files_that_are_left_out_have_no_say(tmp_path):
    """Their units, parameters and number types do not count."""
    for index in range(4):
        fits(tmp_path / f"{index}.fits", pixels(index), BUNIT="nJy", PIXSCALE=0.2)
    good = scan(tmp_path)
    for index in range(4, 7):
        image = counts(index, (SIDE, SIDE + 1))
        fits(tmp_path / f"{index}.fits", image, BUNIT="adu", EXPTIME=3.0, PIXSCALE=0.3)
    found = scan(tmp_path, on_bad_file="skip")
    assert len(found.bad) == 3
    fields = ("flux_unit", "parameter_names", "pixel_scale_arcsec", "integer", "fingerprint")
    assert [getattr(found, name) for name in fields] == [getattr(good, name) for name in fields]
    assert not found.integer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (counts(0), True),
        (counts(0).astype("f8"), True),
        (-counts(0).astype("i2"), True),
        (counts(0) + 0.5, False),
        (counts(0) * 1e9 + 2.0**25, False),  # float32 has no digits behind the point there
    ],
)
def test_integer_means_whole_numbers(tmp_path, values, expected):
    write(tmp_path / "a.npy", values)
    write(tmp_path / "b.npy", values + 1)
    assert scan(tmp_path).integer == expected


# Pixels that are not finite --------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("policy", ["mask", "fill"])
def test_policies_for_pixels_that_are_not_finite(tmp_path, policy, value):
    write_flat(tmp_path / "root", 4)
    image = pixels(7)
    image[2, 3] = value
    write(tmp_path / "root" / "bad.npy", image)
    rest = np.delete(image.reshape(-1), 2 * SIDE + 3)
    image[2, 3] = np.nan if policy == "mask" else np.median(rest.astype("f4"))
    expected = digest_of(image.astype("f4")[..., None])
    (found,) = (one for one in scan(tmp_path / "root", nan_policy=policy).images if one.not_finite)
    assert found.digest == expected
    assert found.not_finite == 1
    assert (found.minimum, found.maximum) == (rest.min(), rest.max())
    split = [
        prepare(tmp_path / "root", tmp_path / "sets", nan_policy=policy).read(name)
        for name in ("train", "test")
    ]
    stored_images = np.concatenate([one.images for one in split])
    assert np.isnan(stored_images).sum() == (policy == "mask")
    assert split[0].info.masked == (policy == "mask")
    assert np.isfinite([split[0].info.minimum, split[0].info.maximum]).all()


def test_a_policy_without_a_use_changes_nothing(tmp_path):
    write_classes(tmp_path)
    assert len({scan(tmp_path, nan_policy=name).fingerprint for name in ("refuse", "mask")}) == 1
    assert not prepare(tmp_path, tmp_path.with_suffix(".sets"), nan_policy="mask").info().masked


# The split by content --------------------------------------------------------------------------


def sides(found) -> dict[bytes, str]:
    return {image.digest: image.split for image in found.images}


def test_the_split_is_stable_when_files_are_renamed_and_others_added(tmp_path):
    root = write_classes(tmp_path / "a", num=60)
    before = sides(scan(root))
    for number, path in enumerate(sorted(root.glob("*/*.npy"))):
        path.rename(path.with_name(f"{(number * 37) % 1000}_renamed.npy"))
    assert sides(scan(root)) == before
    write_classes(root, num=90, seed=100_000)
    after = sides(scan(root))
    assert len(after) == 3 * 150
    assert {digest: after[digest] for digest in before} == before


@pytest.mark.parametrize("share", [0.001, 0.05, 0.1, 0.5, 0.9])
def test_the_share_is_near_what_is_asked_and_neither_side_is_empty(tmp_path, share):
    stack = pixels(0, (2000, 8, 8))
    write(tmp_path / "stack.npy", stack)
    found = scan(tmp_path, test_share=share)
    num = len(found.of_split("test"))
    assert num + len(found.of_split("train")) == 2000
    assert abs(num - 2000 * share) <= 4.5 * np.sqrt(2000 * share * (1 - share)) + 1
    assert num >= 1


@pytest.mark.parametrize("num", [2, 3, 5])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.9])
def test_small_classes_have_both_splits(tmp_path, num, share):
    for seed in range(15):
        root = write_classes(tmp_path / str(seed), num=num, seed=100 * seed)
        found = scan(root, test_share=share)
        have = {(image.class_name, image.split) for image in found.images}
        assert have == set(itertools.product(CLASSES, ("train", "test")))


def test_copies_are_on_one_side(tmp_path):
    write_classes(tmp_path, num=30)
    for index in range(30):
        write(tmp_path / "cdm" / f"copy_{index}.npy", pixels(1000 + index).astype(">f4"))
        write(tmp_path / "cdm" / f"another_{index}.npy", pixels(1000 + index)[None])
    found = scan(tmp_path, test_share=0.4)
    assert len(found.images) == 150
    assert len({(one.digest, one.split) for one in found.images}) == 90


# Own folders for the splits --------------------------------------------------------------------


def write_splits(root: pathlib.Path) -> pathlib.Path:
    for number, name in enumerate(("train", "test")):
        write_classes(root / name, seed=50 * number)
    return root


def test_own_splits_are_respected(tmp_path):
    write_splits(tmp_path)
    found = scan(tmp_path, test_share=0.9)
    for image in found.images:
        assert image.split == found.listing.files[image.file].split
    assert len(found.of_split("train")) == len(found.of_split("test")) == 12


@pytest.mark.parametrize("across", ["cdm", "no_sub"])
def test_an_image_in_both_splits_is_refused_or_its_training_copy_left_out(tmp_path, across):
    write_splits(tmp_path)
    leak = pixels(1001)  # the second of cdm in train
    write(tmp_path / "test" / across / "leak.npy", leak.astype("f4"))
    words = r"train/cdm/001\.npy: has an image of the test split, .*leak\.npy; a test on it"
    with pytest.raises(BadFileError, match=words):
        scan(tmp_path)
    found = scan(tmp_path, on_bad_file="skip")
    assert [str(error.path) for error in found.bad] == [str(tmp_path / "train/cdm/001.npy")]
    digest = digest_of(leak.astype("f4")[..., None])
    assert [one.split for one in found.images if one.digest == digest] == ["test"]
    assert len(found.images) == 24


def test_of_a_stack_the_leaked_image_alone_is_left_out(tmp_path):
    train, test = pixels(0, (20, SIDE, SIDE)), pixels(1, (5, SIDE, SIDE))
    test[3] = train[13]
    write(tmp_path / "train" / "stack.npy", train)
    write(tmp_path / "test" / "stack.npy", test)
    with pytest.raises(BadFileError, match=r"train/stack\.npy: has in \[13\] an image of the test"):
        scan(tmp_path)
    found = scan(tmp_path, on_bad_file="skip")
    assert [image.number for image in found.of_split("train")] == [*range(13), *range(14, 20)]
    assert len(found.of_split("test")) == 5


def test_a_class_that_is_all_leaks_is_an_error(tmp_path):
    write_splits(tmp_path)
    for path in (tmp_path / "train" / "cdm").iterdir():
        write(tmp_path / "test" / "cdm" / f"x{path.name}", np.load(path))
    with pytest.raises(DataError, match=r"class cdm has no image in the train split .*4 bad files"):
        scan(tmp_path, on_bad_file="skip")
