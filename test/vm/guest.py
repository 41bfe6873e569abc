# SPDX-License-Identifier: Apache-2.0
"""What runs inside the guest: doctor, then real traffic under an agent of the tier in $TIER. Nothing is
judged here; everything the host needs for that goes to /results. Only Python's own library is there.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, "/test/scenario")
from harness import traffic  # noqa: E402

RESULTS = pathlib.Path("/results")
AGENT = "/bin/tailrace-agent"
PORT, TLS_PORT, CASE_PORT, CLOSED_PORT, METRICS_PORT = 8080, 8443, 9000, 9999, 8888
TIER = os.environ["TIER"]
EVENTS, CGROUPS = pathlib.Path("/sys/kernel/tracing"), pathlib.Path("/sys/fs/cgroup")

CONFIG = f"""
receivers:
  ebpf:
    capture_tier: TIER
    ports: [{PORT}, {TLS_PORT}]
    exe: ['*/curl']
    pids: [{os.getpid()}]
    scheduler: true
    metrics_interval: 1s
    record_file: /tmp/records
exporters:
  file/traces: {{path: /results/traces, format: proto}}
  file/metrics: {{path: /results/metrics, format: proto}}
service:
  telemetry:
    logs: {{level: debug}}
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {METRICS_PORT}}}}}}}}}]}}
  pipelines:
    traces: {{receivers: [ebpf], exporters: [file/traces]}}
    metrics: {{receivers: [ebpf], exporters: [file/metrics]}}
"""

NGINX = f"""
daemon off; worker_processes 1; user root; pid /tmp/nginx.pid; error_log /results/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
  uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; sendfile on; ssl_session_cache off;
  server {{
    listen 127.0.0.1:{PORT}; listen [::1]:{PORT}; listen 127.0.0.1:{TLS_PORT} ssl;
    ssl_certificate /etc/cert.pem; ssl_certificate_key /etc/key.pem;
    root /tmp/www;
    location /status/ {{ return 404 "nothing"; }}
    location /fault/ {{ return 503 "later"; }}
    location /echo/ {{ return 200 "hello"; }}
  }}
}}
"""


class Results(dict):
    """What is told to the host beside the programs' own files."""

    def save(self):
        (RESULTS / "told.json").write_text(json.dumps(self))


told = Results(pid=os.getpid())
began = time.monotonic()


def step(name):
    told.setdefault("times", {})[name] = round(time.monotonic() - began, 2)
    told.save()


def wait_until(condition, what, timeout=120):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


# ---- the kernel, asked in other ways than the agent does ----

def run_agent(*args):
    done = subprocess.run([AGENT, *args], capture_output=True, text=True, timeout=300)
    return {"status": done.returncode, "text": done.stdout + done.stderr}


def order(path, text):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def can_kprobe(function):
    try:
        order(EVENTS / "kprobe_events", f"p:guest/try {function}\n")
        order(EVENTS / "kprobe_events", "-:guest/try\n")
        return True
    except OSError:
        return False


def look_at_the_kernel():
    told["doctor"] = run_agent("doctor")
    step("doctor")
    functions = ["inet_sendmsg", "inet6_sendmsg", "inet_recvmsg", "inet6_recvmsg", "inet_sendpage"]
    traceable = set((EVENTS / "available_filter_functions").read_text().split())
    told["functions"] = [f for f in functions if f in traceable]
    told["kprobes"] = [f for f in functions if can_kprobe(f)]
    told["tracepoints"] = [p.name for p in EVENTS.glob("events/*/*")]
    if os.environ.get("MISSING_TIER"):
        told["refused"] = run_agent("--port", "1", "--capture-tier", os.environ["MISSING_TIER"], "--set",
                                    "service.telemetry.metrics.level=none")
    step("kernel")


# ---- traffic ----

KINDS = ["echo/{}", "status/{}", "fault/{}", "small.txt?n={}", "big.bin?n={}"]


def keep_alive(scheme, port, clients=4, each=15):
    def url(c, i):
        return f"{scheme}://127.0.0.1:{port}/" + KINDS[i % len(KINDS)].format(f"{c}-{i}")

    runs = []
    for c in range(clients):
        args = ["curl", "-s", "-k", "--http1.1"]
        for i in range(each):
            args += ["-o", "/dev/null", url(c, i)]
        runs.append(subprocess.Popen(args))
    statuses = [r.wait() for r in runs]
    told[f"keep_alive_{scheme}"] = {"n": clients * each, "statuses": statuses, "port": port}


