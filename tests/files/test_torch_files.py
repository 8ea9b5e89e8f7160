"""PyTorch's files: real ones of both formats are read, and nothing that a file asks for runs."""

import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest
from payload_support import PAYLOADS, check_payload
from run_support import DATA
from torch_support import (
    MAGIC,
    dictionary,
    integer,
    integers,
    legacy,
    pickled,
    storage,
    tensor,
    text,
    write_arrays,
    write_zip,
)

from lensjax.errors import WeightsError
from lensjax.files.torch_files import load_tensors

with np.load(DATA / "torch_files.npz") as _file:
    EXPECTED = {name: _file[name] for name in _file.files}
FORMATS = ("zip", "legacy")
RAW = np.arange(6, dtype="<f4").tobytes()


def write(path: pathlib.Path, content: bytes, form: str, storages=(RAW,)) -> pathlib.Path:
    if form == "zip":
        return write_zip(path, content, storages)
    path.write_bytes(legacy(content, storages))
    return path


def stored(form: str, key: str = "0", size: int = 6, kind: str = "FloatStorage") -> bytes:
    return storage(key, size, kind, b"N" if form == "legacy" else b"")


@pytest.mark.parametrize("form", FORMATS)
def test_real_files_are_read(form):
    found = load_tensors(DATA / f"torch_{form}.pth")
    assert list(found) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        assert found[name].dtype.name == ("bfloat16" if name == "bfloat16" else expected.dtype)
        np.testing.assert_array_equal(found[name].astype(expected.dtype), expected, strict=True)
        assert not found[name].flags.writeable or found[name].size == 0
    for view in ("rows", "transposed"):
        assert np.shares_memory(found[view], found["whole"])
    assert np.shares_memory(found["tied"], found["parameter"])
    assert not np.shares_memory(found["kernel"], found["whole"])


@pytest.mark.parametrize("form", FORMATS)
def test_every_truncation_of_a_real_file_is_refused(tmp_path, form):
    data = (DATA / f"torch_{form}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(data), 23):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"cut\.pth: "):
            load_tensors(path)


@pytest.mark.parametrize("form", FORMATS)
def test_damage_anywhere_is_refused_or_read(tmp_path, form):
    """Whatever a file holds, there is no other error; the zip has a checksum of each member."""
    data = (DATA / f"torch_{form}.pth").read_bytes()
    path = tmp_path / "damaged.pth"
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            found = load_tensors(path)
        except WeightsError:
            continue
        assert all(isinstance(array, np.ndarray) for array in found.values())


@pytest.mark.parametrize("form", FORMATS)
def test_what_the_writer_of_these_tests_writes_is_read(tmp_path, form):
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.arange(4, dtype=np.float32)}
    found = load_tensors(write_arrays(tmp_path / "plain.pth", arrays, form))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((2, 2), (3, 1), 1), ((2, 2), (1, 3), 0), ((), (), 5), ((2,), (5,), 0), ((1, 0), (9, 9), 6)],
)
def test_views_are_what_their_strides_say(tmp_path, form, shape, strides, offset):
    content = dictionary({"view": tensor(stored(form), shape, strides, offset)})
    found = load_tensors(write(tmp_path / "view.pth", content, form))["view"]
    assert found.shape == shape
    for index in np.ndindex(*shape):
        assert found[index] == offset + np.dot(index, strides)


@pytest.mark.parametrize("order", ["little", "big", None])
@pytest.mark.parametrize("folder", ["archive/", "a/b/c/", ""])
@pytest.mark.parametrize("kind", ["<f4", "<f8", "<i8"])
def test_byte_orders_and_folders(tmp_path, order, folder, kind):
    values = np.arange(6, dtype=kind)
    names = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<i8": "LongStorage"}
    content = dictionary({"x": tensor(storage("0", 6, names[kind]), (6,), (1,))})
    raw = values.astype(values.dtype.newbyteorder(">" if order == "big" else "<")).tobytes()
    path = write_zip(tmp_path / "order.pth", content, [raw], folder, order)
    np.testing.assert_array_equal(load_tensors(path)["x"], values, strict=True)


def test_true_and_false_are_read_whatever_byte_stands_for_true(tmp_path):
    content = dictionary({"x": tensor(storage("0", 3, "BoolStorage"), (3,), (1,))})
    found = load_tensors(write_zip(tmp_path / "bool.pth", content, [b"\x00\x01\x07"]))["x"]
    np.testing.assert_array_equal(found.view(np.uint8), [0, 1, 1])


def _put_in_zip(path: pathlib.Path, data: bytes, member: str = "archive/data.pkl") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_named_and_does_not_run(tmp_path, name, protocol):
    ran, path = tmp_path / "ran", tmp_path / "evil.pth"
    check_payload(name, tmp_path / "control", protocol)
    for wrapped in (PAYLOADS[name](ran), {"weight": PAYLOADS[name](ran)}, [PAYLOADS[name](ran)]):
        data = pickle.dumps(wrapped, protocol, fix_imports=False)
        pieces = [pickle.dumps(MAGIC, protocol), pickle.dumps(1001, protocol)]
        # In the zip, and in the place of each of the older format's pickles.
        _put_in_zip(path, data)
        forged = [path.read_bytes()] + [b"".join(pieces[:count]) + data for count in range(3)]
        for content in forged:
            path.write_bytes(content)
            with pytest.raises(WeightsError) as caught:
                load_tensors(path)
            assert str(caught.value).startswith(f"{path}: asks to run {name}; only tensors are")
            assert "nothing was run" in str(caught.value)
            assert not ran.exists()


