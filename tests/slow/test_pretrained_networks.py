"""Every network that timm has too, and one trained by PyTorch, as `load_pretrained` reads them."""

import gzip
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from test_pretrained import GOLDENS, PRETRAINED_SIZE, images, write_timm_directory

import resnet_jax

FASHION_MNIST = os.environ.get("FASHION_MNIST", "")


@pytest.mark.parametrize("name", GOLDENS["networks"])
def test_a_directory_that_timm_wrote_gives_timm_s_logits(name, tmp_path):
    golden = GOLDENS["networks"][name]
    write_timm_directory(golden, tmp_path)
    model, variables, _ = resnet_jax.load_pretrained(str(tmp_path))
    logits = np.asarray(model.apply(variables, images(PRETRAINED_SIZE))[0], np.float64)
    expected = np.asarray(golden["logits"])
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def read_idx(name, header):
    content = (Path(FASHION_MNIST) / f"{name}.gz").read_bytes()
    return np.frombuffer(gzip.decompress(content), np.uint8, offset=header)


@pytest.mark.skipif(not FASHION_MNIST, reason="FASHION_MNIST names no directory of its IDX files")
def test_a_network_trained_by_pytorch_names_the_same_images(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision_operators")
    timm = pytest.importorskip("timm")
    pixels, labels = (
        [read_idx(f"{split}-{kind}-ubyte", header) for split in ("train", "t10k")]
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8))
    )
    train, test = (
        (part.reshape(-1, 28, 28, 1).astype(np.float32) / 255 - 0.286) / 0.353 for part in pixels
    )
    torch.manual_seed(0)
    network = timm.create_model("resnet18", in_chans=1, num_classes=10)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for step in range(60):
        rows = slice(128 * step, 128 * (step + 1))
        inputs = torch.from_numpy(train[rows].transpose(0, 3, 1, 2).copy())
        loss = torch.nn.functional.cross_entropy(
            network(inputs), torch.from_numpy(labels[0][rows].astype(np.int64))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    with torch.no_grad():
        theirs = np.concatenate(
            [
                network(torch.from_numpy(part.transpose(0, 3, 1, 2).copy())).numpy()
                for part in np.split(test, 20)
            ]
        )
    model, variables, _ = resnet_jax.load_pretrained(str(tmp_path))
    apply = jax.jit(model.apply)
    ours = np.concatenate([np.asarray(apply(variables, part)) for part in np.split(test, 20)])
    np.testing.assert_array_equal(ours.argmax(-1), theirs.argmax(-1))
    right = (ours.argmax(-1) == labels[1]).sum()
    print(f"{right} of {len(test)} in both")
    assert right > 5000