def sequential(scheme, port, n):
    statuses = []
    for i in range(n):
        host = "[::1]" if scheme == "http" and i % 2 else "127.0.0.1"
        statuses.append(subprocess.call(["curl", "-s", "-k", "-o", "/dev/null", f"{scheme}://{host}:{port}/echo/s{i}"]))
    told[f"sequential_{scheme}"] = {"n": n, "statuses": statuses, "port": port}


def cases():
    told["cases"] = {}
    for i, case in enumerate(traffic.CASES):
        p = traffic.Pair(CASE_PORT + i)
        begin = time.time_ns()
        want = case(p)
        p.close()
        told["cases"][case.__name__] = {"ports": p.ports, "want": want, "begin": begin, "end": time.time_ns()}
        step(case.__name__)


def control_group(name):
    group = CGROUPS / name
    group.mkdir(exist_ok=True)
    return group


def child(group, body):
    """Runs body in a process that is in a control group of its own from its first instruction on."""
    pid = os.fork()
    if pid == 0:
        try:
            (control_group(group) / "cgroup.procs").write_text(str(os.getpid()))
            body()
        finally:
            os._exit(0)
    return pid


def connects(n=25, refused=10):
    def body():
        listener = socket.create_server(("127.0.0.1", 9100))
        for _ in range(n):
            c = socket.create_connection(("127.0.0.1", 9100))
            listener.accept()[0].close()
            c.close()
        for _ in range(refused):
            try:
                socket.create_connection(("127.0.0.1", CLOSED_PORT))
            except ConnectionRefusedError:
                continue
    os.waitpid(child("connects", body), 0)
    told["connects"] = {"n": n, "refused": refused}


def waits(pid):
    """Times that a task waited for a CPU, by the kernel's own account."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[2])


def run_queue(at_least=100):
    """Two loops on one CPU, a sleeper of a higher class on the other; the kernel's count of their waits since they
    are in their groups."""
    reader, writer = os.pipe()

    def loop():
        os.sched_setaffinity(0, {0})
        os.write(writer, f"{waits(os.getpid())}\n".encode())
        while True:
            pass

    def sleeper():
        os.sched_setaffinity(0, {1})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        os.write(writer, f"{waits(os.getpid())}\n".encode())
        while True:
            time.sleep(0.002)

    before, groups = {}, {"crowded": [], "calm": []}
    with os.fdopen(reader) as lines:
        for name, body in (("crowded", loop), ("crowded", loop), ("calm", sleeper)):
            pid = child(name, body)
            before[pid] = int(lines.readline())
            groups[name].append(pid)
    os.close(writer)
    pids = list(before)
    wait_until(lambda: all(waits(p) >= before[p] + at_least for p in pids), "the tasks have waited")
    for p in pids:
        os.kill(p, signal.SIGSTOP)
    told["run_queue"] = {name: {"times": sum(waits(p) - before[p] for p in members)}
                         for name, members in groups.items()}
    for p in pids:
        os.kill(p, signal.SIGKILL)
        os.waitpid(p, 0)


def missed_returns(n=4200):
    """More calls that block than there are return probes: what the kernel says it missed, and what the agent does."""
    p = subprocess.Popen(["blocked", str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == b"ready\n"

    def missed():
        """By the kernel's own count."""
        return sum(int(line.split()[2]) for line in (EVENTS / "kprobe_profile").read_text().splitlines())

    def agents():
        return int(re.search(r'missed_runs"\} (\d+)', scrape())[1])

    wait_until(lambda: missed() >= n - 4096, "returns are missed")
    before = missed()
    wait_until(lambda: agents() >= before, "the agent has looked")
    # What asks for metrics receives, and is missed, too: so the truth lies between two looks.
    told["missed"] = {"blocked": n, "before": before, "agent": agents(), "after": missed()}
    p.stdin.close()
    p.wait()
    again = traffic.Pair(9400)
    told["after_missed"] = {"ports": again.ports, "want": traffic.head_in_3_sends(again)}
    again.close()
    step("missed returns")
    settle()


def foreign_bytes():
    told["secret"] = traffic.foreign_bytes(9200, "/tmp/log")


# ---- the whole ----

def choose():
    """The tier that is taken when none is forced."""
    p = start_agent("auto", "auto.log")
    p.terminate()
    p.wait()


def agent_left_behind():
    """An agent that is killed leaves its events in tracefs; the next one takes them over."""
    p = start_agent()
    p.kill()
    p.wait()
    told["events_of_the_killed"] = events()


def events():
    return re.findall(r":(tailrace_\S+)", (EVENTS / "kprobe_events").read_text())


