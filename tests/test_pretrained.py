"""Networks that others trained: from directories as timm and transformers write them, and the hub.

The goldens are what timm itself writes and computes; tests/models/make_pretrained_goldens.py makes
them.
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from running import slow_where

import resnet_jax
from resnet_jax import UserError, create_model, list_pretrained, load_pretrained, save_torch
from resnet_jax.models.interop.torch_files import read_weights, write_weights

sys.path.insert(0, str(Path(__file__).parent / "models"))
from golden_weights import CLASSES, PRETRAINED_SIZE, digest, fill, images

HERE = Path(__file__).parent
GOLDENS = json.loads((HERE / "models" / "pretrained_goldens.json").read_text())
# One of each kind of stem, block, shortcut, gate, filter and version; `slow/` has all.
OF_EACH_KIND = ("resnet18", "resnet50c", "resnet18d", "resnetv2_18", "seresnet18", "resnetrs50")
OF_EACH_KIND += ("resnext50_32x4d", "resnetblur18")
TINY = {"stage_sizes": (1, 1), "block": "basic", "width": 8, "stem_width": 8}


def write_timm_directory(golden, directory):
    """Makes again the directory that timm wrote, from its config.json and its arrays' names."""
    config = golden["config"]
    model = create_model(config["architecture"], num_classes=CLASSES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    file = directory / "model.safetensors"
    save_torch(zeros, file)
    header = file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")]
    keys = {key: entry["shape"] for key, entry in json.loads(header).items() if key[0] != "_"}
    assert digest(keys) == golden["keys"]
    write_weights(fill(keys), file)
    (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", slow_where(lambda name: "50" in name, OF_EACH_KIND))
def test_a_directory_that_timm_wrote_gives_timm_s_logits(name, tmp_path):
    golden = GOLDENS["networks"][name]
    write_timm_directory(golden, tmp_path)
    model, variables, description = load_pretrained(str(tmp_path))
    logits = np.asarray(model.apply(variables, images(PRETRAINED_SIZE))[0], np.float64)
    expected = np.asarray(golden["logits"])
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    given = golden["config"]["pretrained_cfg"]
    assert description.image_size == given["input_size"][1]
    assert description.mean == tuple(given["mean"])
    assert description.licence == given.get("license", "unknown")


def tiny(**fields):
    """A network of transformers' shape that is small, with random variables."""
    model = resnet_jax.ResNet(**{**TINY, **fields})
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    draw = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda leaf: draw.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes
    )


def write_transformers_directory(directory, model, variables, **changes):
    save_torch(variables, directory / "model.safetensors")
    basic = model.block == "basic"
    hidden = model.width * (1 if basic else 4)
    config = {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "depths": list(model.stage_sizes),
        "layer_type": model.block,
        "embedding_size": model.width,
        "hidden_sizes": [hidden * 2**stage for stage in range(len(model.stage_sizes))],
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "id2label": {str(number): f"class {number}" for number in range(model.num_classes)},
        **changes,
    }
    processor = {"crop_pct": 0.875, "size": {"shortest_edge": 64}, "resample": 3}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))


