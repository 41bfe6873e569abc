# SPDX-License-Identifier: Apache-2.0
"""Child processes: started with a log file, ended by pid, never left behind."""

import os
import pathlib
import signal
import subprocess

from .wait import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]


def program(name):
    """Path of bin/NAME, or of the same program in the build that TAILRACE_BIN names."""
    path = pathlib.Path(os.environ.get("TAILRACE_BIN", ROOT / "bin")) / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built: run make")
    return str(path)


def tool(name):
    """Path of a helper program of test/tools."""
    path = ROOT / "build" / "gcc" / "test" / "tools" / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built: run make tools")
    return str(path)


class Child:
    """One process. Its output goes to a file that is quoted when something fails."""

    def __init__(self, argv, log_path, env=None, cwd=None):
        self.argv = [str(a) for a in argv]
        self.log_path = pathlib.Path(log_path)
        self._log = open(self.log_path, "ab")
        full_env = dict(os.environ, **(env or {}))
        self.proc = subprocess.Popen(
            self.argv, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=full_env, cwd=cwd, start_new_session=True)

    @property
    def pid(self):
        return self.proc.pid

    def alive(self):
        return self.proc.poll() is None

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text, timeout=20):
        def seen():
            if text in self.log():
                return True
            if not self.alive():
                raise AssertionError(
                    f"{self.argv[0]} ended with {self.proc.returncode} before {text!r}:\n{self.log()[-4000:]}")
            return False
        wait_until(seen, timeout, f"log line {text!r} of {self.argv[0]}")

    def signal(self, sig):
        if self.alive():
            os.kill(self.pid, sig)

    def pause(self):
        """SIGSTOP, and every thread has stopped: the signal alone only asks for it. SIGCONT goes by signal()."""
        def stopped():
            stats = [t.read_text() for t in pathlib.Path(f"/proc/{self.pid}/task").glob("*/stat")]
            return all(t.rpartition(")")[2].split()[0] == "T" for t in stats)
        self.signal(signal.SIGSTOP)
        wait_until(stopped, what=f"{self.argv[0]} has stopped")

    def stop(self, timeout=30):
        """SIGTERM, wait, exit status. Kills (and fails) when it does not end in time.

        Fails, too, when a sanitizer has reported something: races while it ran, leaks at its end."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout=30):
        try:
            status = self.proc.wait(timeout)
            assert "Sanitizer" not in self.log(), self.log()[-6000:]
            return status
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise AssertionError(f"{self.argv[0]} did not end within {timeout} s:\n{self.log()[-4000:]}")
        finally:
            self._log.close()

    def kill(self):
        if self.alive():
            self.proc.kill()
        self.proc.wait()
        self._log.close()
