"""A `watchkeep serve`, which asks for tokens unless it is told not to, in a folder of its own, and what it takes of the machine."""

import json
import resource
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def built(binary):
    """This binary, or else the one that is built now."""
    if not binary:
        subprocess.run(["cargo", "build", "--release", "-q", "-p", "watchkeep-cli"], cwd=ROOT, check=True)
        binary = ROOT / "target/release/watchkeep"
    return str(Path(binary).resolve())


def raise_descriptors():
    """As many for this process, and those that it starts, as may be had without asking; how many these are."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Served:
    def __init__(self, binary, folder, *options, asks=True):
        self.binary, self.store = binary, Path(folder) / "served.db"
        self.run("set", "made", "now", "yes")
        self.all = self.token("--read", "--write", "--watch", "--inspect")["token"] if asks else None
        serve = [binary, "--store", self.store, "serve", "--listen", "127.0.0.1:0", *options]
        self.log = open(Path(folder) / "served.log", "wb")
        self.process = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=self.log)
        url = self.process.stdout.readline().decode()
        host, port = url.removeprefix("http://").strip().rstrip("/").split(":")
        self.address = (host, int(port))

    def run(self, *arguments):
        done = subprocess.run([self.binary, "--store", self.store, *arguments], check=True, capture_output=True)
        return done.stdout

    def token(self, *rights, namespace=None):
        where = ["--namespace", namespace] if namespace else []
        return json.loads(self.run(*where, "--json", "token", "create", *rights))

    def head(self, method, target, token=None, **headers):
        """The head of a request."""
        headers = {"Host": "localhost", "Authorization": f"Bearer {token or self.all}"} | headers
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()

    def resident(self):
        return self.status("VmRSS") * 1024

    def threads(self):
        return self.status("Threads")

    def status(self, name):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise RuntimeError(f"no {name}")

    def descriptors(self):
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def wal(self):
        log = self.store.with_name(self.store.name + "-wal")
        return log.stat().st_size if log.exists() else 0

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
