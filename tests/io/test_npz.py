"""The CVPR 2025 challenge's .npz files are volumes, and nothing in them is ever executed."""

from __future__ import annotations

import functools
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.errors import (
    CorruptFile,
    FileError,
    GeometryError,
    TooLarge,
    UnsafeFile,
    UnsupportedFormat,
)
from samaritan.io import npz_arrays, read_labels
from samaritan.io.npz_arrays import array_names, read_array
from samaritan.io.npz_objects import MAX_OBJECT_BYTES, read_objects
from samaritan.io.npz_prompts import SliceBox, read_interactions
from samaritan.io.npz_write import write_case

SHAPE = (3, 4, 5)
GRID = Grid.from_spacing(SHAPE, (5.0, 0.7, 0.9), orientation="SPL", origin_mm=(3, -7, 11))


def challenge(path: Path, **changes) -> Path:
    """A file as the challenge's evaluator leaves it after two rounds of clicks."""
    gts = np.zeros(SHAPE, np.uint8)
    gts[1, 1:3, 1:4], gts[2, 3, 3:] = 1, 4
    box = dict.fromkeys(("z_min", "z_max", "z_mid"), np.int64(1))
    box |= {"z_mid_x_min": np.int64(1), "z_mid_y_min": 1, "z_mid_x_max": 3, "z_mid_y_max": 2}
    content = {
        "imgs": np.arange(60, dtype=np.uint8).reshape(SHAPE), "gts": gts, "spacing": [5.0, 0.7, 0.9],
        "boxes": [box, box],
        "clicks": [
            {"fg": [list(map(np.int64, (1, 2, 3))), [1, 1, 1]], "bg": []},
            {"fg": [], "bg": [[0, 0, 0]]},
        ],
        "clicks_order": [["fg", "fg"], ["bg"]],
        "prev_pred": np.zeros(SHAPE, np.uint8),
        "text_prompts": {"1": "liver", "4": "a lesion", "instance_label": 0},
    }  # fmt: skip
    content = {k: v for k, v in {**content, **changes}.items() if v is not None}
    ragged = content.get("clicks_order")
    if isinstance(ragged, list):
        content["clicks_order"] = np.empty(len(ragged), object)
        content["clicks_order"][:] = ragged
    np.savez_compressed(path, **content)
    return path


# -- volumes -----------------------------------------------------------------------------------------


def test_a_challenge_file_is_a_volume_in_z_y_x(tmp_path: Path) -> None:
    volume = read(challenge(tmp_path / "a.npz"))
    assert np.array_equal(volume.array, np.arange(60).reshape(SHAPE))
    assert volume.grid.spacing_mm == pytest.approx((5.0, 0.7, 0.9))
    assert volume.grid.orientation == "SPL"
    (note,) = volume.notes
    assert "tells no orientation" in note
    labels = read_labels(tmp_path / "a.npz")
    assert labels.labels() == [1, 4]
    assert dict(labels.names) == {1: "liver", 4: "a lesion"}
    labels.grid.require_same(volume.grid)


def test_the_order_of_spacing_can_be_told_and_is_doubted(tmp_path: Path) -> None:
    path = challenge(tmp_path / "a.npz", spacing=[0.7, 0.7, 5.0])
    volume = read(path)
    assert any(
        'looks like x, y, z: then read it with spacing_order="xyz"' in n for n in volume.notes
    )
    assert read(path, spacing_order="xyz").grid.spacing_mm == pytest.approx((5.0, 0.7, 0.7))
    assert read_labels(path, spacing_order="xyz").grid.spacing_mm == pytest.approx((5.0, 0.7, 0.7))


def test_without_spacing_voxels_are_pixels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", segs=np.ones(SHAPE, np.uint8))
    labels = read_labels(tmp_path / "a.npz")
    assert labels.grid.unit == "px"
    assert "no spacing" in labels.notes[0]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_write_read_is_identity(tmp_path: Path, kind: type) -> None:
    turn = np.eye(4)
    turn[:3, :3] = [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]
    for grid in (GRID, Grid(SHAPE, turn @ GRID.affine)):
        array = np.arange(60).reshape(SHAPE).astype(kind)
        back = read(write(Volume(array, grid), tmp_path / "a.npz"))
        assert np.array_equal(back.array, array)
        assert back.dtype == kind
        assert back.grid.same_as(grid, voxels=1e-6)
        assert not back.notes
    labels = LabelMap(
        np.arange(60, dtype=np.uint8).reshape(SHAPE) % 3, GRID, names={2: "b", 1: "a"}
    )
    back = read_labels(write(labels, tmp_path / "b.npz"))
    assert np.array_equal(back.array, labels.array)
    assert dict(back.names) == {2: "b", 1: "a"}
    assert array_names(tmp_path / "b.npz")[0] == "segs"