class BlockedReader:
    """A connection whose server waits in recv() already when the agent starts."""

    def __init__(self, port):
        self.pair = traffic.Pair(port)
        self.got = b""
        self.thread = threading.Thread(target=self.read, daemon=True)  # a step that fails ends the guest
        self.thread.start()
        wait_until(self.is_blocked, "the reader waits")

    def read(self):
        self.got = self.pair.server.recv(1000)

    def is_blocked(self):
        return pathlib.Path(f"/proc/self/task/{self.thread.native_id}/syscall").read_text().startswith("45 ")

    def use(self):
        p = self.pair
        p.client.sendall(traffic.GET % b"blocked")
        self.thread.join()
        assert self.got
        traffic.pour(p.server, p.client, traffic.OK)
        traffic.pour(p.client, p.server, traffic.GET % b"next")
        traffic.pour(p.server, p.client, traffic.OK)
        p.close()
        told["blocked_before"] = {"ports": p.ports}


def start_nginx():
    www = pathlib.Path("/tmp/www")
    www.mkdir()
    (www / "small.txt").write_text("x" * 100)
    (www / "big.bin").write_bytes(os.urandom(400_000))
    conf = pathlib.Path("/tmp/nginx.conf")
    conf.write_text(NGINX)
    p = subprocess.Popen(["nginx", "-c", conf, "-p", "/tmp"])
    wait_until(lambda: accepts(TLS_PORT), "nginx accepts")
    return p


def start_agent(tier=TIER, log="agent.log"):
    path, log = pathlib.Path("/tmp/agent.yaml"), RESULTS / log
    path.write_text(CONFIG.replace("TIER", tier))
    p = subprocess.Popen([AGENT, "--config", path], stdout=log.open("w"), stderr=subprocess.STDOUT)

    def ready():
        if p.poll() is not None:
            raise RuntimeError(f"the agent ended: {log.read_text()[-4000:]}")
        return "Everything is ready" in log.read_text()
    wait_until(ready, "the agent captures")
    return p


def scrape():
    with socket.create_connection(("127.0.0.1", METRICS_PORT), 10) as s:
        s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        data = b""
        while got := s.recv(65536):
            data += got
    return data.split(b"\r\n\r\n", 1)[1].decode()


def settle():
    """Until no more spans are written and metrics were three times: the last time tells of the end of the traffic."""
    size = lambda name: os.stat(RESULTS / name).st_size if (RESULTS / name).exists() else 0
    spans, exports, since = size("traces"), [size("metrics")], time.monotonic()

    def still():
        nonlocal spans, since
        if size("traces") != spans:
            spans, since = size("traces"), time.monotonic()
        if size("metrics") != exports[-1]:
            exports.append(size("metrics"))
        return time.monotonic() - since > 1 and len(exports) > 3
    wait_until(still, "nothing more comes")


def main():
    look_at_the_kernel()
    nginx = start_nginx()
    step("nginx")
    open_before = traffic.Pair(9300)
    traffic.pour(open_before.client, open_before.server, traffic.GET % b"before")
    blocked_before = BlockedReader(9301)
    if TIER == "kprobe":
        agent_left_behind()
    elif TIER != "auto":
        choose()
    agent = start_agent()
    step("agent")
    blocked_before.use()
    traffic.pour(open_before.server, open_before.client, traffic.OK)
    traffic.pour(open_before.client, open_before.server, traffic.GET % b"first")
    traffic.pour(open_before.server, open_before.client, traffic.OK)
    told["open_before"] = {"ports": open_before.ports}
    open_before.close()
    keep_alive("http", PORT)
    step("keep_alive")
    keep_alive("https", TLS_PORT)
    step("keep_alive_tls")
    sequential("http", PORT, 12)
    step("sequential")
    sequential("https", TLS_PORT, 6)
    told["perf_events"] = sum("perf_event" in os.readlink(f) for f in pathlib.Path(f"/proc/{agent.pid}/fd").iterdir())
    step("sequential_tls")
    cases()
    connects()
    foreign_bytes()
    step("tcp")
    run_queue()
    step("traffic")
    settle()
    step("settled")
    (RESULTS / "exposed").write_text(scrape())
    if TIER == "kprobe":
        missed_returns()
    agent.terminate()
    told["agent_status"] = agent.wait(120)
    told["events_left"] = events()
    step("agent ended")
    nginx.terminate()
    nginx.wait(60)
    records = pathlib.Path("/tmp/records").read_bytes()
    told["records"] = {"bytes": len(records), "has_secret": told["secret"].encode() in records,
                       "has_traffic": b"GET /secret" in records}
    step("end")


if __name__ == "__main__":
    main()
