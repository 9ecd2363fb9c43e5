"""Arrays between npz and safetensors, and archives, of good and of hostile files."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.lib import format as npy
from safetensors.numpy import load_file, save_file

from app.coordinator.data.conversion import npz_files, safetensors_files, trees
from app.coordinator.data.conversion.errors import CannotConvert, naming
from app.coordinator.data.conversion.safetensors_conversion import to_npz, to_safetensors
from app.coordinator.data.conversion.texts import array_of, text_of
from app.coordinator.data.conversion.trees import convert_tree
from app.files.copying import Report
from app.files.directory import Directory
from app.files.walking import Limits

NUMBERS = {
    "bool": np.array([True, False]),
    "scalar": np.array(1.5),
    "empty": np.zeros((0, 3), np.float32),
    "none": np.zeros((3, 0), np.int8),
    "file": np.arange(6, dtype=np.uint16).reshape(2, 3),
    "layer/weight:0": np.array([-1, 2**63 - 1]),
    "half": np.array([1.5, -0.0, np.inf, np.nan], np.float16),
    "complex": np.array([1 + 2j], np.complex64),
}


def run(convert: Callable[[Any, Any], None], path: Path, target: Path) -> Path:
    with open(path, "rb") as source, open(target, "wb") as made, naming(path.name):
        convert(source, made)
    return target


def safetensors_bytes(header: Mapping[str, Any] | bytes, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def tensor(dtype: str, shape: list[int], *offsets: float) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def member(array: bytes, name: str = "a.npy", packing: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        archive.writestr(name, array)
    return out.getvalue()


def npy_bytes(array: Any, **about: Any) -> bytes:
    """A .npy file whose header says `about` instead of what is so."""
    out = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **about}
    npy.write_array_header_1_0(out, header)
    content: bytes = array.tobytes()
    return out.getvalue() + content


def test_numbers_go_both_ways(tmp_path: Path) -> None:
    save_file(NUMBERS, tmp_path / "a.safetensors")
    with np.load(run(to_npz, tmp_path / "a.safetensors", tmp_path / "a.npz")) as found:
        assert set(found.files) == set(NUMBERS)
        for name, array in NUMBERS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    back = load_file(run(to_safetensors, tmp_path / "a.npz", tmp_path / "b.safetensors"))
    assert set(back) == set(NUMBERS)
    for name, array in NUMBERS.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back[name], array)


def test_metadata_of_others_is_kept_as_text(tmp_path: Path) -> None:
    metadata = {"format": "pt", "config": '{"layers": 2}', "number": "12", "broken": '["a", 1]'}
    save_file({"w": np.zeros(2)}, tmp_path / "a.safetensors", metadata)
    with np.load(run(to_npz, tmp_path / "a.safetensors", tmp_path / "a.npz")) as found:
        assert {name: str(found[name]) for name in metadata} == metadata
        assert found["format"].shape == ()
    back = (run(to_safetensors, tmp_path / "a.npz", tmp_path / "b.safetensors")).read_bytes()
    header = json.loads(back[8 : 8 + int.from_bytes(back[:8], "little")])
    assert header["__metadata__"] == metadata


@given(
    arrays.arrays(
        np.dtype("<U4"),
        arrays.array_shapes(min_dims=0, max_dims=3),
        elements=st.text(max_size=4).filter(lambda text: not text.endswith("\0")),
    )
)
@settings(deadline=None)
def test_an_array_of_text_comes_back_from_its_text(array: Any) -> None:
    back = array_of(text_of(array))
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@given(
    st.text(st.characters(codec="utf-8"), max_size=20)
    | st.recursive(st.text(max_size=3), st.lists).map(json.dumps)
)
@settings(deadline=None)
def test_a_text_comes_back_from_its_array(text: str) -> None:
    try:
        array = array_of(text)
    except CannotConvert:
        # It ends with NUL, which NumPy takes for padding, or lists are empty in each other.
        return
    again = text_of(array)
    # A single text stands for itself, where it is not quoted.
    assert again == text or array_of(again).tolist() == array.tolist() == json.loads(text)


def test_bfloat16_becomes_float32_without_loss(tmp_path: Path) -> None:
    """All 65,536 of them: each is the upper half of the float32."""
    numbers = np.arange(2**16, dtype="<u2")
    content = safetensors_bytes({"w": tensor("BF16", [2, 2**15], 0, 2**17)}, numbers.tobytes())
    (tmp_path / "a.safetensors").write_bytes(content)
    with np.load(run(to_npz, tmp_path / "a.safetensors", tmp_path / "a.npz")) as found:
        wide = found["w"]
    assert (wide.dtype, wide.shape) == (np.float32, (2, 2**15))
    assert np.array_equal(wide.view("<u4").ravel() >> 16, numbers)
    assert not (wide.view("<u4") & 0xFFFF).any()
    back = load_file(run(to_safetensors, tmp_path / "a.npz", tmp_path / "b.safetensors"))
    assert back["w"].tobytes() == wide.tobytes()


@pytest.mark.parametrize(
    ("dtype", "samples"),
    [
        ("F8_E4M3", {0x00: 0.0, 0x01: 2**-9, 0x08: 2**-6, 0x38: 1.0, 0x7E: 448.0, 0xB8: -1.0}),
        ("F8_E5M2", {0x01: 2**-16, 0x3C: 1.0, 0x7B: 57344.0, 0x7C: np.inf, 0xFC: -np.inf}),
        ("F8_E4M3FNUZ", {0x01: 2**-10, 0x40: 1.0, 0x7F: 240.0}),
        ("F8_E5M2FNUZ", {0x01: 2**-17, 0x40: 1.0, 0x7F: 57344.0}),
        ("F8_E8M0", {0x00: 2.0**-127, 0x7F: 1.0, 0x80: 2.0, 0xFE: 2.0**127}),
    ],
)
def test_float8_becomes_float32_without_loss(
    tmp_path: Path, dtype: str, samples: dict[int, float]
) -> None:
    content = safetensors_bytes({"w": tensor(dtype, [256], 0, 256)}, bytes(range(256)))
    (tmp_path / "a.safetensors").write_bytes(content)
    with np.load(run(to_npz, tmp_path / "a.safetensors", tmp_path / "a.npz")) as found:
        wide = found["w"]
    assert wide.dtype == np.float32
    for number, value in samples.items():
        assert wide[number] == value, hex(number)
    nans = {"F8_E4M3": {0x7F, 0xFF}, "F8_E5M2": {*range(0x7D, 0x80), *range(0xFD, 0x100)}}
    expected = nans.get(dtype, {0xFF} if dtype == "F8_E8M0" else {0x80})
    assert set(np.flatnonzero(np.isnan(wide)).tolist()) == expected


def test_arrays_of_any_order_and_byte_order_are_written_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz_files, "BLOCK", 64)
    monkeypatch.setattr(safetensors_files, "BLOCK", 64)
    plain = np.arange(5 * 7 * 3, dtype=np.int32).reshape(5, 7, 3)
    given = {
        "fortran": np.asfortranarray(plain),
        "big": plain.astype(">i4"),
        "both": np.asfortranarray(plain.astype(">i4")),
        "strided": plain[:, ::2],
    }
    np.savez_compressed(tmp_path / "a.npz", allow_pickle=False, **given)
    found = load_file(run(to_safetensors, tmp_path / "a.npz", tmp_path / "a.safetensors"))
    for name, array in given.items():
        assert found[name].dtype == np.int32
        np.testing.assert_array_equal(found[name], array)
    with np.load(run(to_npz, tmp_path / "a.safetensors", tmp_path / "b.npz")) as back:
        np.testing.assert_array_equal(back["both"], plain)


HOSTILE_SAFETENSORS: dict[bytes, str] = {
    b"": "its header ends after its 0 bytes",
    b"\xff" * 8: "its header ends after its 8 bytes",
    safetensors_bytes({"a": tensor("F32", [2], 0, 8)}, b"1234"): "the file has 4 for them",
    safetensors_bytes({"a": tensor("F32", [2], 0, 8)}, b"1" * 12): "the file has 12 for them",
    safetensors_bytes({"a": tensor("F32", [2], 4, 12)}, b"1" * 12): "does not begin where",
    safetensors_bytes({"a": tensor("F32", [2], 8, 0)}): "should have 8 bytes, and has -8",
    safetensors_bytes({"a": tensor("F32", [2**62, 2**62], 0, 8)}, b"1" * 8): "should have",
    safetensors_bytes({"a": tensor("F32", [-1], 0, 8)}, b"1" * 8): "does not describe a tensor",
    safetensors_bytes({"a": tensor("F32", [True], 0, 8)}, b"1" * 8): "does not describe a tensor",
    safetensors_bytes({"a": tensor("F32", [1], 0.0, 4)}, b"1" * 4): "does not describe a tensor",
    safetensors_bytes({"a": [1]}): "does not describe a tensor",
    safetensors_bytes({"a": tensor("X9", [2], 0, 8)}, b"1" * 8): "dtype 'X9'",
    safetensors_bytes({"a": tensor("F4", [2], 0, 1)}, b"1"): "F4, which npz cannot hold",
    safetensors_bytes({"a": tensor("F32", [1] * 40, 0, 4)}, b"1" * 4): "40 dimensions",
    safetensors_bytes({"__metadata__": {"a": 1}}): "is not a map of texts",
    safetensors_bytes({"__metadata__": {"a": "x"}, "a": tensor("U8", [0], 0, 0)}): "both a tensor",
    safetensors_bytes({"__metadata__": {"a": "x\0"}}): "cannot be kept in an array of text",
    safetensors_bytes(b'{"a":' + b"[" * 100_000): "its header is not JSON",
    safetensors_bytes(b'{"a":' + b"1" * 5000 + b"}"): "its header is not JSON",
    safetensors_bytes(b'{"a":\xff}'): "its header is not JSON",
    safetensors_bytes(b'{"a":{},"a":{}}'): "names something twice",
    safetensors_bytes(b"[]"): "not a JSON object",
    safetensors_bytes({"../a": tensor("U8", [0], 0, 0)}): "cannot be the name of a file",
    safetensors_bytes({"/a": tensor("U8", [0], 0, 0)}): "cannot be the name of a file",
    safetensors_bytes({"a\0b": tensor("U8", [0], 0, 0)}): "cannot be the name of a file",
    safetensors_bytes({"": tensor("U8", [0], 0, 0)}): "cannot be the name of a file",
    safetensors_bytes({"a" * 70_000: tensor("U8", [0], 0, 0)}): "cannot be the name of a file",
    safetensors_bytes(
        {"a": tensor("U8", [0], 0, 0), "a.npy": tensor("U8", [0], 0, 0)}
    ): "cannot be told from another one",
}


@pytest.mark.parametrize(("content", "problem"), HOSTILE_SAFETENSORS.items())
def test_hostile_safetensors(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CannotConvert) as caught:
        run(to_npz, tmp_path / "a.safetensors", tmp_path / "a.npz")
    assert str(caught.value).startswith("a.safetensors: ")
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 500


ARRAY = np.arange(4.0)
HOSTILE_NPZ: dict[bytes, str] = {
    b"": "damaged",
    b"PK\x03\x04" + b"\0" * 100: "damaged",
    member(npy_bytes(ARRAY))[:-30]: "damaged",
    # Its list of members leads to a place before its beginning.
    member(npy_bytes(ARRAY))[1:]: "damaged",
    member(npy_bytes(ARRAY, shape=(2**40, 2**40))): "should have",
    member(npy_bytes(ARRAY, shape=(5,))): "should have 40 bytes, and has 32",
    member(npy_bytes(ARRAY, shape=(-4, -1))): "should have",
    member(npy_bytes(ARRAY)[:-8]): "should have 32 bytes, and has 24",
    member(npy_bytes(ARRAY) + b"x"): "should have 32 bytes, and has 33",
    member(npy_bytes(ARRAY, descr="|O")): "holds Python objects, which are never unpickled",
    member(npy_bytes(ARRAY, descr=[("a", "<f8")])): "is neither numbers",
    member(npy_bytes(ARRAY, descr="<M8[s]")): "is neither numbers",
    member(npy_bytes(ARRAY, descr="|S8")): "is neither numbers",
    member(npy_bytes(np.zeros(2, "<c16"))): "is neither numbers",
    member(npy_bytes(ARRAY, descr="<U0", shape=(4,))): "should have 0 bytes",
    member(b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16): "damaged",
    member(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535): "damaged",
    member(b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16): "version (9, 0)",
    member(b"no array"): "damaged",
    member(npy_bytes(ARRAY), name="readme.txt"): "is not an array",
    member(npy_bytes(ARRAY), name="__metadata__.npy"): "rename it",
    member(npy_bytes(np.array(["a\0b", "c"])[:1], descr="<U3")): "",
}


@pytest.mark.parametrize(("content", "problem"), HOSTILE_NPZ.items())
def test_hostile_npz(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    if not problem:
        run(to_safetensors, tmp_path / "a.npz", tmp_path / "a.safetensors")
        return
    with pytest.raises(CannotConvert) as caught:
        run(to_safetensors, tmp_path / "a.npz", tmp_path / "a.safetensors")
    assert str(caught.value).startswith("a.npz: ")
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    content = bytearray(member(npy_bytes(np.arange(1000.0))))
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(CannotConvert, match=r"a\.npz: it is damaged"):
        run(to_safetensors, tmp_path / "a.npz", tmp_path / "a.safetensors")


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10_000_000))
    run(to_safetensors, tmp_path / "a.npz", tmp_path / "a.safetensors")
    monkeypatch.setattr(npz_files, "ALWAYS", 1000)
    with pytest.raises(CannotConvert, match=r"it unpacks to 80000128 bytes, more than"):
        run(to_safetensors, tmp_path / "a.npz", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").stat().st_size == 0


def test_members_with_names_of_other_places_harm_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(member(npy_bytes(ARRAY), name="../../../outside.npy"))
    found = load_file(run(to_safetensors, tmp_path / "a.npz", tmp_path / "a.safetensors"))
    assert set(found) == {"../../../outside"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "a.safetensors"]


def _npz_sample() -> bytes:
    out = io.BytesIO()
    np.savez(out, w=np.arange(12.0).reshape(3, 4), alphabet=np.array(["a", "b"]))
    return out.getvalue()


def _safetensors_sample() -> bytes:
    header = {
        "__metadata__": {"format": "pt", "alphabet": '["a"]'},
        "w": tensor("BF16", [2, 2], 0, 8),
        "v": tensor("F32", [2], 8, 16),
    }
    return safetensors_bytes(header, bytes(range(16)))


@settings(settings.get_profile("often"))
@given(data=st.data(), to=st.sampled_from(["npz", "safetensors"]))
def test_of_whatever_bytes_nothing_but_cannot_convert_comes(data: st.DataObject, to: str) -> None:
    good = _safetensors_sample() if to == "npz" else _npz_sample()
    at = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(at, min(at + 40, len(good))))
    content = good[:at] + data.draw(st.binary(max_size=12)) + good[end:]
    converter: Callable[[Any, Any], None] = to_npz if to == "npz" else to_safetensors
    with (
        memory_file(content) as source,
        io.BytesIO() as target,
        suppress(CannotConvert),
        naming("a file"),
    ):
        converter(source, target)


def memory_file(content: bytes) -> Any:
    file = os.fdopen(os.memfd_create("source"), "w+b")
    file.write(content)
    file.flush()
    return file


# Trees


def converted(tmp_path: Path, export_format: str, **limits: Any) -> Report:
    (tmp_path / "made").mkdir()
    with Directory.open(tmp_path / "output") as source, Directory.open(tmp_path / "made") as made:
        return convert_tree(export_format, source, made, limits=Limits(**limits))


def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_name_that_is_taken_gets_a_second_suffix(tmp_path: Path) -> None:
    folder = output(tmp_path)
    (folder / "sub").mkdir()
    np.savez(folder / "sub" / "a.npz", a=ARRAY)
    save_file({"b": ARRAY}, folder / "sub" / "a.safetensors")
    np.savez(folder / "a.npz", a=ARRAY)
    report = converted(tmp_path, "safetensors")
    made = tmp_path / "made"
    assert names(made) == ["a.safetensors", "sub/a.npz.safetensors", "sub/a.safetensors"]
    assert set(load_file(made / "sub" / "a.safetensors")) == {"b"}
    assert set(load_file(made / "sub" / "a.npz.safetensors")) == {"a"}
    assert report.files == 3


def test_a_name_that_is_taken_twice_is_refused(tmp_path: Path) -> None:
    folder = output(tmp_path)
    np.savez(folder / "a.npz", a=ARRAY)
    for name in ("a.safetensors", "a.npz.safetensors"):
        save_file({"b": ARRAY}, folder / name)
    with pytest.raises(CannotConvert, match=r"a\.npz: there are files beside it"):
        converted(tmp_path, "safetensors")


def test_a_name_that_becomes_too_long_is_refused(tmp_path: Path) -> None:
    np.savez(output(tmp_path) / ("x" * 248 + ".npz"), a=ARRAY)
    with pytest.raises(CannotConvert, match=r"^\.\.\.x+\.npz: its name is too long to end with"):
        converted(tmp_path, "safetensors")


def test_links_and_special_files_are_left_out_and_told(tmp_path: Path) -> None:
    for number, export_format in enumerate(("npz", "tar.gz")):
        base = tmp_path / str(number)
        base.mkdir()
        folder = output(base)
        np.savez(folder / "a.npz", a=ARRAY)
        (folder / "link.npz").symlink_to("/etc/passwd")
        (folder / "loop").symlink_to(".")
        os.mkfifo(folder / "pipe")
        report = converted(base, export_format)
        assert {each.path: each.what for each in report.left_out} == {
            "link.npz": "symbolic link",
            "loop": "symbolic link",
            "pipe": "special file",
        }
        assert report.files == 1


def test_names_of_any_bytes_are_converted(tmp_path: Path) -> None:
    folder = output(tmp_path)
    odd = os.fsdecode(b"m\xff\n.npz")
    np.savez(folder / odd, a=ARRAY)
    converted(tmp_path, "safetensors")
    assert names(tmp_path / "made") == [os.fsdecode(b"m\xff\n.safetensors")]
    (tmp_path / "made" / os.fsdecode(b"m\xff\n.safetensors")).unlink()
    (tmp_path / "made").rmdir()
    (folder / odd).write_bytes(b"no array")
    with pytest.raises(CannotConvert, match=r"m\\xff\\n\.npz: it is damaged"):
        converted(tmp_path, "safetensors")


def test_what_an_archive_has(tmp_path: Path) -> None:
    folder = output(tmp_path)
    odd = os.fsdecode(b"m\xff" + b"y" * 250)
    (folder / odd).write_bytes(b"odd")
    deep = folder
    for _ in range(10):
        deep = deep / ("d" * 100)
        deep.mkdir()
    (deep / "file").write_bytes(b"deep")
    (deep / "file").chmod(0o4755)
    os.link(deep / "file", folder / "twin")
    with open(folder / "holes", "wb") as file:
        file.truncate(10_000_000)
    converted(tmp_path, "tar.gz")
    with tarfile.open(tmp_path / "made" / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
        members = {found.name: found for found in archive.getmembers()}
    assert names(tmp_path / "unpacked") == names(folder)
    for name in names(folder):
        assert (tmp_path / "unpacked" / name).read_bytes() == (folder / name).read_bytes()
    assert members[f"{'d' * 100}/" * 10 + "file"].mode == 0o755
    assert members["twin"].islnk()
    assert all((found.uid, found.uname) == (0, "") for found in members.values())


def test_an_archive_of_holes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(output(tmp_path) / "holes", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(CannotConvert, match="holes: it has 1099511627776 bytes, of which most"):
        converted(tmp_path, "tar.gz")
    assert not names(tmp_path / "made")


def test_trees_have_bounds(tmp_path: Path) -> None:
    folder = output(tmp_path)
    for number in range(5):
        np.savez(folder / f"{number}.npz", a=ARRAY)
    with pytest.raises(OSError, match="more than 4 files"):
        converted(tmp_path, "tar.gz", entries=4)
    assert trees.FORMATS == ("npz", "safetensors", "tar.gz")
