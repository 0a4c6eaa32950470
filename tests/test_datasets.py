"""Sets of images: archives, folders, single images; what is refused and what is left out."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from rs_embed.datasets.samples import held_out, read_samples
from rs_embed.errors import DatasetError, ImageryWarning, SpecError, UnknownNameError

COLOURS = {"forest": (20, 90, 30), "water": (10, 20, 120)}


def picture(colour: tuple[int, ...], side: int = 20) -> NDArray[np.uint8]:
    """Return an image of one colour with a brighter corner, so that flips show."""
    image = np.full((side, side + 4, 3), colour, np.uint8)
    image[:5, :7] = 255
    return image


def png(image: NDArray[np.uint8] | Image.Image) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, "PNG")
    return file.getvalue()


def members(index: str | None = None) -> dict[str, bytes]:
    """Return the files of a packed set: two classes, two images of each."""
    files = {
        f"{name}/{name}_{i}.png": png(picture(colour))
        for name, colour in COLOURS.items()
        for i in range(2)
    }
    lines = [f"{path},{path.split('/')[0]},7,{['train', 'val'][i % 2]}" for i, path in
             enumerate(files)]  # fmt: skip
    return {"index.csv": (index or "\n".join(["path,class,label,split", *lines])).encode()} | files


def packed(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    mode = "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tar.xz", "set.zip", "set"])
def test_every_way_to_keep_a_set_gives_the_same_samples(tmp_path: Path, name: str) -> None:
    write = packed if "." in name else folder
    samples = list(read_samples(write(tmp_path / name, members()), gsd_m=10))
    assert [s.name for s in samples] == [
        "forest/forest_0.png", "forest/forest_1.png", "water/water_0.png", "water/water_1.png",
    ]  # fmt: skip
    assert [(s.label, s.split, s.gsd_m) for s in samples] == [
        ("forest", "train", 10.0), ("forest", "val", 10.0),
        ("water", "train", 10.0), ("water", "val", 10.0),
    ]  # fmt: skip
    for sample in samples:
        assert sample.label is not None
        np.testing.assert_array_equal(sample.image, picture(COLOURS[sample.label]))


def test_a_set_packed_with_its_folder_is_read_by_the_paths_of_its_index(tmp_path: Path) -> None:
    inside = {f"set/{name}": content for name, content in members().items()}
    for name in ("set.tar.gz", "set.zip"):
        path = packed(tmp_path / name, inside)
        assert [s.label for s in read_samples(path, gsd_m=1, split="val")] == ["forest", "water"]


def test_folders_are_classes_and_may_lie_within_splits(tmp_path: Path) -> None:
    image = png(picture((1, 2, 3)))
    plain = folder(tmp_path / "plain", {"a/1.png": image, "b/c/2.PNG": image, "3.png": image})
    assert [(s.name, s.label, s.split) for s in read_samples(plain, gsd_m=1)] == [
        ("3.png", None, None), ("a/1.png", "a", None), ("b/c/2.PNG", "b/c", None),
    ]  # fmt: skip
    split = folder(tmp_path / "split", {"train/a/1.png": image, "val/a/2.png": image})
    assert [(s.name, s.label, s.split) for s in read_samples(split, gsd_m=1)] == [
        ("train/a/1.png", "a", "train"), ("val/a/2.png", "a", "val"),
    ]  # fmt: skip
    assert [s.name for s in read_samples(split, gsd_m=1, split="val")] == ["val/a/2.png"]
    with pytest.raises(DatasetError, match=r"split='val'.*does not state the split of '3.png'"):
        list(read_samples(plain, gsd_m=1, split="val"))


def test_what_is_no_image_is_left_out_aloud(tmp_path: Path) -> None:
    files = {"a/1.png": png(picture((9, 9, 9))), "a/notes.txt": b"x", ".hidden": b"x"}
    with pytest.warns(ImageryWarning, match=r"not images of the set.: a/notes.txt$"):
        assert len(list(read_samples(folder(tmp_path / "s", files), gsd_m=1))) == 1
    for name in ("set.tar.xz", "set.zip"):
        path = packed(tmp_path / name, members() | {"README.md": b"x"})
        with pytest.warns(ImageryWarning, match=r"README.md"):
            assert len(list(read_samples(path, gsd_m=1))) == 4


def test_sets_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is missing, expected a folder"):
        read_samples(tmp_path / "nowhere")
    with pytest.raises(
        DatasetError, match=r"contains no image, expected files that end in .*\.jpg"
    ):
        list(read_samples(folder(tmp_path / "empty", {".keep": b""})))
    text = folder(tmp_path / "text", {"a.txt": b"x"})
    with pytest.warns(ImageryWarning), pytest.raises(DatasetError, match="contains no image"):
        list(read_samples(text))
    only_train = packed(tmp_path / "t.zip", members("path,split\nwater/water_0.png,train\n"))
    with pytest.warns(ImageryWarning), pytest.raises(DatasetError, match="of the split 'val' amo"):
        list(read_samples(only_train, gsd_m=1, split="val"))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("path,class\nwater/water_0.png,water\ngone.png,water\n", "1 files .*not in it: gone.png"),
        ("path,class\n../secret.png,water\n", "line 2 .*leads outside the set"),
        ("path,class\n/etc/hosts,water\n", "leads outside the set"),
        ("file,class\nwater/water_0.png,water\n", "has no path, expected the column path"),
        ("path,split\nwater/water_0.png,test\n", "split='test', expected train or val"),
        ("path\nwater/water_0.png\nwater/water_0.png\n", "twice .line 3"),
        ("path,class\n", "lists no images"),
        ("path,split\nwater/water_0.png\0,val\n", "not in it"),
    ],
)
@pytest.mark.parametrize("name", ["set.tar.gz", "set.zip", "set"])
@pytest.mark.filterwarnings("ignore:left out:rs_embed.errors.ImageryWarning")
def test_an_index_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, index: str, message: str
) -> None:
    write = packed if "." in name else folder
    path = write(tmp_path / name, members(index))
    with pytest.raises(DatasetError, match=message):
        list(read_samples(path, gsd_m=1))


def test_a_label_comes_from_one_column_and_files_beside_the_folder_are_named(
    tmp_path: Path,
) -> None:
    image = png(picture((1, 2, 3)))
    index = b"path,class,label\n1.png,forest,3\n2.png,,4\n"
    files = {"set/index.csv": index, "set/1.png": image, "1.png": image, "set/2.png": image}
    for name in ("set.tar.gz", "set.zip"):
        with pytest.warns(ImageryWarning, match=r"not images of the set.: 1.png$"):
            samples = list(read_samples(packed(tmp_path / name, files), gsd_m=1))
        assert [(s.name, s.label) for s in samples] == [("1.png", "forest"), ("2.png", None)]


def test_linked_folders_are_left_out_aloud(tmp_path: Path) -> None:
    image = png(picture((1, 2, 3)))
    root = folder(tmp_path / "set", {"a/1.png": image, "a/b/1.png": image})
    (root / "c").symlink_to(root / "a")
    with pytest.warns(ImageryWarning, match=r"not images of the set.: c$"):
        assert [s.name for s in read_samples(root, gsd_m=1)] == ["a/1.png", "a/b/1.png"]


def test_links_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(picture((1, 1, 1))))
    index = b"path,class\na.png,water\n"
    root = folder(tmp_path / "set", {"index.csv": index})
    (root / "a.png").symlink_to(tmp_path / "secret.png")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(root / "index.csv", "index.csv")
        tar.add(root / "a.png", "a.png")
    for source in (root, tmp_path / "set.tar"):
        with pytest.raises(DatasetError, match=r"not in it: a.png"):
            list(read_samples(source, gsd_m=1))


def test_broken_archives_and_images_are_named(tmp_path: Path) -> None:
    for name in ("set.tar.xz", "set.tar.gz", "set.zip"):
        path = packed(tmp_path / name, members())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DatasetError, match=rf"{name}' cannot be read as an archive"):
            list(read_samples(path, gsd_m=1))
    unordered = packed(tmp_path / "u.tar", dict(reversed(members().items())))
    with pytest.raises(DatasetError, match=r"begins with 'water/water_1.png', expected index.csv"):
        list(read_samples(unordered, gsd_m=1))

    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    half = folder(tmp_path / "half", {"a/1.png": png(noise)[:2000]})
    with pytest.raises(DatasetError, match=r"'a/1.png' cannot be read .*truncated"):
        list(read_samples(half, gsd_m=1))
    fake = folder(tmp_path / "fake", {"a/1.jpg": b"not an image"})
    with pytest.raises(DatasetError, match=r"'a/1.jpg' is not an image that can be read"):
        list(read_samples(fake, gsd_m=1))


def test_pillows_limit_against_bombs_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = folder(tmp_path / "s", {"big.png": png(picture((0, 0, 0)))})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DatasetError, match=r"'big.png' is too large to be opened .*bomb"):
        list(read_samples(bomb, gsd_m=1))


def test_pictures_become_red_green_blue_where_that_is_unambiguous(tmp_path: Path) -> None:
    rgb = picture((200, 100, 50))
    opaque = Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]))
    holed = np.array(opaque)
    holed[2, 3] = (7, 7, 7, 0)  # missing: takes its neighbours' white
    grey = Image.fromarray(rgb[..., 0])
    palette = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    keyed, key = io.BytesIO(), np.where(np.indices(rgb.shape)[0] == 9, 7, rgb).astype(np.uint8)
    Image.fromarray(key).save(keyed, "PNG", transparency=(7, 7, 7))  # that colour is missing
    files = {
        "alpha.png": png(opaque), "grey.png": png(grey), "holed.png": png(Image.fromarray(holed)),
        "keyed.png": keyed.getvalue(), "palette.png": png(palette),
    }  # fmt: skip
    samples = {s.name: s.image for s in read_samples(folder(tmp_path / "s", files), gsd_m=1)}
    for name in ("alpha.png", "holed.png", "keyed.png", "palette.png"):
        np.testing.assert_array_equal(samples[name], rgb)
    np.testing.assert_array_equal(samples["grey.png"], np.repeat(rgb[..., :1], 3, axis=2))


def test_pictures_without_definite_colours_are_refused(tmp_path: Path) -> None:
    glass = np.full((8, 8, 4), 128, np.uint8)
    deep = Image.fromarray(np.full((8, 8), 4000, np.uint16))
    cmyk, pages = io.BytesIO(), io.BytesIO()
    Image.new("CMYK", (8, 8)).save(cmyk, "JPEG")
    Image.new("RGB", (8, 8)).save(pages, "TIFF", save_all=True, append_images=[deep])
    for content, message in (
        (png(glass), "partly transparent"),
        (png(deep), "16 bits a band"),
        (cmyk.getvalue(), "mode 'CMYK'"),
        (pages.getvalue(), "contains 2 images"),
    ):
        path = tmp_path / "one.png"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=rf"'one.png' .*{message}"):
            list(read_samples(path, gsd_m=1))


def test_sixteen_bits_of_colour_are_not_cut_silently(
    tmp_path: Path, write_scene: Callable[..., Path], recwarn: pytest.WarningsRecorder
) -> None:
    path = write_scene(
        np.full((3, 20, 20), 4000, np.uint16), crs=None, names=None, photometric="RGB",
        interleave="pixel",
    )  # fmt: skip
    recwarn.clear()
    with pytest.raises(DatasetError, match="16 bits a band"):
        list(read_samples(path, gsd_m=1))


def test_metres_come_from_the_georeference_or_the_caller(
    tmp_path: Path, write_scene: Callable[..., Path]
) -> None:
    with pytest.raises(SpecError, match="gsd_m"):
        read_samples(tmp_path, gsd_m=0)
    with pytest.raises(UnknownNameError, match="train"):
        read_samples(tmp_path, split="trian")
    (tmp_path / "a.png").write_bytes(png(picture((1, 2, 3))))
    with pytest.raises(DatasetError, match=r"'a.png' has no georeference.*gsd_m"):
        list(read_samples(tmp_path / "a.png"))

    rng = np.random.default_rng(3)
    values = rng.integers(1, 3000, (3, 24, 20), np.uint16)
    scene = write_scene(values, nodata=0)
    (sample,) = read_samples(scene)
    assert (sample.gsd_m, sample.label, sample.name) == (10.0, None, "scene.tif")
    expected = (values.astype(np.float32) / np.float32(3000) * 255).astype(np.uint8)
    assert np.abs(sample.image.astype(int) - expected.transpose(1, 2, 0)).max() <= 1
    with pytest.raises(DatasetError, match=r"gsd_m=5.*'scene.tif' covers 10 m"):
        list(read_samples(scene, gsd_m=5))
    degrees = write_scene(values, crs="EPSG:4326", name="degrees.tif", transform=_DEGREES)
    with pytest.raises(DatasetError, match=r"'degrees.tif': got imagery in degrees"):
        list(read_samples(degrees))


_DEGREES = Affine(1e-4, 0, 10, 0, -1e-4, 47)


def test_eight_bit_geotiffs_stay_as_they_are(write_scene: Callable[..., Path]) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 256, (3, 24, 20), np.uint8)
    values[:, 5, 5] = 0  # true black, since nothing declares nodata
    names = ("red", "green", "blue")
    (sample,) = read_samples(write_scene(values, names=names))
    np.testing.assert_array_equal(sample.image, values.transpose(1, 2, 0))

    values[:, 5, 5] = 1
    values[:, 5, 6:] = values[:, 5, 5:6]
    values[:, 5, 10] = 255
    declared = write_scene(values, names=names, nodata=255, name="declared.tif")
    filled = next(iter(read_samples(declared))).image
    assert tuple(filled[5, 10]) == (1, 1, 1)


def test_scenes_that_are_mostly_nodata_are_left_out(
    tmp_path: Path, write_scene: Callable[..., Path]
) -> None:
    values = np.random.default_rng(5).integers(500, 3000, (3, 24, 20), np.uint16)
    write_scene(values, nodata=0, name="whole.tif")
    values[:, :14] = 0
    empty = write_scene(values, nodata=0, name="empty.tif")
    with pytest.warns(ImageryWarning, match=r"less than half valid.: empty.tif"):
        assert [s.name for s in read_samples(tmp_path)] == ["whole.tif"]
    with pytest.raises(DatasetError, match=r"42% of 'empty.tif' is valid"):
        list(read_samples(empty))


def test_scenes_within_archives_are_measured_too(
    tmp_path: Path, write_scene: Callable[..., Path]
) -> None:
    values = np.random.default_rng(6).integers(500, 3000, (3, 24, 20), np.uint16)
    scene = write_scene(values, nodata=0)
    files = {"index.csv": b"path,class\na/1.tif,a\n", "a/1.tif": scene.read_bytes()}
    (sample,) = read_samples(packed(tmp_path / "set.tar.gz", files))
    assert (sample.gsd_m, sample.label) == (10.0, "a")
    np.testing.assert_array_equal(sample.image, next(iter(read_samples(scene))).image)


def test_real_sets(shared_data: Path) -> None:
    merced = list(read_samples(shared_data / "ucmerced" / "ucmerced_840.zip", gsd_m=0.3))
    assert len(merced) == 840
    assert len({s.label for s in merced}) == 21
    first = next(iter(read_samples(shared_data / "eurosat/eurosat_subset_4000.tar.xz", gsd_m=10)))
    assert (first.label, first.split, first.image.shape) == ("AnnualCrop", "train", (64, 64, 3))
    (naip,) = read_samples(shared_data / "naip_5m" / "naip_20140720_5m.tif")
    assert (naip.gsd_m, naip.image.shape) == (5.0, (512, 512, 3))


def test_a_set_that_states_no_split_is_parted_when_one_is_asked(tmp_path: Path) -> None:
    image = png(picture((1, 2, 3)))
    folder(tmp_path, {f"{of}/{of}{number}.png": image for of in "ab" for number in range(1, 12)})
    names = {
        split: [sample.name for sample in read_samples(tmp_path, gsd_m=1, split=split)]
        for split in ("train", "val")
    }
    assert names["val"] == ["a/a10.png", "a/a11.png", "b/b10.png", "b/b11.png"]  # not a9
    assert len(names["train"]) == 18
    assert {sample.split for sample in read_samples(tmp_path, gsd_m=1, split="val")} == {"val"}
    every = list(read_samples(tmp_path, gsd_m=1))
    assert {sample.split for sample in every} == {None}
    assert [s.name for s in every if s.assumed_split == "val"] == names["val"]


def test_what_is_held_out_depends_on_no_order() -> None:
    images = [(name, name, "a") for name in ("x_1", "x_01", "x_001", "x_2", "x_02")]
    assert held_out(images) == held_out(images[::-1]) == {"x_2"}