def test_other_orientations_and_channels_are_refused(tmp_path: Path) -> None:
    other = Volume(np.zeros(SHAPE), Grid.from_spacing(SHAPE, (1, 1, 1), orientation="RAS"))
    with pytest.raises(GeometryError, match=r"run z, y, x .*volume.reorient\('SPL'\)"):
        write(other, tmp_path / "a.npz")
    with pytest.raises(GeometryError, match="holds one channel, got 2"):
        write(Volume(np.zeros((*SHAPE, 2)), GRID), tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())
    path = write(other.reorient("SPL"), tmp_path / "a.npz")
    assert read(path).reorient("RAS").grid.same_as(other.grid)


def test_an_affine_that_disagrees_is_not_used(tmp_path: Path) -> None:
    volume = read(challenge(tmp_path / "a.npz", affine=np.diag([2.0, 2, 2, 1])))
    assert volume.grid.spacing_mm == pytest.approx((5.0, 0.7, 0.9))
    assert "does not agree" in volume.notes[0]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"imgs": None, "gts": None}, UnsupportedFormat, "but none of imgs, image, gts, segs, label"),
        ({"imgs": np.zeros((2, 3, 4, 3))}, CorruptFile, r"shape \(2, 3, 4, 3\), expected \(z, y, x\)"),
        ({"imgs": np.zeros(SHAPE, complex)}, CorruptFile, "imgs holds complex128"),
        ({"imgs": np.array(["a"])}, CorruptFile, "expected numbers"),
        ({"spacing": [1.0, 2.0]}, CorruptFile, "spacing holds 2 values"),
        ({"spacing": [1.0, 0.0, 2.0]}, GeometryError, "three positive numbers"),
        ({"spacing": {"x": 1}}, CorruptFile, "spacing holds 1 values of type object"),
        ({"affine": np.zeros((4, 4))}, GeometryError, "affine"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(tmp_path: Path, changes, error, text) -> None:
    with pytest.raises(error, match=text) as caught:
        read(challenge(tmp_path / "a.npz", **changes))
    assert "a.npz" in str(caught.value)


# -- boxes and clicks --------------------------------------------------------------------------------


def test_boxes_and_clicks_are_read(tmp_path: Path) -> None:
    found = read_interactions(challenge(tmp_path / "a.npz"))
    assert found.boxes == (SliceBox(1, 1, 1, 1, 1, 3, 2),) * 2
    assert (found.boxes[0].start, found.boxes[0].stop) == ((1, 1, 1), (2, 3, 4))
    assert found.clicks == ((((1, 2, 3), True), ((1, 1, 1), True)), (((0, 0, 0), False),))
    nothing = read_interactions(challenge(tmp_path / "b.npz", boxes=None, clicks=None))
    assert (nothing.boxes, nothing.clicks) == (None, ())


def test_the_order_of_clicks_is_kept(tmp_path: Path) -> None:
    clicks = [{"fg": [[1, 1, 1], [2, 2, 2]], "bg": [[0, 0, 0]]}]
    for order, wanted in (
        (["fg", "bg", None, "fg"], [True, False, True]),
        (None, [True, True, False]),
    ):
        path = challenge(tmp_path / "a.npz", clicks=clicks, clicks_order=order and [order])
        assert [positive for _, positive in read_interactions(path).clicks[0]] == wanted


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"boxes": [{"z_min": 1}]}, "box 1 has no whole number for z_max"),
        ({"boxes": [dict.fromkeys(SliceBox(1, 2, 1, 1, 1, 2, 2).to_dict(), "x")]}, "box 1 has no whole"),
        ({"boxes": [SliceBox(3, 1, 1, 1, 1, 2, 2).to_dict()]}, "box 1 ends before it begins"),
        ({"boxes": [[1, 2, 3]]}, "box 1 is no dictionary"),
        ({"clicks": [{"fg": [[1, 2]], "bg": []}]}, "a click of class 1 is no voxel"),
        ({"clicks": [[1]]}, "no dictionary of fg and bg"),
    ],
)  # fmt: skip
def test_prompts_of_another_form_are_told(tmp_path: Path, changes, text) -> None:
    with pytest.raises(CorruptFile, match=text):
        read_interactions(challenge(tmp_path / "a.npz", **changes))


