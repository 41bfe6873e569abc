# SPDX-License-Identifier: Apache-2.0
"""A small Linux in qemu, with another kernel than the host's: test/vm/guest.py runs in it, and what it leaves in
/results comes back. The root file system is made of the host's own programs and the libraries they need."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

from . import metrics, otlp
from .capture import Observed
from .process import ROOT, program, tool

QEMU = "qemu-system-x86_64"
BEGUN = b"guest: begun"  # what test/vm/init says first
NEEDS = [QEMU, "cpio", "busybox", "nginx", "curl", "openssl"]
# Of busybox, what test/vm/init calls.
APPLETS = ["mount", "mkdir", "ip", "cat", "cp", "tar", "sync", "dmesg", "poweroff", "sh"]


def which(name):
    return shutil.which(name, path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))


def kernel(series):
    """(path of a kernel image or None, why there is none)."""
    done = subprocess.run([ROOT / "scripts" / "guest-kernel", series], capture_output=True, text=True)
    return (done.stdout.strip() or None, done.stderr.strip())


class Tree:
    """A root file system under .dir."""

    def __init__(self, directory):
        self.dir = directory
        for d in ("proc", "sys", "dev", "tmp", "run", "results", "root", "var/log/nginx", "var/lib/nginx"):
            self.at(d).mkdir(parents=True)

    def at(self, path):
        return self.dir / str(path).lstrip("/")

    def copy(self, source, to=None):
        target = self.at(to or source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return target

    def libraries(self, *files):
        """What the dynamic linker would load for them."""
        text = subprocess.run(["ldd", *files], capture_output=True, text=True).stdout
        for path in set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(", text, re.M)):
            if not self.at(path).exists():
                self.copy(path)

    def program(self, source, to=None):
        self.libraries(source)
        return self.copy(source, to)

    def write(self, path, text):
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


# The library imports these when it needs them: names to addresses, tracebacks, reading text.
LATER = ["encodings.idna", "encodings.latin_1", "encodings.ascii", "traceback", "random"]


def imports_of(*sources):
    """Names of the modules that these files import."""
    out = set(LATER)
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                out.update(a.name for a in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module != "harness":
                out.add(node.module)
    return out


def add_python(tree, *sources):
    """The interpreter that runs this test, and what these sources need of its library: the less there is, the
    sooner the guest has unpacked it."""
    binary = os.path.realpath(sys.executable)
    code = f"import sys, {', '.join(imports_of(*sources))}\n" + \
        "for m in list(sys.modules.values()): print(getattr(m, '__file__', ''), getattr(m, '__cached__', ''), sep='\\n')"
    files = subprocess.run([binary, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    files = [f for f in files if os.path.isfile(f)]
    for f in files:
        tree.copy(f)
    tree.libraries(*[f for f in files if ".so" in f])
    tree.program(binary)
    tree.at("/usr/bin").mkdir(parents=True, exist_ok=True)
    if not tree.at("/usr/bin/python3").exists():
        tree.at("/usr/bin/python3").symlink_to(binary)


def build_image(work):
    """An initial RAM disk with everything; nothing of it depends on kernel or tier."""
    tree, vm, harness = Tree(work / "root"), ROOT / "test" / "vm", ROOT / "test" / "scenario" / "harness"
    for name in ("nginx", "curl"):
        tree.program(which(name), f"/usr/bin/{name}")
    agent = tree.program(program("tailrace-agent"), "/bin/tailrace-agent")
    subprocess.run(["strip", "-g", agent], check=True)
    tree.program(tool("blocked"), "/bin/blocked")
    tree.program(which("busybox"), "/bin/busybox")
    for a in APPLETS:
        tree.at(f"/bin/{a}").symlink_to("busybox")
    add_python(tree, vm / "guest.py", harness / "traffic.py")
    tree.copy(vm / "init", "/init")
    tree.copy(vm / "guest.py", "/test/vm/guest.py")
    for f in ("__init__.py", "traffic.py"):
        tree.copy(harness / f, f"/test/scenario/harness/{f}")
    tree.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    tree.write("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
    tree.write("/etc/hosts", "127.0.0.1 localhost\n")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-keyout", tree.at("/etc/key.pem"),
                    "-out", tree.at("/etc/cert.pem")], check=True, capture_output=True)
    image = work / "root.cpio"
    with image.open("wb") as out:
        subprocess.run("find . -mindepth 1 | cpio -o -H newc --quiet -R 0:0", shell=True, cwd=tree.dir, stdout=out,
                       check=True)
    shutil.rmtree(tree.dir)
    return image


def why_not():
    """What is missing for guests, or None."""
    missing = [n for n in NEEDS if not which(n)]
    if missing:
        return f"needs {', '.join(missing)}"
    return None


class Frames:
    """Records of the file exporter's output: messages behind their lengths."""

    def __init__(self, files):
        self.files = files

    def records(self, signal="traces"):
        data, at, out = self.files.get(signal, b""), 0, []
        while at < len(data):
            n = int.from_bytes(data[at:at + 4], "big")
            out += otlp.raw_records(data[at + 4:at + 4 + n])
            at += 4 + n
        return out


