"""Folder trees: nothing in them is left out, or chosen, without a word."""

import collections
import contextlib
import functools
import os
import pathlib
import shutil

import fabricate
import numpy as np
import pytest
from data_settings import settings

from resnet_jax import UserError, data
from resnet_jax.data.sources import classes, holdout, tree


def opened(train=True, say=None, **changes):
    fields = settings(name="folder", **changes)
    data.check(fields)
    return data.open_source(fields, train, say)


def names(source):
    return sorted(str(path.relative_to(path.parents[1])) for path in source.paths)


@pytest.fixture
def root(tmp_path):
    images = [fabricate.jpeg(i, 30, 40) for i in range(3)]
    fabricate.folder_tree(
        tmp_path / "t", {split: {"a": images, "b": images} for split in ("train", "val")}
    )
    return tmp_path / "t"


def test_what_is_no_image_is_counted_by_kind(root):
    folder = root / "train" / "a"
    (folder / "notes.txt").write_text("x")
    (folder / "readme").write_text("x")
    (folder / "._image_0000.jpg").write_bytes(b"resource fork")
    (folder / "2021").mkdir()
    (folder / "2021" / "more.jpg").write_bytes(b"x")
    (root / "train" / "loose.jpg").write_bytes(b"x")
    source = opened(dir=str(root))
    assert len(source) == 6
    (line,) = source.notes
    assert line.startswith(f"passed over in {root / 'train'}: ")
    assert set(line.partition(": ")[2].split("; ")) == {
        "files with another suffix: 2 (a/notes.txt, ...)",
        "dot files: 1 (a/._image_0000.jpg)",
        "deeper folders: 1 (a/2021)",
        "images outside of the class folders: 1 (loose.jpg)",
    }


def test_a_loader_says_what_was_passed_over(root):
    (root / "train" / "a" / "notes.txt").write_text("x")
    said, fields = [], settings(name="folder", dir=str(root), image_size=8)
    data.Loader(
        data.open_source(fields, True), fields, batch_size=2, seed=0, train=True, say=said.append
    )
    assert said == [f"passed over in {root / 'train'}: files with another suffix: 1 (a/notes.txt)"]


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "jfif", "jpe", "JpEg"])
def test_every_usual_suffix_of_an_image_is_read(root, suffix):
    new = root / "train" / "b" / f"new.{suffix}"
    kind = "TIFF" if suffix.lower().startswith("tif") else "JPEG"
    new.write_bytes(fabricate.encoded(np.full((20, 20, 3), 200, np.uint8), kind))
    source = opened(dir=str(root))
    assert source.notes == ()
    fields = settings(name="folder", dir=str(root), image_size=8)
    loader = data.Loader(source, fields, batch_size=7, seed=0, train=False)
    (row,) = [row for row in range(7) if source.paths[row] == new]
    assert abs(loader[0]["image"][row].astype(int) - 200).max() < 5


def test_links_to_images_are_read_and_a_link_that_leads_nowhere_stops(root):
    link = root / "train" / "a" / "link.jpg"
    link.symlink_to(root / "val" / "a" / "image_0000.jpg")
    assert len(opened(dir=str(root))) == 7
    (root / "val" / "a" / "image_0000.jpg").unlink()
    with pytest.raises(UserError, match=r"a/link\.jpg: is a link that leads nowhere"):
        opened(dir=str(root))


def test_a_folder_that_cannot_be_read_is_named(root, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"train/b: cannot be read \(Permission denied\)"):
        opened(dir=str(root))


@pytest.mark.parametrize("name", ["folder", "cifar", "idx", "shards", "imagenet_tars"])
def test_a_directory_that_may_not_be_searched_is_named(name, tmp_path, monkeypatch):
    stat, listed = os.stat, os.scandir

    def closed(path, *arguments, of, **options):
        if str(path).startswith(f"{tmp_path}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return of(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", functools.partial(closed, of=stat))
    monkeypatch.setattr(os, "scandir", functools.partial(closed, of=listed))
    with pytest.raises(UserError, match=str(tmp_path)):
        data.open_source(settings(name=name, dir=str(tmp_path)), True)