def test_a_box_is_drawn_as_published() -> None:
    mask = np.zeros((6, 256, 512), bool)
    mask[1:5, 100:120, 200:230] = True
    mask[3, 90:130, 190:240] = True
    # 3 * 600 + 2000 voxels: number 1900 lies on slice 3
    assert SliceBox.around(mask) == SliceBox(1, 4, 3, 190, 90, 239, 129)
    assert SliceBox.around(mask, 5) == SliceBox(1, 4, 3, 180, 85, 249, 134)
    z, _, _ = np.nonzero(mask)
    assert SliceBox.around(mask).z_mid == z[len(z) // 2]
    mask[:, 255, 511] = True
    assert SliceBox.around(mask, 5).z_mid_x_max == 511


def test_a_case_is_written_as_other_programs_read_it(tmp_path: Path) -> None:
    labels = LabelMap(
        (np.arange(60).reshape(SHAPE) > 30).astype(np.uint8), GRID, names={1: "liver"}
    )
    box = SliceBox.around(labels.array == 1)
    write_case(tmp_path / "a.npz", Volume(np.zeros(SHAPE, np.uint8), GRID), labels, [box])
    with np.load(tmp_path / "a.npz", allow_pickle=True) as theirs:
        assert theirs["boxes"].tolist() == [box.to_dict()]
        assert theirs["spacing"].tolist() == pytest.approx([5.0, 0.7, 0.9])
        assert theirs["gts"].dtype == np.uint8
    assert read_interactions(tmp_path / "a.npz").boxes == (box,)


# -- nothing is executed -----------------------------------------------------------------------------


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def bombs(canary: Path) -> dict[str, object]:
    command = f"touch {canary}"
    return {
        "posix.system": Calls(os.system, command),
        "builtins.eval": Calls(eval, f"open({str(canary)!r}, 'w')"),
        "builtins.getattr": Calls(getattr, "text", "upper"),
        "functools.partial": functools.partial(os.system, command),
        "io.open": Calls(open, str(canary), "w"),
        "builtins.bytearray": Calls(bytearray, 10**15),
        "numpy.load": Calls(np.load, str(canary)),
        "numpy.ndarray": Calls(np.ndarray, (10**15,)),
        "pathlib": Path("x"),
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", list(bombs(Path("x"))))
def test_bombs_do_not_go_off(tmp_path: Path, name: str, protocol: int) -> None:
    bomb = bombs(tmp_path / "canary")[name]
    for value in (bomb, [{"z_min": bomb}], {"fg": (1, bomb)}):
        with pytest.raises(UnsafeFile, match=rf"{name}.*nothing was executed"):
            read_objects(pickle.dumps(value, protocol), "a.npz: boxes")
    with pytest.raises(UnsafeFile, match=r"a.npz: boxes asks for"):
        read_interactions(challenge(tmp_path / "a.npz", boxes=[bomb]))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cposix\nsystem\n(S'x'\ntR.", b"(S'x'\niposix\nsystem\n.", b"Pid\n.", b"\x80\x02\x82\x01.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", b"\x80\x02]q\x00}b.", b"\x80\x04\x8f.",
        b"\x80\x05\x97.", b"\x80\x02(cposix\nsystem\no.",
    ],
)  # fmt: skip
def test_every_door_to_code_is_closed(code: bytes) -> None:
    with pytest.raises(UnsafeFile, match="nothing was executed"):
        read_objects(code, "a.npz")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_what_pickle_makes_of_them(protocol: int) -> None:
    value = [
        {"a": 1, "b": [2.5, None, True], 3: ("x", b"y", ())}, 2**70, -1, "\u00e4", np.float32(2.5),
        np.bool_(True),
        np.arange(6, dtype=">i2").reshape(2, 3), np.asfortranarray(np.eye(2)), np.zeros((0, 3)),
        np.array([1, "x", [2]], object), np.array(["ab", "c"]),
    ]  # fmt: skip
    value.append(value[0])
    value.append(value[6])
    found = read_objects(pickle.dumps(value, protocol), "a.npz")
    assert found[:6] == value[:6]
    assert found[-2] is found[0]
    for one, two in zip(found[6:11], value[6:11], strict=True):
        assert one.dtype == two.dtype
        assert np.array_equal(one, two)
    assert found[-1] is found[6]


def test_endless_values_end(tmp_path: Path) -> None:
    inside: list = []
    inside.append(inside)
    assert read_objects(pickle.dumps(inside), "a.npz")[0][0] is not None
    itself = np.empty(1, object)
    itself[0] = itself
    with pytest.raises(CorruptFile, match="never finished"):
        read_objects(pickle.dumps(itself), "a.npz")
    text = b"X" + struct.pack("<i", 500_000) + b"x" * 500_000 + b"q\x05X\x06\x00\x00\x00latin1q\x06"
    again = b"c_codecs\nencode\nh\x05h\x06\x86R"
    with pytest.raises(CorruptFile, match="unfolds to far more than it holds"):
        read_objects(b"\x80\x02(" + text + again * 100 + b"l.", "a.npz")
    deep = b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."
    assert isinstance(read_objects(deep, "a.npz"), tuple)
    with pytest.raises(CorruptFile, match="key of type tuple"):
        read_objects(b"\x80\x02}(" + deep[2:-1] + b"Nu.", "a.npz")


