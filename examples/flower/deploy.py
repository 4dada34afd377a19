"""Train in Flower's deployment engine on loopback: a SuperLink, a SuperNode for each hospital, one killed mid-round.

Everything runs on this machine in a temporary folder and is stopped at the end. Run it with ``make flower-deployment``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import offline  # noqa: F401 - first of all, for what it sets

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
BIN = Path(sys.executable).parent


class Network:
    """A SuperLink and its SuperNodes, each a process group of its own that this process started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, {}
        self.port = free_port()
        self.environment = os.environ | {
            "FLWR_HOME": str(folder / "home"),
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def start(self, name: str, *command: str) -> None:
        """Start one of Flower's programs; its output goes to a file of its name."""
        log = (self.folder / f"{name}.log").open("wb")
        environment = self.environment | {"FLWR_HOME": str(self.folder / f"home-{name}")}
        self.processes[name] = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        """End one program and whatever it started, by its own process group."""
        process = self.processes[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)

    def stop(self) -> None:
        """End them all: politely, then not."""
        for name in self.processes:
            self.kill(name, signal.SIGTERM)
        for name, process in self.processes.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            self.kill(name)
            process.wait()

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it listens."""
        self.start(
            "superlink",
            "flower-superlink",
            *("--insecure", "--host", "127.0.0.1", "--port", str(self.port)),
            "--disable-runtime-dependency-installation",
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.3)
        raise SystemExit(f"the SuperLink does not listen:\n{self.log('superlink')}")

    def start_supernode(self, number: int, config: dict[str, object]) -> None:
        """Start a hospital's SuperNode with its own configuration."""
        pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        self.start(
            f"supernode-{number}",
            "flower-supernode",
            *("--insecure", "--superlink", f"127.0.0.1:{self.port}", "--port", str(free_port())),
            *("--node-config", pairs),
        )

    def run_app(self, config: dict[str, object], timeout: float) -> int:
        """Run the app to its end; return the exit code."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "loopback"\n\n'
            f'[superlink.loopback]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        app = self.folder / "app"
        shutil.copytree(HERE, app, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        pairs = [f"{key}={toml(value)}" for key, value in config.items()]
        command = [str(BIN / "flwr"), "run", str(app), "loopback", "--stream", "--run-config", " ".join(pairs)]
        with (self.folder / "run.log").open("wb") as log:
            return subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, timeout=timeout, check=False
            ).returncode

    def log(self, name: str) -> str:
        """Return what a program wrote so far."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Yield a network, and stop every process of it whatever happens."""
    made = Network(folder)
    try:
        yield made
    finally:
        made.stop()


def identity_configs(folder: Path, hospitals: int) -> tuple[list[dict[str, object]], str]:
    """Make keys and directory with the documented commands; return the nodes' configurations, the run's directory."""
    secagg = [sys.executable, "-m", "secagg", "identity"]
    for one in range(hospitals):
        subprocess.run([*secagg, "new", f"{folder}/{one}.key"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*secagg, "sealing-key", f"{folder}/{one}.seal"], check=True, stdout=subprocess.DEVNULL)
    public = [f"{folder}/{one}.pub" for one in range(hospitals)]
    made = [*secagg, "directory", *public, "--out", f"{folder}/cohort.json"]
    digest = subprocess.run(made, check=True, capture_output=True, text=True).stdout.split()[-1]
    configs = [
        {
            "secagg-key": f"{folder}/{one}.key",
            "secagg-directory-digest": digest,
            "secagg-state": f"{folder}/states-{one}",
            "secagg-seal-key": f"{folder}/{one}.seal",
        }
        for one in range(hospitals)
    ]
    return configs, (folder / "cohort.json").read_text().strip()


def kill_mid_round(net: Network, victim: int, messages: int, done: threading.Event) -> None:
    """Kill a hospital once it has received so many messages: it holds one that it will not answer."""
    while not done.is_set():
        if net.log(f"supernode-{victim}").count("Receiving:") >= messages:
            print(f"killing the SuperNode of hospital {victim} as its message {messages} comes in", flush=True)
            net.kill(f"supernode-{victim}")
            return
        time.sleep(0.05)


def toml(value: object) -> str:
    """Return a value as the run's configuration takes it: text in single quotes, which need no escapes inside."""
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Start the network, run the app, compare its model with plain averaging, stop the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hospitals", type=int, default=5)
    parser.add_argument("--threat", default="malicious-server", choices=["semi-honest", "malicious-server"])
    parser.add_argument("--pipelined", action="store_true", help="advertise the next round's keys ahead")
    parser.add_argument(
        "--kill-at",
        type=int,
        default=-1,
        help="kill the last hospital as this message of its own comes in (0: never; by default: the second round's "
        "third exchange, in which it trains)",
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that the whole run may take")
    parser.add_argument("--json", type=Path, help="write all figures there")
    asked = parser.parse_args()
    if asked.pipelined and asked.threat != "semi-honest":
        parser.error("--pipelined is for --threat semi-honest alone")
    # What is asked to end stops its processes first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    exchanges = 5 if asked.threat == "malicious-server" else 4
    exchanges_before = 1 + exchanges  # the query comes before the first round
    third = 2 if asked.pipelined else 3
    kill_at = exchanges_before + third if asked.kill_at < 0 else asked.kill_at
    with tempfile.TemporaryDirectory(prefix="hospitals-") as name, network(Path(name)) as net:
        outcome = train(net, asked, kill_at)
    from comparison import missing, show

    equal = show(f"deployment engine, {asked.threat}", outcome, hospitals=asked.hospitals, seed=1)
    killed = {asked.hospitals - 1} if kill_at else set()
    wrong = missing(outcome, hospitals=asked.hospitals, may_miss=killed)
    if len(outcome["rounds"]) != asked.rounds:
        wrong.append(f"{len(outcome['rounds'])} rounds of {asked.rounds}")
    print("\n".join(wrong), end="")
    if asked.json:
        asked.json.write_text(json.dumps(outcome, indent=2))
    sys.exit(0 if equal and not wrong else 1)


def train(net: Network, asked: argparse.Namespace, kill_at: int) -> dict:
    """Run the app in a network and return what its server wrote."""
    configs: list[dict[str, object]] = [{"pipelined": True} if asked.pipelined else {} for _ in range(asked.hospitals)]
    config: dict[str, object] = {
        "rounds": asked.rounds,
        "hospitals": asked.hospitals,
        "threat": asked.threat,
        "pipelined": asked.pipelined,
        "result": str(net.folder / "result.json"),
    }
    if asked.threat == "malicious-server":
        configs, config["secagg-directory"] = identity_configs(net.folder, asked.hospitals)
    net.start_superlink()
    for number, own in enumerate(configs):
        net.start_supernode(number, {"partition-id": number, "num-partitions": asked.hospitals, **own})
    done = threading.Event()
    if kill_at:
        arguments = (net, asked.hospitals - 1, kill_at, done)
        threading.Thread(target=kill_mid_round, args=arguments, daemon=True).start()
    try:
        code = net.run_app(config, asked.timeout)
    finally:
        done.set()
    result = net.folder / "result.json"
    if not result.exists():
        logs = "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in net.folder.glob("*.log")
        )
        raise SystemExit(f"the run ended with code {code} and no result\n{logs}")
    leftover = sorted(str(path.relative_to(net.folder)) for path in net.folder.glob("states-*/*"))
    print(f"states left on the nodes' disks: {leftover or 'none'}")
    return json.loads(result.read_text())


if __name__ == "__main__":
    main()