def test_a_home_of_nobody_is_no_directory():
    with pytest.raises(UserError, match=r"config\.data\.dir = '~nobody-here/x': no such directory"):
        data.open_source(settings(name="folder", dir="~nobody-here/x"), True)


def test_class_folders_need_names_that_can_be_written_down(root):
    odd = os.fsencode(root / "train") + b"/caf\xe9"
    shutil.copytree(os.fsencode(root / "train" / "a"), odd)
    with pytest.raises(UserError, match=r"caf\\\\xe9': the name of this class folder is not UTF-8"):
        opened(dir=str(root))
    os.rename(odd, root / "train" / "two\nlines")
    with pytest.raises(UserError, match="takes several lines; rename it"):
        opened(dir=str(root))


def test_names_of_files_may_be_any_bytes(root):
    odd = os.fsencode(root / "train" / "b") + b"/\xff\xfe.jpg"
    shutil.copy(root / "train" / "b" / "image_0000.jpg", odd)
    source = opened(dir=str(root))
    assert source[6].image == source[3].image
    assert source.where(6).encode().endswith(rb"b/\xff\xfe.jpg")
    assert tree.printable("two\nlines\x1b[2J caf\u00e9.jpg") == r"two\x0alines\x1b[2J café.jpg"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"x\ny\n", ["x", "y"]),
        (b"x\r\ny\r\n\r\n\n", ["x", "y"]),
        (b"\xef\xbb\xbfx\ny", ["x", "y"]),
        (b" x \n y y\t\n", ["x", "y y"]),
        (b"x\n\ny\n", "line 2 is empty"),
        (b"x\ny\nx\n", "lists 'x' twice"),
        (b"\xe9\ny\n", "is not UTF-8"),
        (b"\n\n", "lists no class"),
        (b"", "lists no class"),
        (b"x\0\ny\n", "holds zero bytes"),
    ],
)
def test_a_list_of_classes_is_read_as_meant_or_refused(tmp_path, content, expected):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    if isinstance(expected, list):
        assert classes.read(path) == expected
    else:
        with pytest.raises(UserError, match=rf"classes\.txt: .*{expected}"):
            classes.read(path)


def test_a_list_of_classes_names_folders(root):
    (root / "classes.txt").write_text("a\n../train/b\n")
    with pytest.raises(UserError, match=r"'\.\./train/b' is no folder's name"):
        opened(dir=str(root))


def test_an_evaluation_split_may_lack_classes_and_says_which(root):
    shutil.rmtree(root / "val" / "b")
    said, fields = [], settings(name="folder", dir=str(root), image_size=8)
    source = data.open_source(fields, False)
    data.Loader(source, fields, batch_size=2, seed=0, train=False, say=said.append)
    assert said == ["val is scored and has no image of 1 of the 2 classes (b)"]


def test_images_in_memory_may_lack_classes_and_say_which(tmp_path):
    fabricate.idx_directory(tmp_path, train=40, test=8)
    said, fields = [], settings(name="idx", dir=str(tmp_path))
    source = data.open_source(fields, False)
    data.Loader(source, fields, batch_size=2, seed=0, train=False, say=said.append)
    assert said == ["test is scored and has no image of 2 of the 10 classes (8, 9)"]


def test_two_names_of_one_split_are_not_chosen_between(root):
    shutil.copytree(root / "val", root / "validation")
    with pytest.raises(UserError, match="has val and validation, which mean the same"):
        opened(False, dir=str(root))
    assert opened(False, dir=str(root), eval_split="validation").split == "validation"


def test_a_share_to_hold_out_that_has_no_effect_is_named(root):
    (line,) = opened(dir=str(root), eval_fraction=0.5).notes
    assert line.startswith(
        f"config.data.eval_fraction = 0.5 has no effect, since {root} has a folder train;"
    )


def test_a_class_may_be_called_train(root):
    for name in ("car", "plane"):
        shutil.copytree(root / "train" / "a", root / name)
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "train" / "a")
    for path in (root / "train" / "b").iterdir():
        path.rename(root / "train" / path.name)
    (root / "train" / "b").rmdir()
    source = opened(dir=str(root), eval_fraction=0.4)
    assert source.classes == ("car", "plane", "train")


