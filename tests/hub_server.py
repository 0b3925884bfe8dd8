"""A small server that speaks the Hugging Face hub's protocol: python hub_server.py DIRECTORY PORT.

DIRECTORY/OWNER/NAME/ holds a repository's files. A file named `.gated` makes it gated; while `.cut`
is there, the first half of each large file comes and then the connection ends. Prints its port.
"""

import http.server
import json
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(sys.argv[1])
LARGE = 4096


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner, name, kind, revision, *rest = [*(parts[2:] if is_api else parts), *[""] * 4][:99]
        repository = ROOT / owner / name
        if not repository.is_dir():
            self.fail(404, "RepoNotFound")
        elif (repository / ".gated").exists():
            self.fail(403, "GatedRepo")
        elif revision not in ("", "main", COMMIT):
            self.fail(404, "RevisionNotFound")
        elif is_api:
            self.answer_json(self.listing(repository, kind))
        else:
            self.send_file(repository, "/".join(part for part in rest if part))

    def listing(self, repository, kind):
        files = [path for path in sorted(repository.iterdir()) if not path.name.startswith(".")]
        if kind == "tree":
            return [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                for path in files
            ]
        name = "/".join(repository.parts[-2:])
        siblings = [{"rfilename": path.name} for path in files]
        return {"id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings}

    def send_file(self, repository, name):
        path = repository / name
        if not path.is_file():
            self.fail(404, "EntryNotFound")
            return
        content = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        if len(content) > LARGE and (repository / ".cut").exists():
            self.wfile.write(content[start : len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content[start:])

    def answer_json(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def fail(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