@pytest.mark.parametrize(
    "code",
    [b"", b".", b"\x80\x02", b"\x80\x02K", b"\x80\x02h\x05.", b"\x80\x02]t.", b"\x80\x02K\x01a.",
     b"\x80\x02cnumpy\ndtype\n.", b"\x80\x02cnumpy\ndtype\nX\x03\x00\x00\x00x,y\x85R.", b"garbage"],
)  # fmt: skip
def test_damage_is_told(code: bytes) -> None:
    with pytest.raises(CorruptFile, match=r"a.npz is a damaged or truncated array of objects"):
        read_objects(code, "a.npz")


# -- claims ------------------------------------------------------------------------------------------


def packed(path: Path, name: str, shape: tuple[int, ...], data: bytes, descr: str = "|u1") -> Path:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(f"{name}.npy", start + data)
    return path


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "bomb.npz", "imgs", (256, 256, 256), bytes(256**3))
    assert bomb.stat().st_size < 50_000
    with pytest.raises(TooLarge, match=r"bomb.npz.* asks for 16 MiB, more than the 1 MiB"):
        read(bomb, max_bytes=1 << 20)
    assert read(bomb, max_bytes=1 << 25).shape == (256, 256, 256)
    for shape in ((10**6, 10**6, 10**6), (10**11,)):
        with pytest.raises(CorruptFile, match="bytes, but 100 are there"):
            read(packed(tmp_path / "a.npz", "imgs", shape, bytes(100)))
    with pytest.raises(CorruptFile, match="shape that cannot be"):
        read(packed(tmp_path / "a.npz", "imgs", (2**62, 2**62), b""))
    with pytest.raises(TooLarge, match="the limit is 2 MiB"):
        read_array(
            packed(tmp_path / "a.npz", "boxes", (1,), bytes(MAX_OBJECT_BYTES + 1), "|O"), "boxes"
        )


def test_a_size_that_the_archive_claims_wrongly_is_found(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.npz", "imgs", (100, 100, 100), bytes(1000))
    data = bytearray(path.read_bytes())
    size = struct.pack("<I", npz_size(path))
    claimed = struct.pack("<I", 100**3 + npz_size(path) - 1000)
    path.write_bytes(data.replace(size, claimed))
    with pytest.raises(CorruptFile, match=r"a.npz"):
        read(path)


def npz_size(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()[0].file_size


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    path = challenge(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(CorruptFile, match=r"a.npz is damaged, truncated, or no .npz file"):
        read(path)


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    whole = challenge(tmp_path / "a.npz").read_bytes()
    random = np.random.default_rng(0)
    refused = unnamed = 0
    for _ in range(400):
        data = bytearray(whole)
        for at in random.integers(0, len(data), random.integers(1, 6)):
            data[at] = random.integers(256)
        (tmp_path / "a.npz").write_bytes(data)
        try:
            read(tmp_path / "a.npz", max_bytes=1 << 20)
            read_labels(tmp_path / "a.npz", max_bytes=1 << 20)
            read_interactions(tmp_path / "a.npz")
        except (FileError, GeometryError) as error:
            refused += "a.npz" in str(error)
            unnamed += "a.npz" not in str(error)
    assert refused > 100
    assert not unnamed


def test_damaged_pickles_are_read_or_refused(tmp_path: Path) -> None:
    whole = pickle.dumps(
        [{"fg": [np.arange(3)], "bg": [[np.int64(1), 2.5]]}, np.array([1, "x"], object)], 4
    )
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        data = bytearray(whole)
        for at in random.integers(0, len(data), random.integers(1, 4)):
            data[at] = random.integers(256)
        try:
            read_objects(bytes(data), "a.npz")
        except (CorruptFile, UnsafeFile):
            refused += 1
    assert 1000 < refused < 3000


def test_names_in_the_archive_lead_nowhere(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(SHAPE))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("../imgs.npy", buffer.getvalue())
    with pytest.raises(UnsupportedFormat, match="none of imgs"):
        read(tmp_path / "a.npz")
    assert not npz_arrays.holds(tmp_path / "a.npz", "imgs")
    assert not npz_arrays.holds(tmp_path / "missing.npz", "imgs")
