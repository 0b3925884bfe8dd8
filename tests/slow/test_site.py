"""The documentation as a site: it builds, its links lead somewhere, it asks nobody else, and a
browser shows every page of it with every picture and without a complaint.
"""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading

import pytest
from running import ROOT

pytest.importorskip("mkdocs")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Runs before the page's own scripts end: what it tells stands in the title of the page.
PROBE = """<script>addEventListener("load", () => {
  const broken = [...document.images].filter(p => !p.complete || !p.naturalWidth);
  document.title = "images " + document.images.length + " broken " + broken.map(p => p.src).join();
});</script></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


def test_no_link_of_the_site_is_dead_and_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', text)
        assert not [address for address in loaded if "canonical" not in address], page
        for target in re.findall(r'(?:src|href)="(?!https?:)([^"#?:]+)[^"]*"', text):
            # The page for missing addresses has them from the site's root on.
            base = site if target.startswith("/") else page.parent
            assert (base / target.lstrip("/")).exists(), f"{page.relative_to(site)}: {target}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a page with the probe at its end."""

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        content = source.read()
        is_page = content.lstrip().lower().startswith(b"<!doctype html")
        outputfile.write(content.replace(b"</body>", PROBE.encode()) if is_page else content)

    def send_header(self, keyword, value):
        # With the probe a page is longer than its file.
        if keyword != "Content-Length":
            super().send_header(keyword, value)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_every_page_with_its_pictures_and_without_a_complaint(site):
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen = 0
        for page in sorted(site.rglob("*.html")):
            address = f"http://127.0.0.1:{server.server_port}/{page.relative_to(site)}"
            command = [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                "--virtual-time-budget=5000", "--dump-dom", address,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
            assert not complaints, f"{page}: {complaints}"
            title = re.search(r"<title>images (\d+) broken ([^<]*)</title>", done.stdout)
            assert title, page
            assert not title[2], page
            seen += int(title[1])
        server.shutdown()
    assert seen
