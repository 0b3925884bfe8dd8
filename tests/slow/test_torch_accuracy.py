"""A file of torchvision's, scored here and by PyTorch at two sizes: the same answers."""

import csv
import json

import fabricate
import numpy as np
import pytest
from running import launch

CLASSES = ("left", "middle", "right")
SIZES = (64, 96)


def examples(count, seed):
    """Yields (class, JPEG) of various sizes, cut from a third of a photograph each."""
    draw = np.random.default_rng(seed)
    photos = fabricate._photographs()
    for number in range(count):
        photo, third = photos[number % 2], number % 3
        height, width = (int(side) for side in draw.integers((60, 60), (300, 210)))
        top = int(draw.integers(photo.shape[0] - height + 1))
        left = int(third * 213 + draw.integers(213 - width + 1))
        yield third, fabricate.encoded(photo[top : top + height, left : left + width])


def test_a_file_scores_as_in_pytorch_to_the_image(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision_operators")
    torchvision = pytest.importorskip("torchvision")
    for split, count in (("train", 240), ("val", 300)):
        tree = {name: [] for name in CLASSES}
        for label, jpeg in examples(count, count):
            tree[CLASSES[label]].append(jpeg)
        fabricate.folder_tree(tmp_path / "photos", {split: tree})

    def loader(split, size, batch):
        transforms = torchvision.transforms
        prepare = transforms.Compose(
            [
                transforms.Resize(round(size / 0.875)),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        folder = torchvision.datasets.ImageFolder(str(tmp_path / "photos" / split), prepare)
        return torch.utils.data.DataLoader(folder, batch, shuffle=split == "train")

    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3)
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    for _ in range(10):
        for images, labels in loader("train", SIZES[0], 24):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    done = launch(
        "--mode=evaluate",
        f"--weights={tmp_path / 'resnet18.pth'}",
        "--model=resnet18",
        f"--classes={tmp_path / 'names.txt'}",
        f"--data_dir={tmp_path / 'photos'}",
        f"--eval_size={','.join(map(str, SIZES))}",
        f"--output_dir={tmp_path}",
        timeout=600,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()[-len(SIZES) :]]
    for size, record in zip(SIZES, records, strict=True):
        theirs = np.zeros((3, 3), int)
        with torch.no_grad():
            for images, labels in loader("val", size, 50):
                np.add.at(theirs, (labels.numpy(), network(images).argmax(-1).numpy()), 1)
        with (tmp_path / f"confusion_{size}.csv").open() as file:
            ours = np.array([list(map(int, row[1:])) for row in list(csv.reader(file))[1:]])
        print(f"{size} pixels: {np.trace(ours)} of 300 right here, {np.trace(theirs)} in PyTorch")
        np.testing.assert_array_equal(ours, theirs)
        assert record["top1"] == np.trace(theirs) / 300
        assert 100 < np.trace(theirs) < 300