@pytest.mark.parametrize(
    "fields", [{"num_classes": 12}, {"block": "bottleneck", "version": "v1", "num_classes": 3}]
)
def test_a_directory_of_transformers_is_read(tmp_path, fields):
    model, variables = tiny(**fields)
    write_transformers_directory(
        tmp_path, model, variables, downsample_in_bottleneck=model.version == "v1"
    )
    (tmp_path / "README.md").write_text("---\ntags: x\nlicense: apache-2.0\n---\n# A network\n")
    loaded, same, description = load_pretrained(str(tmp_path))
    assert loaded == model
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    assert description.classes[:2] == ("class 0", "class 1")
    assert description.classes[-1] == f"class {model.num_classes - 1}"
    assert (description.eval_size, description.interpolation) == (64, "bicubic")
    assert description.crop == pytest.approx(64 / 73)
    assert (description.mean, description.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (description.licence, description.commit) == ("apache-2.0", None)
    assert len(description.digest) == 64


def test_weights_in_several_files_are_put_together(tmp_path):
    model, variables = tiny(num_classes=3)
    write_transformers_directory(tmp_path, model, variables)
    state = read_weights(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    parts = {
        name: f"model-0000{number % 2 + 1}-of-00002.safetensors"
        for number, name in enumerate(state)
    }
    for part in set(parts.values()):
        write_weights({key: state[key] for key in state if parts[key] == part}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": parts}))
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(str(tmp_path))[1], variables)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors: .* is missing"):
        load_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "resnest50d"}, "'resnest50d' is not in the table; .* split attention"),
        ({"architecture": "skresnet18"}, "the nearest is 'resnet50', .* selective kernels"),
        ({"architecture": "resnet51"}, "'resnet51' is not in the table; did you mean 'resnet50'"),
        (
            {"architecture": "resnet50", "model_args": {"output_stride": 8}},
            "model_args .*output_stride.* change the network",
        ),
        ({"model_type": "vit"}, "neither timm's .*model_type 'vit'"),
        ({"model_type": "resnet", "hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"architecture": "resnet18", "crop_mode": "border"}, "cropped by 'border'"),
    ],
)
def test_a_network_that_is_not_ours_is_named_with_what_differs(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        load_pretrained(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def read_timm(**config):
    from resnet_jax.models.interop.pretrained_config import read_config

    return read_config(config, {}, config.pop("size", "train"), "here")


def test_timm_s_two_sizes_its_former_names_and_its_older_form_are_understood():
    given = GOLDENS["pixels"][1]["config"]["pretrained_cfg"]
    for size, expected in (("train", (224, 224, 224 / 235)), ("test", (224, 288, 1.0))):
        images = read_timm(architecture="resnet50", pretrained_cfg=given, size=size).preprocessing
        assert (images["image_size"], images["eval_size"], images["crop"]) == expected
    older = read_timm(architecture="gluon_resnet50_v1d", num_classes=5, crop_pct=0.9)
    assert (older.network, older.fields) == ("resnet50d", {"num_classes": 5})
    assert read_timm(architecture="gluon_resnet101_v1s").network == "resnet101s"
    assert read_timm(architecture="swsl_resnext50_32x4d").network == "resnext50_32x4d"
    assert read_timm(architecture="resnetrs50").network == "resnet_rs50"


def test_class_names_are_the_file_s_own_or_imagenet_s(tmp_path):
    own = read_timm(architecture="resnet18", num_classes=2, label_names={"1": "dog", "0": "cat"})
    assert own.classes == ("cat", "dog")
    model, variables = tiny(num_classes=1000)
    changes = {"id2label": {str(number): f"LABEL_{number}" for number in range(1000)}}
    write_transformers_directory(tmp_path, model, variables, **changes)
    classes = load_pretrained(str(tmp_path))[2].classes
    assert (len(classes), classes[0], classes[-1]) == (1000, "tench", "toilet tissue")


@pytest.mark.parametrize("golden", GOLDENS["pixels"], ids=lambda golden: str(golden["shape"]))
def test_pixels_of_a_photograph_are_those_of_timm_s_transforms(golden):
    datasets = pytest.importorskip("sklearn.datasets")
    photograph = datasets.load_sample_images()["filenames"][0]
    config = read_timm(**golden["config"], size=golden["size"])
    description = resnet_jax.description.Description(**config.preprocessing)
    prepared = resnet_jax.preprocess(photograph, description)
    assert list(prepared.shape[1:]) == golden["shape"]
    levels = (prepared[0] * description.std + description.mean)[::8, ::8] * 255
    difference = np.abs(levels - np.asarray(golden["levels"]))
    assert difference.mean() <= 1


def test_paths_pictures_and_arrays_give_the_same_pixels(tmp_path):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    description = resnet_jax.description.Description(eval_size=32, crop=1.0)
    prepared = resnet_jax.preprocess(
        [tmp_path / "a.png", Image.fromarray(pixels), pixels], description
    )
    assert (prepared.shape, prepared.dtype) == ((3, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(prepared[0], prepared[1])
    np.testing.assert_array_equal(prepared[0], prepared[2])
    alone = resnet_jax.preprocess(pixels, description)
    np.testing.assert_array_equal(alone[0], prepared[0])
    batch = resnet_jax.preprocess(np.stack([pixels, pixels]), description)
    np.testing.assert_array_equal(batch, prepared[:2])
    grey = resnet_jax.preprocess(pixels[..., 0], description)
    np.testing.assert_allclose(
        grey[..., 0] * 0.229 + 0.485, grey[..., 1] * 0.224 + 0.456, atol=1e-6
    )
    squashed = resnet_jax.preprocess(
        pixels, resnet_jax.description.Description(eval_size=32, crop=1.0, crop_mode="squash")
    )
    whole = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(
        squashed[0] * description.std + description.mean, whole, atol=1.01 / 255
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("absent.jpg", r"absent\.jpg: no such file"),
        (np.zeros((4, 4, 3), np.float32), "image 0: an array of float32"),
        (np.zeros((4, 4, 5), np.uint8), r"must be uint8 \[H, W, 3\]"),
        (5, "images of type int"),
    ],
)
def test_what_is_no_image_is_named(images, message):
    with pytest.raises(UserError, match=message):
        resnet_jax.preprocess(images, resnet_jax.description.Description())


def test_the_list_of_repositories_is_read_and_its_page_written_from_it():
    names = list_pretrained("resnet50*")
    assert {"timm/resnet50.a1_in1k", "timm/resnet50.tv2_in1k"} <= set(names)
    assert all(name.startswith("timm/resnet50") for name in names)
    docs = HERE.parent / "docs"
    write_page = runpy.run_path(str(docs / "write_pretrained.py"))["write_page"]
    assert (docs / "pretrained.md").read_text() == write_page()


CLIENT = """
import sys
from resnet_jax.errors import UserError
from resnet_jax.models.interop import hub
try:
    path, commit = hub.fetch(sys.argv[1], sys.argv[2], "some advice")
    print(commit, *sorted(file.name for file in path.iterdir()))
except UserError as error:
    print("refused:", error)
"""


class Hub:
    """A server process over a directory of repositories, and clients in processes of their own.

    huggingface_hub reads its address as it is imported, and within one process it would go on over
    connections that it keeps to a server that has ended.
    """

    def __init__(self, root):
        self.repositories, self._root, self._port = root / "repositories", root, 0
        for name in ("plain", "gated", "cut", "pickled"):
            directory = self.repositories / "owner" / name
            directory.mkdir(parents=True)
            (directory / "config.json").write_text("{}")
            weights = "pytorch_model.bin" if name == "pickled" else "model.safetensors"
            (directory / weights).write_bytes(bytes(range(256)) * 64)
            (directory / "notes.txt").write_text("not wanted")
        (self.repositories / "owner" / "gated" / ".gated").touch()

    def start(self):
        command = [sys.executable, HERE / "hub_server.py", self.repositories, str(self._port)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._port = int(self._server.stdout.readline())

    def stop(self):
        self._server.terminate()
        self._server.wait()
        self._server.stdout.close()

    def fetch(self, name, revision="main"):
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{self._port}",
            "HF_HOME": str(self._root / "cache"),
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, name, revision],
            env=environment,
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()


@pytest.fixture
def hub(tmp_path):
    pytest.importorskip("huggingface_hub")
    served = Hub(tmp_path)
    served.start()
    yield served
    served.stop()


def test_a_repository_is_fetched_once_and_then_read_without_a_connection(hub):
    expected = "0123456789abcdef0123456789abcdef01234567 config.json model.safetensors"
    assert hub.fetch("owner/plain") == expected
    assert hub.fetch("owner/pickled").endswith("config.json pytorch_model.bin")
    assert "owner/absent: no such repository" in hub.fetch("owner/absent")
    assert "gated; accept its terms" in hub.fetch("owner/gated")
    assert "no such revision" in hub.fetch("owner/plain", "v9")
    hub.stop()
    assert hub.fetch("owner/plain") == expected
    assert "cannot be reached and the cache has no copy" in hub.fetch("owner/other")


def test_a_download_that_breaks_off_is_said_and_goes_on_the_next_time(hub):
    cut = hub.repositories / "owner" / "cut" / ".cut"
    cut.touch()
    refusal = hub.fetch("owner/cut")
    assert refusal.startswith("refused: owner/cut at main: the download broke off")
    assert "\n" not in refusal
    hub.stop()
    assert "only a part of it is in the cache" in hub.fetch("owner/cut")
    cut.unlink()
    hub.start()
    assert hub.fetch("owner/cut").endswith("config.json model.safetensors")


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        load_pretrained("timm/resnet50.a1_in1k")