@pytest.mark.parametrize("name", ["folder", "digits", "cifar", "idx", "shards", "imagenet2012"])
def test_a_directory_that_does_not_exist_is_called_so(name):
    with pytest.raises(UserError, match=r"config\.data\.dir = '/nope': no such directory"):
        data.open_source(settings(name=name, dir="/nope"), True)


def test_a_long_reading_says_how_far_it_is(root, monkeypatch):
    monkeypatch.setattr(tree, "_SECONDS_BETWEEN_LINES", -1)
    said = []
    opened(dir=str(root), say=said.append)
    assert said == [
        f"reading {root / 'train'}: 3 files in 1 of 2 folders",
        f"reading {root / 'train'}: 6 files in 2 of 2 folders",
    ]


def test_a_large_tree_is_kept_without_an_object_a_file(tmp_path):
    names = b"".join(b"image_%08d.JPEG\0" % i for i in range(1000))
    files = tree.Files(tmp_path, [f"class{i}" for i in range(200)], [names] * 200)
    assert len(files) == 200_000
    assert files[123_456] == tmp_path / "class123" / "image_00000456.JPEG"
    assert files[-1] == tmp_path / "class199" / "image_00000999.JPEG"
    held = len(files._names) + files._ends.nbytes + files.labels.nbytes
    assert held < 35 * len(files)


@pytest.fixture
def single(tmp_path):
    """A single folder of twelve classes of ten images, each of its own content."""
    root = tmp_path / "single"
    for label in range(12):
        (root / f"c{label:02d}").mkdir(parents=True)
        for i in range(10):
            (root / f"c{label:02d}" / f"{i}.png").write_bytes(b"%d %d" % (label, i))
    return root


def shares(root, **changes):
    fields = {"dir": str(root), "eval_fraction": 0.2, **changes}
    return {train: opened(train, **fields) for train in (True, False)}


@pytest.mark.parametrize("rule", ["content", "name", "position"])
def test_every_file_is_on_one_side_and_every_class_on_both(single, rule):
    found = shares(single, holdout=rule)
    train, val = (set(names(found[side])) for side in (True, False))
    assert not train & val
    assert len(train | val) == 120
    assert all(len(np.unique(found[side].labels)) == 12 for side in (True, False))
    assert 12 <= len(val) <= 40
    assert {source.holdout for source in found.values()} == {rule}


def test_a_renamed_file_moves_no_other(single):
    before = set(names(shares(single)[False]))
    moved = 0
    for name in sorted(before)[::5]:
        path = single / name
        path.rename(path.with_name("zzz.png"))
        after = set(names(shares(single)[False]))
        moved += len((before - {name}) ^ {n for n in after if not n.endswith("zzz.png")})
        # The same content is on the same side, whatever its name.
        assert any(n.endswith("zzz.png") for n in after)
        path.with_name("zzz.png").rename(path)
    assert moved == 0


def test_an_added_file_moves_no_other_by_name(single):
    before = set(names(shares(single, holdout="name")[False]))
    for label in range(12):
        (single / f"c{label:02d}" / "00.png").write_bytes(b"new")
    after = set(names(shares(single, holdout="name")[False]))
    # A class that gave its file may no longer need to.
    assert len(before - after) <= 2
    assert after - before <= {f"c{label:02d}/00.png" for label in range(12)}


def test_copies_of_an_image_stay_on_one_side(single):
    for label in range(0, 12, 2):
        for i in range(10):
            source = single / f"c{label:02d}" / f"{i}.png"
            shutil.copy(source, single / f"c{label + 1:02d}" / f"copy{i}.png")
    found = shares(single)
    content = {side: {path.read_bytes() for path in found[side].paths} for side in found}
    assert not content[True] & content[False]


