"""The verb: from a run to files that are whole, with a card; one line for what a user can fix."""

import builtins
import shlex
import shutil
from pathlib import Path

import pytest
from running import ROOT

from resnet_jax import load_pretrained, restore
from resnet_jax.__main__ import main
from resnet_jax.description import Description
from resnet_jax.exporting import export as exports
from resnet_jax.exporting import usage
from resnet_jax.models.interop import torch_files

RUN = ROOT / "tests" / "workdir"


def export(*arguments):
    return main(["launch.py", "--mode=export", *map(str, arguments)])


def refusal(capsys, *arguments):
    """Returns the one line of an export that must fail."""
    assert export(*arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_run_is_exported_with_its_card_and_replaces_an_earlier_export(tmp_path, capsys):
    out = tmp_path / "deep" / "net"
    out.mkdir(parents=True)
    (out / "config.json").write_text("old")
    (out / "mine.txt").write_text("stays")
    assert export(f"--workdir={RUN}", "--format=torch", f"--output_dir={out}") == 0
    assert "torch: largest difference from the network " in capsys.readouterr().out
    names = {file.name for file in out.iterdir()}
    expected = {"README.md", "classes.txt", "config.json", "mine.txt", "model.safetensors"}
    assert names == expected
    assert [file.name for file in out.parent.iterdir()] == ["net"]
    model, _, about = load_pretrained(str(out))
    described = restore(str(RUN))[2]
    assert (model.num_classes, about.mean) == (10, tuple(described.config.data.mean))
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: unknown\nlibrary_name: pytorch\n")
    assert "# resnet18 with dropout 0.1, stage_sizes (1, 1)" in card
    assert f"--mode=evaluate --workdir={RUN} --which={described.step}" in card
    assert f"top1 {described.scores['top1']:.4f}" in card
    assert "| `data.flip` | `true` |" in card
    assert "net.layer2 = net._make_layer(BasicBlock, 8, 1, stride=2)" in card
    assert (out / "classes.txt").read_text().split() == list("0123456789")


@pytest.mark.parametrize(
    ("form", "package", "extra"),
    [("stablehlo", "flatbuffers", "export"), ("onnx", "onnx", "onnx")],
)
def test_a_package_that_is_missing_is_named_with_the_command(
    form, package, extra, tmp_path, capsys, monkeypatch
):
    load = builtins.__import__

    def without(name, *arguments):
        if name.partition(".")[0] == package:
            raise ImportError(name, name=name)
        return load(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    out = tmp_path / "net"
    said = refusal(capsys, f"--workdir={RUN}", f"--format={form}", f"--output_dir={out}")
    assert f'pip install "flax-resnet[{extra}]"' in said
    assert not out.exists()


def test_the_directory_may_be_a_disk_of_its_own_or_a_link_to_one(tmp_path, capsys, monkeypatch):
    link, there = tmp_path / "here" / "net", tmp_path / "another_disk"
    there.mkdir()
    link.parent.mkdir()
    link.symlink_to(there)
    replace = Path.replace

    def across(path, target):
        if path.resolve().is_relative_to(there) != Path(target).resolve().is_relative_to(there):
            raise OSError(18, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", across)
    assert export(f"--workdir={RUN}", "--format=torch", f"--output_dir={link}") == 0
    names = {file.name for file in there.iterdir()}
    assert names == {"README.md", "classes.txt", "config.json", "model.safetensors"}
    assert link.is_symlink()
    shutil.rmtree(there)  # the link leads to what is not there yet
    assert export(f"--workdir={RUN}", "--format=torch", f"--output_dir={link}") == 0
    assert {file.name for file in there.iterdir()} == names


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    write = torch_files._write_safetensors

    def wrong(state, path):
        name = next(name for name in state if name.endswith("fc.weight"))
        write({**state, name: state[name] * 1.01}, path)

    monkeypatch.setattr(torch_files, "_write_safetensors", wrong)
    out = tmp_path / "net"
    with pytest.raises(RuntimeError, match="the export is wrong: other arrays come back"):
        export(f"--workdir={RUN}", "--format=torch", f"--output_dir={out}")
    assert not list(tmp_path.iterdir())
    assert "largest difference" in exports._describe_agreement(1e-5, tolerance=1e-5)
    for difference in (2e-5, float("nan")):
        with pytest.raises(RuntimeError, match="the export is wrong: largest difference"):
            exports._describe_agreement(difference, tolerance=1e-5)


def test_the_commands_of_the_card_run_as_they_stand(tmp_path, capsys):
    run = shutil.copytree(RUN, tmp_path / "a run's place")
    assert export(f"--workdir={run}", "--format=torch", f"--output_dir={tmp_path / 'net'}") == 0
    card = (tmp_path / "net" / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if "--mode=evaluate" in line]
    assert f"--workdir={run}" in shlex.split(line)


def test_a_full_disk_leaves_nothing(tmp_path, capsys, monkeypatch):
    def fill(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch_files, "_write_safetensors", fill)
    out = tmp_path / "net"
    said = refusal(capsys, f"--workdir={RUN}", "--format=torch", f"--output_dir={out}")
    assert "No space left on device" in said
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_one_line(tmp_path, capsys):
    run = shutil.copytree(RUN, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint yet" in refusal(capsys, f"--workdir={run}", "--format=torch")
    said = refusal(capsys, f"--workdir={tmp_path / 'none'}", "--format=torch")
    assert "holds no run" in said
    assert "give either --workdir" in refusal(capsys, "--format=torch")
    assert "--format is missing" in refusal(capsys, f"--workdir={run}")
    file = tmp_path / "file"
    file.write_text("")
    said = refusal(capsys, f"--workdir={RUN}", "--format=torch", f"--output_dir={file}")
    assert "cannot be written to" in said


def test_the_page_on_exporting_has_the_lines_of_a_card():
    page = (ROOT / "docs" / "exporting.md").read_text()
    assert usage.stablehlo(Description(classes=("a",)), "model.stablehlo", raw=False) in page
