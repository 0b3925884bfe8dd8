"""What the pages name is there: files, headings, commands, flags, fields, modules and extras.

`tests/slow/test_pages.py` runs the commands.
"""

import importlib.util
import re
import shlex
import subprocess
import tomllib

import pytest
from pages import PAGES, REASONS, ROOT, blocks
from user_errors import messages

from resnet_jax import commands
from resnet_jax import config as config_lib
from resnet_jax.__main__ import parse
from resnet_jax.distributed.abort import LOST, NOT_FOUND

SECTIONS = [name for name, value in config_lib.defaults().items() if hasattr(value, "items")]
page_of = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page):
    """Returns the names that the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@page_of
def test_links_lead_to_files_and_headings_that_exist(page):
    for target, _, anchor in re.findall(
        r"\]\((?!https?:)([^)#\s]*)(#([^)\s]+))?\)", page.read_text()
    ):
        file = page if not target else (page.parent / target).resolve()
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def launches(text):
    """Yields the arguments of every command of the command line in some lines of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        command = re.search(r"(?:launch\.py|resnet-jax|-m resnet_jax)((?: .*)?)$", line)
        if command and "docker" not in line and "$synthetic" not in line:
            # One quotation mark is that of a command for other machines.
            told = command[1].rstrip("'") if command[1].count("'") % 2 else command[1]
            words = shlex.split(told, comments=True)
            end = [place for place, word in enumerate(words) if word in (">", "&&", "&", "|", ";")]
            kept = words[: min(end, default=None)]
            yield [word for word in kept if word != "..."]


@page_of
def test_the_command_lines_of_a_page_are_taken_by_the_parser(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    in_text = [code for code in re.findall(r"`([^`\n]+)`", page.read_text()) if " --" in code]
    told = [block.code for block in blocks(page) if block.kind == "sh"] + in_text
    for arguments in (words for text in told for words in launches(text)):
        # A form to fill in has no value where a page leaves it open.
        if not {"--help", "--version"} & set(arguments) and not {"--config=", "--mode="} & {
            word[: word.find("=") + 1] for word in arguments if word.endswith("=...")
        }:
            parse(["launch.py", *arguments])


@pytest.mark.parametrize("file", ["docs/job.yaml", "docs/train.sbatch", "Dockerfile"])
def test_the_command_lines_of_job_files_are_taken_by_the_parser(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / file).read_text().replace("\\\n", " ")
    (words,) = re.findall(
        r"(?:exec resnet-jax|launch\.py|--gpus=all resnet-jax)((?:\s+--\S+)+)", text
    )
    numbered = words.replace("$JOB_COMPLETION_INDEX", "0")
    parse(["launch.py", *shlex.split(numbered)])


@page_of
def test_the_flags_and_fields_that_a_page_names_exist(page):
    text = re.sub(r"```(?!sh|python)\w*\n.*?```", "", page.read_text(), flags=re.S)
    for field in re.findall(r"--config\.([a-z_0-9.]*[a-z_0-9])=", text):
        config_lib.field_of(field)
    flags = {name for verb in commands.names() for name in commands.flags_of(commands.load(verb))}
    flags |= {"mode", "config", "coordinator", "num_processes", "process_id", "help", "version"}
    for span in re.findall(r"`(--[a-z][^` ]*)`", text):
        name = span[2:].partition("=")[0]
        assert name.startswith(("config.", "xla_")) or name in flags | FLAGS_OF_OTHERS, span
    for section, name in re.findall(rf"`({'|'.join(SECTIONS)})\.([a-z_0-9]+)`", text):
        if (section, name) not in NAMES_OF_OTHERS:
            config_lib.field_of(f"{section}.{name}")


FLAGS_OF_OTHERS = {
    *("output", "small", "device", "minutes", "tensorflow_python"),  # of benchmarks
    "ntasks-per-node",  # of Slurm
}
NAMES_OF_OTHERS = {
    *(
        ("data", name)
        for name in ("augment", "fingerprint", "describe_changes", "diagnosis", "json")
    ),
    *(("model", name) for name in ("init", "apply", "stablehlo", "onnx", "safetensors")),
}


@page_of
def test_commands_stand_in_marked_blocks_that_bash_can_read(page):
    for block in blocks(page):
        assert not block.reason or block.reason in REASONS, block
        if block.kind == "sh":
            done = subprocess.run(
                ["bash", "-nc", block.code], capture_output=True, text=True, check=False
            )
            assert not done.stderr, f"{block}: {done.stderr}"
        else:
            compile(block.code, str(block), "exec")
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    indented = re.findall(r"^ {4,}(?:python|pip|\.venv|docker|kubectl|mpirun|gcloud).*", text, re.M)
    assert not indented or page.name == "README.md"


def test_modules_extras_and_packages_that_pages_name_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for page in PAGES:
        text = page.read_text()
        for module in re.findall(r"python3? -m ([\w.]+)", text):
            there = module == "coverage" or importlib.util.find_spec(module)
            assert there, f"{page.name}: {module}"
        for listed in re.findall(r"(?:flax-resnet|\.)\[([a-z0-9,]+)\]", text):
            assert set(listed.split(",")) <= set(extras), f"{page.name}: {listed}"
        for file in re.findall(r"python ((?:docs|tests|examples)/[\w/]+\.py)", text):
            assert (ROOT / file).is_file(), f"{page.name}: {file}"


def test_every_page_is_on_the_site():
    listed = (ROOT / "mkdocs.yml").read_text()
    assert all(f": {page.relative_to(ROOT)}\n" in listed for page in PAGES)


def test_the_messages_that_are_explained_are_those_that_are_raised():
    """What stands in the table is a message of the source, with something filled in."""
    forms = [re.compile(".+".join(map(re.escape, parts(each)))) for each in messages()]
    forms += [re.compile(re.escape(last.removeprefix("error: "))) for last in (LOST, NOT_FOUND)]
    told = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    for message in told:
        if ": moved aside as" not in message and "nothing to do" not in message:
            assert any(form.fullmatch(message) for form in forms), message


def parts(message):
    """Returns what stands between the braces of a message."""
    return re.split(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", message.text)