def test_copies_in_other_classes_leave_no_class_without_an_image(single):
    alone = shares(single, eval_fraction=0.02)[False]
    given = list(alone.paths)
    for label in range(12):
        (single / f"c{label:02d}" / "copy.png").write_bytes(given[label % 3].read_bytes())
    for fraction in (0.02, 0.1, 0.9, 0.98):
        found = shares(single, eval_fraction=fraction)
        content = {side: {path.read_bytes() for path in found[side].paths} for side in found}
        assert not content[True] & content[False]
        assert all(len(np.unique(found[side].labels)) == 12 for side in found)


def test_no_class_is_left_untrained_however_copies_lie(single):
    """Trees of a few images, many of them in several classes: each class that can be is on both
    sides, and none is held out whole.
    """
    draw = np.random.default_rng(0)
    both = 0
    for _ in range(200):
        trees = [draw.choice(6, draw.integers(1, 4), replace=False) for _ in range(4)]
        for label in range(4):
            folder = single / f"c{label:02d}"
            shutil.rmtree(folder)
            folder.mkdir()
            for image in trees[label]:
                (folder / f"{image}.png").write_bytes(b"%d" % image)
        files = tree.scan(single, [f"c{label:02d}" for label in range(4)], print)[0]
        held, *_ = holdout.held_out(files, float(draw.choice([0.1, 0.5, 0.9])), "content")
        content = {side: {files.read(place) for place in np.flatnonzero(held == side)}
                   for side in (True, False)}  # fmt: skip
        assert not content[True] & content[False]
        for label in range(4):
            sides = held[files.labels == label]
            assert not sides.all()
            both += sides.any()
    assert both > 500


def test_a_class_without_a_held_out_image_gives_one_and_a_line_says_so(single):
    found = shares(single, eval_fraction=0.1)
    assert len(np.unique(found[False].labels)) == 12
    (line,) = found[True].notes
    assert "eval_fraction 0.1 left one side of" in line
    assert "gave it the file with the lowest hash" in line
    nearly_all = shares(single, eval_fraction=0.9)
    assert len(np.unique(nearly_all[True].labels)) == 12


def test_a_class_of_one_image_is_trained_on(single):
    for path in list((single / "c00").iterdir())[1:]:
        path.unlink()
    for path in list((single / "c01").iterdir()):
        path.write_bytes(b"the same everywhere")
    for fraction in (0.2, 0.8):
        found = shares(single, eval_fraction=fraction)
        assert {0, 1} <= set(found[True].labels.tolist())
        assert found[False].missing_classes()[:2] == ("c00", "c01")


def test_a_large_set_is_divided_by_name(single, monkeypatch):
    assert shares(single)[True].holdout == "content"
    monkeypatch.setattr(holdout, "_CONTENT_BYTES", 100)
    found = shares(single)[False]
    assert found.holdout == "name"
    assert names(found) == names(shares(single, holdout="name")[False])


def test_the_rule_is_the_same_on_every_machine(single):
    """Held against the files that this version held out when the rule was made."""
    counts = collections.Counter(
        pathlib.PurePath(name).parts[0] for name in names(shares(single)[False])
    )
    assert [counts[f"c{label:02d}"] for label in range(12)] == [1, 3, 2, 1, 1, 1, 1, 2, 3, 1, 1, 2]
    assert names(shares(single, holdout="name")[False])[:6] == [
        "c00/2.png",
        "c00/6.png",
        "c01/1.png",
        "c01/2.png",
        "c01/4.png",
        "c02/1.png",
    ]


def test_a_split_that_is_part_of_all_files_shares_its_images_with_them(root):
    fields = {"dir": str(root / "train"), "eval_fraction": 0.4}
    everything, train = opened(False, eval_split="all", **fields), opened(**fields)
    assert len(everything) == 6
    assert data.count_shared(train, everything) == len(train) < 6
    assert data.count_shared(train, opened(False, **fields)) == 0


def test_training_images_are_never_squashed(root):
    def first(mode):
        fields = settings(
            name="folder", dir=str(root), image_size=8, random_resized_crop=False, flip=False,
            eval_crop_mode=mode,
        )  # fmt: skip
        source = data.open_source(fields, True)
        with contextlib.closing(
            data.Loader(source, fields, batch_size=2, seed=0, train=True)
        ) as loader:
            return loader[0]["image"]

    np.testing.assert_array_equal(first("centre"), first("squash"))