class Guest(Observed):
    """One boot. .files are its results by name, .told what guest.py says."""

    def __init__(self, work, image, kernel, series, tier, **env):
        self.series, self.tier = series, tier
        self.name = f"{series}-{tier}"
        self.console = work / f"console-{self.name}"
        self.out = work / f"results-{self.name}"
        with self.out.open("wb") as f:
            f.truncate(128 << 20)
        self.command = self._command(image, kernel, [f"{k}={v}" for k, v in dict(env, TIER=tier).items()])
        self._boot()

    def _command(self, image, kernel, env):
        # A busy host starves the guest for seconds: its checks of timers and of progress would stop it.
        words = ["console=ttyS0", "loglevel=4", "panic=-1", "edd=off", "mitigations=off", "no_timer_check",
                 "rcupdate.rcu_cpu_stall_suppress=1", *env]
        # In two threads one CPU can run into bytes that the other is patching (static keys): a panic, once seen.
        return [QEMU, "-accel", "tcg,thread=single",
                "-cpu", "max,-cx16",  # TCG's cmpxchg16b spoils the flags: two CPUs crash without this
                "-smp", "2", "-m", "768", "-nographic", "-nic", "none", "-no-reboot", "-kernel", kernel,
                "-initrd", image, "-drive", f"file={self.out},format=raw,if=none,id=out,cache=unsafe",
                "-device", "nvme,drive=out,serial=out", "-append", " ".join(words)]

    def _boot(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.console.open("wb"),
                                        stderr=subprocess.STDOUT)

    def _has_begun(self):
        return BEGUN in self.console.read_bytes()

    def finish(self, timeout=600):
        """Waits for the end of the boot and reads the results."""
        try:
            self.process.wait(timeout)
            if not self._has_begun():  # ended before its first process: nothing of ours ran yet
                self._boot()
                self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self.files = {}
        try:
            with tarfile.open(self.out, "r:") as tar:
                for m in tar:
                    if m.isfile():
                        self.files[m.name.removeprefix("./")] = tar.extractfile(m).read()
        except tarfile.TarError:
            pass  # it did not come that far: told by the console
        self.told = json.loads(self.files.get("told.json", b"{}"))
        self.sink = Frames(self.files)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def text(self, name):
        return self.files.get(name, b"").decode(errors="replace")

    def story(self):
        """For a failure: what is known of the boot."""
        console = re.sub(r"\x1b\S*|[^\n\x20-\x7e]", "", self.console.read_text(errors="replace"))
        return "\n".join([console[-1500:], self.text("log")[-3000:],
                          self.text("agent.log")[-3000:], str(self.told.get("times"))])

    def samples(self):
        return metrics.parse(self.text("exposed"))
