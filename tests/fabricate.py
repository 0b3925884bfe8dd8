"""Small data sets on disk, with the real structures, made for tests."""

import functools
import gzip
import io
import pathlib
import pickle
import struct
import tarfile

import numpy as np
from PIL import Image


def jpeg(seed: int, height: int = 48, width: int = 64, quality: int = 90) -> bytes:
    """Returns a JPEG of height x width cut from a photograph that scikit-learn ships."""
    photos = _photographs()
    photo = photos[seed % len(photos)]
    draws = np.random.default_rng(seed)
    top = draws.integers(photo.shape[0] - height + 1)
    left = draws.integers(photo.shape[1] - width + 1)
    return encoded(photo[top : top + height, left : left + width], "JPEG", quality=quality)


def encoded(pixels: np.ndarray, kind: str = "JPEG", **options) -> bytes:
    """Returns `pixels` uint8 [H, W, 3] or [H, W] as a file of a Pillow format."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def idx_file(path: pathlib.Path, values: np.ndarray) -> None:
    """Writes uint8 `values` as an IDX file, packed if the name ends in .gz."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(header + values.astype(np.uint8).tobytes())


def idx_directory(
    directory: pathlib.Path, train: int = 40, test: int = 15, size: int = 8, width: int = 0
) -> None:
    """Writes a directory like MNIST's: `train` and `test` random images, square without `width`, of
    ten classes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    for prefix, count, suffix in (("train", train, ".gz"), ("t10k", test, "")):
        images = draws.integers(0, 256, (count, size, width or size), np.uint8)
        idx_file(directory / f"{prefix}-images-idx3-ubyte{suffix}", images)
        idx_file(directory / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)


def tfds_directory(
    root: pathlib.Path,
    splits: dict[str, list[tuple[bytes, int]]],
    *,
    name: str = "imagenet2012",
    version: str = "5.1.0",
    classes: list[str] | None = None,
    file_format: str = "array_record",
    shape: tuple = (None, None, 3),
    shards: int = 2,
) -> pathlib.Path:
    """Writes a prepared TFDS data set as TFDS itself lays it out, and returns its version's
    directory.

    Args:
      root: what TFDS calls data_dir.
      splits: split name -> (encoded image, label) in order.
      name, version: the data set's; a name may end in "/config".
      classes: class names; None is the 1,000 WordNet ids of ImageNet.
      file_format: "array_record" or "tfrecord".
      shape: the shape that the image feature states.
      shards: files a split.
    """
    import tensorflow_datasets as tfds

    directory = root / name / version
    directory.mkdir(parents=True)
    kind = "jpeg" if shape[0] is None else "png"
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape, encoding_format=kind),
            "label": tfds.features.ClassLabel(names=classes or wordnet_ids()),
            "file_name": tfds.features.Text(),
        }
    )
    infos = []
    for split, examples in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory,
            dataset_name=name.split("/")[0],
            filetype_suffix=file_format,
            split=split,
        )
        records = [
            features.serialize_example(
                {"image": image, "label": label, "file_name": f"{split}_{place}.JPEG"}
            )
            for place, (image, label) in enumerate(examples)
        ]
        parts = [list(part) for part in np.array_split(np.array(records, object), shards)]
        for number, part in enumerate(parts):
            path = template.sharded_filepath(shard_index=number, num_shards=shards)
            write_records(pathlib.Path(path), part, file_format)
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(part) for part in parts],
                num_bytes=sum(map(len, records)),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=infos,
        filename_template=template,
        check_data=False,
    )
    return directory


def imagenet(root: pathlib.Path, train: int = 32, validation: int = 12, **options) -> pathlib.Path:
    """Writes a TFDS imagenet2012 of few photographs of various sizes, with all 1,000 classes
    named.
    """
    splits = {
        split: [
            (jpeg(first + i, 40 + 3 * (i % 7), 60 + 5 * (i % 5)), (first + 37 * i) % 1000)
            for i in range(count)
        ]
        for split, first, count in (("train", 0, train), ("validation", 10_000, validation))
    }
    return tfds_directory(root, splits, **options)


def tar(path: pathlib.Path, files: list[tuple[str, bytes]]) -> None:
    """Writes a tar of (name, content)."""
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_records(path: pathlib.Path, records: list[bytes], file_format: str) -> None:
    """Writes one shard."""
    if file_format == "array_record":
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    else:
        path.write_bytes(b"".join(tfrecord_frame(record) for record in records))


def tfrecord_frame(record: bytes) -> bytes:
    """Returns one record in TFRecord's framing: length, its masked CRC, the bytes, their masked
    CRC.
    """
    length = struct.pack("<Q", len(record))
    return length + _masked_crc(length) + record + _masked_crc(record)


@functools.cache
def wordnet_ids() -> list[str]:
    """Returns ImageNet's 1,000 WordNet ids, as TFDS lists them."""
    import tensorflow_datasets as tfds

    path = tfds.core.tfds_path("datasets/imagenet2012/labels.txt")
    return path.read_text().split()


@functools.cache
def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def _masked_crc(data: bytes) -> bytes:
    # Another implementation than the package's, which these files are to check.
    from tensorboardX.record_writer import masked_crc32c

    return struct.pack("<I", masked_crc32c(data))


def folder_tree(root: pathlib.Path, splits: dict[str, dict[str, list[bytes]]]) -> None:
    """Writes root/split/class/image_0000.jpg ...; a split called "" puts the classes into `root`
    itself.
    """
    for split, classes in splits.items():
        for name, images in classes.items():
            (root / split / name).mkdir(parents=True)
            for number, image in enumerate(images):
                (root / split / name / f"image_{number:04d}.jpg").write_bytes(image)


def cifar_directory(
    root: pathlib.Path, form: str = "binary", classes: int = 10, per_file: int = 6
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes CIFAR-10's or CIFAR-100's files, binary or Python, of random pixels.

    Args:
      root: the directory.
      form: "binary" or "python".
      classes: 10 or 100.
      per_file: examples a file.

    Returns:
      split -> (images uint8 [n, 32, 32, 3], labels int [n]).
    """
    root.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(1)
    files = {10: {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}}.get(
        classes, {"train": ["train"], "test": ["test"]}
    )
    names = [f"class{i}" for i in range(classes)]
    content = {}
    for split, listed in files.items():
        parts = []
        for file in listed:
            pixels = draws.integers(0, 256, (per_file, 3072), np.uint8)
            labels = draws.integers(0, classes, per_file)
            if form == "binary":
                ahead = (
                    [labels[:, None]] if classes == 10 else [labels[:, None] // 5, labels[:, None]]
                )
                np.hstack([*ahead, pixels]).astype(np.uint8).tofile(root / f"{file}.bin")
            else:
                key = b"labels" if classes == 10 else b"fine_labels"
                (root / file).write_bytes(
                    pickle.dumps({b"data": pixels, key: labels.tolist()}, protocol=2)
                )
            parts.append((pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels))
        content[split] = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    if form == "binary":
        (root / ("batches.meta.txt" if classes == 10 else "fine_label_names.txt")).write_text(
            "\n".join(names)
        )
    else:
        key = b"label_names" if classes == 10 else b"fine_label_names"
        meta = {key: [name.encode() for name in names]}
        (root / ("batches.meta" if classes == 10 else "meta")).write_bytes(
            pickle.dumps(meta, protocol=2)
        )
    return content
