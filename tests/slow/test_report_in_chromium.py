"""A report as a browser shows it: every picture, no complaint, no place where it must be pushed."""

import json
import re
import shutil
import subprocess

import fabricate
import pytest
from running import tiny_recipe

from resnet_jax.commands.report import report
from resnet_jax.commands.train import train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

# A window is never as narrow as a telephone; a frame is. The page in it is as it was written.
PROBE = """<!doctype html><body><iframe style="border: 0; width: %dpx; height: 4000px"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, pictures = [...page.images];
  document.body.textContent = [
    page.documentElement.clientWidth, page.documentElement.scrollWidth, pictures.length,
    pictures.filter(p => !p.complete || !p.naturalWidth).length].join(" ");
};
frame.srcdoc = %s;
</script></body>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages on one run, and on two."""
    root = tmp_path_factory.mktemp("runs")
    fabricate.idx_directory(root / "idx", train=96, test=70)
    for seed in (0, 1):
        changes = {"data__name": "idx", "data__dir": str(root / "idx"), "batch_size": 32}
        train(tiny_recipe(log_every_steps=1, seed=seed, **changes), str(root / "runs" / f"a{seed}"))
    return [report([str(root / "runs" / "a0")]), report([str(root / "runs")])]


def browse(page, width, *options):
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--window-size={width},4000", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize("width", [1280, 400])
def test_it_shows_every_picture_without_a_complaint_and_fits(pages, width, tmp_path):
    for page in pages:
        screenshot = tmp_path / "page.png"
        done = browse(page, width, f"--screenshot={screenshot}")
        assert "CONSOLE" not in done.stderr
        assert screenshot.stat().st_size > 20_000
        text = page.read_text()
        probe = tmp_path / "probe.html"
        probe.write_text(PROBE % (width, json.dumps(text).replace("</", "<\\/")))
        told = re.search(r"<body>([\d ]+)", browse(probe, 1400, "--dump-dom").stdout)[1]
        shown, needed, pictures, missing = map(int, told.split())
        assert width - 20 <= shown <= width  # A scroll bar takes its part.
        assert needed <= shown
        assert pictures == text.count("<img ")
        assert missing == 0


def test_the_page_lets_no_script_run_and_asks_nobody(pages, tmp_path):
    attacked = tmp_path / "attacked.html"
    asks = '<script>document.title="ran"</script><img src="http://127.0.0.1:9/x.png">'
    attacked.write_text(pages[0].read_text().replace("</body>", f"{asks}</body>"))
    done = browse(attacked, 1280, "--dump-dom")
    assert "<title>ran" not in done.stdout
    assert done.stderr.count("Content Security Policy") >= 2