FORGED = {
    "os.system": (b"cos\nsystem\n(" + text("touch ran") + b"tR", "asks to run os.system; only"),
    "torch.load": (b"ctorch\nload\n(" + text("x") + b"tR", "asks to run torch.load;"),
    "a dotted name": (text("torch") + text("FloatStorage.__new__") + b"\x93", "asks to run"),
    "a storage that is called": (b"ctorch\nFloatStorage\n)R", "makes no tensor"),
    "a dictionary with arguments": (b"ccollections\nOrderedDict\n(]tR", "makes no tensor"),
    "a parameter that is none": (b"ctorch._utils\n_rebuild_parameter\n(NNNtR", "not a tensor"),
    "a tensor without arguments": (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "lacks its storage"),
    "an old instance": (b"(" + text("touch ran") + b"ios\nsystem\n", "asks to run os.system"),
    "an extension code": (b"\x82\x01", "EXT1"),
    "a new object": (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
    "a module outside": (b"(" + text("module") + b"NNNNtQ", "not a storage"),
    "a text outside": (text("x") + b"Q", "not a storage"),
    "a storage without a class": (
        b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + b"K\x06tQ",
        "lacks its class",
    ),
    "a state of a tensor": (b"TENSOR}b", "sets the state"),
    "a state that calls": (b"}cos\nsystem\nb", "asks to run os.system"),
    "a dictionary by tuples": (b"})K\x01s", "neither text nor integers"),
    "half a pair": (b"}(K\x01u", "other than a dictionary"),
    "a list filled": (b"](K\x01K\x02u", "other than a dictionary"),
    "a number": (b"K\x05", "does not hold tensors by name"),
    "one tensor": (b"TENSOR", "does not hold tensors by name"),
    "a number under a name": (b"}" + text("lr") + b"K\x05s", "holds something of type int under"),
    "a name that is none": (b"}K\x05TENSORs", "holds a tensor under '5'"),
    "dictionaries in one": (b"}" + text("state_dict") + b"}s", "type dict under 'state_dict'"),
    "an endless loop": (b"N" * 1_000_001, "pickle instructions"),
    "a huge text": (b"\x8d" + struct.pack("<Q", 2**62), "truncated"),
    "an empty stack": (b"R", "makes no sense"),
    "an unknown memo": (b"h\x07", "makes no sense"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("content", "words"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_pickle_is_refused(tmp_path, monkeypatch, form, content, words):
    monkeypatch.chdir(tmp_path)
    content = content.replace(b"TENSOR", tensor(stored(form), (6,), (1,)))
    path = write(tmp_path / "forged.pth", content, form)
    with pytest.raises(WeightsError, match=words):
        load_tensors(path)
    assert list(tmp_path.iterdir()) == [path]


MISFITS = {
    "beyond the end": (((7,), (1,), 0), "reaches beyond its storage of 6"),
    "by its offset": (((3,), (1,), 4), "reaches beyond"),
    "by its stride": (((2, 2), (5, 1), 1), "reaches beyond"),
    "an offset far away": (((1,), (1,), 2**40), "reaches beyond"),
    "an empty one far away": (((0,), (1,), 7), "reaches beyond"),
    "a huge shape": (((2**40, 2**40), (0, 0), 0), "repeats its 6 elements"),
    "an expanded one": (((7,), (0,), 0), "repeats its 6 elements"),
    "sides that no array has": (((2**62,), (0,), 0), "no array has"),
    "a negative side": (((-1,), (1,), 0), "no array has"),
    "a negative stride": (((2,), (-1,), 5), "not counts"),
    "a negative offset": (((2,), (1,), -1), "not counts"),
    "fewer strides": (((2, 2), (1,), 0), "its shape or its strides"),
    "forty axes": (((1,) * 40, (1,) * 40, 0), "no array has"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("view", "words"), MISFITS.values(), ids=MISFITS.keys())
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, form, view, words):
    path = write(tmp_path / "x.pth", dictionary({"x": tensor(stored(form), *view)}), form)
    with pytest.raises(WeightsError, match=words):
        load_tensors(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("size", "kind"), [(5, "FloatStorage"), (7, "FloatStorage"), (6, "HalfStorage"), (2**47,) * 2]
)
def test_a_storage_of_another_size_is_refused(tmp_path, form, size, kind):
    kind = kind if isinstance(kind, str) else "DoubleStorage"
    content = dictionary({"x": tensor(stored(form, size=size, kind=kind), (2,), (1,))})
    with pytest.raises(WeightsError, match=r"claims|bytes|truncated"):
        load_tensors(write(tmp_path / "x.pth", content, form))


@pytest.mark.parametrize("form", FORMATS)
def test_storages_that_do_not_fit_the_tensors_are_refused(tmp_path, form):
    whole = tensor(stored(form), (6,), (1,))
    other = tensor(stored(form, kind="IntStorage"), (6,), (1,))
    path = tmp_path / "x.pth"
    with pytest.raises(WeightsError, match="two storages have the same key"):
        load_tensors(write(path, dictionary({"x": whole, "y": other}), form))
    with pytest.raises(WeightsError, match=r"lacks 'archive/data/0'|are not those"):
        load_tensors(write(path, dictionary({"x": whole}), form, ()))
    outside = tensor(stored(form, key="../../x"), (6,), (1,))
    with pytest.raises(WeightsError, match=r"lacks 'archive/data/\.\./|are not those"):
        load_tensors(write(path, dictionary({"x": outside}), form))


LEGACY = {
    "another magic number": (pickled(integer(7)), "not one of PyTorch's"),
    "another version": (legacy(b"N").replace(integer(1001), integer(1002)), "another version"),
    "a big-endian machine": (legacy(b"N").replace(b"\x88u", b"\x89u"), "big-endian"),
    "no list of storages": (legacy(dictionary({})).replace(b"](e", b"}"), "its list of storages"),
    "bytes behind": (legacy(dictionary({})) + b"x", "1 bytes after its storages"),
    "a view of a storage": (
        legacy(
            dictionary(
                {"x": tensor(storage("0", 6, end=b"(" + text("1") + b"K\x00K\x06t"), (6,), (1,))}
            ),
            (RAW,),
        ),
        "a view of another",
    ),
    "metadata of a tensor": (
        legacy(
            dictionary({"x": tensor(storage("0", 6, end=b"N"), (6,), (1,), end=b"\x88")}), (RAW,)
        ),
        "further metadata",
    ),
    "text": (b"<html>Not found</html>", "is not a file that torch.save writes"),
    "nothing": (b"", "is not a file that torch.save writes"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "a zip that is none": (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
}


@pytest.mark.parametrize(("data", "words"), LEGACY.values(), ids=LEGACY.keys())
def test_a_file_of_another_kind_is_refused(tmp_path, data, words):
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=words):
        load_tensors(path)


def test_a_path_without_a_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        load_tensors(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="is not a file"):
        load_tensors(tmp_path)


def whole_zip(path: pathlib.Path) -> bytes:
    content = dictionary({"x": tensor(storage("0", 6), (6,), (1,))})
    return write_zip(path, content, [RAW]).read_bytes()


def test_a_compressed_zip_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**24))
    with pytest.raises(WeightsError, match=r"compresses its member 'archive/data\.pkl'"):
        load_tensors(path)


def test_sizes_that_the_file_does_not_have_are_refused(tmp_path):
    path = tmp_path / "forged.pth"
    data = whole_zip(path)
    sizes = struct.pack("<II", 24, 24)  # of the storage, compressed and not
    assert data.count(sizes) == 2
    path.write_bytes(data.replace(sizes, struct.pack("<II", 2**31, 2**31)))
    with pytest.raises(WeightsError, match=r"its members claim 2147\d* bytes"):
        load_tensors(path)
    path.write_bytes(data.replace(sizes, struct.pack("<II", 24, 2**31)))
    with pytest.raises(WeightsError, match="compresses"):
        load_tensors(path)


def test_a_changed_number_is_noticed_in_the_zip(tmp_path):
    path = tmp_path / "changed.pth"
    path.write_bytes(whole_zip(path).replace(RAW, RAW[:-1] + b"\x00"))
    with pytest.raises(WeightsError, match="Bad CRC-32"):
        load_tensors(path)


ZIPS = {
    "no pickle": ({"archive/x": b""}, "0 members data.pkl"),
    "two pickles": ({"a/data.pkl": b"", "b/data.pkl": b""}, "2 members data.pkl"),
    "another byte order": ({"data.pkl": b"}.", "byteorder": b"middle"}, "byte order"),
    "bytes behind the pickle": ({"data.pkl": b"}.xx"}, "2 bytes after"),
    "an empty pickle": ({"data.pkl": b""}, "makes no sense"),
}


@pytest.mark.parametrize(("members", "words"), ZIPS.values(), ids=ZIPS.keys())
def test_a_zip_of_another_kind_is_refused(tmp_path, members, words):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match=words):
        load_tensors(path)


def test_members_of_the_same_name_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"}.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("data.pkl", b"}.")
    with pytest.raises(WeightsError, match="the same name"):
        load_tensors(path)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    data = bytearray(whole_zip(path))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="encrypted"):
        load_tensors(path)


def test_strides_and_shapes_must_be_whole_numbers(tmp_path):
    truth = tensor(storage("0", 6), (1,), (1,)).replace(integers((1,)), b"(\x88t")
    with pytest.raises(WeightsError, match="no array has"):
        load_tensors(write_zip(tmp_path / "x.pth", dictionary({"x": truth}), [RAW]))
