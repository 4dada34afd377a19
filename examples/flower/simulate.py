"""Train in Flower's simulation engine: securely, in the clear, and securely while one hospital fails in round two.

Run it with ``make flower-simulation``.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import offline  # noqa: F401 - first of all, for what it sets
from comparison import show

sys.path.insert(0, str(Path(__file__).parent))
# The workers of the simulation find the app by the same path
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))

import numpy as np
from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from hospitals import client_app, server_app
from hospitals.task import TERMS, initial_arrays, to_model
from secagg import IN_MEMORY, DecryptionKey, DecryptorLink, read_directory
from secagg.identity_files import new_directory, new_signing_key
from secagg.integrations.flower import Agreement, SecAggGrid, secagg_mod


def fails_in_round_two(message: Message, context: Context, call_next: client_app.ClientApp) -> Message:
    """Modify the last hospital: its second training raises."""
    if int(context.node_config["partition-id"]) == int(context.node_config["num-partitions"]) - 1:
        config = message.content.get("config", {})
        if message.metadata.message_type == "train" and config.get("server-round") == 2:
            raise RuntimeError("out of memory")
    return call_next(message, context)


def run(app: client_app.ClientApp, *, rounds: int, hospitals: int, secure: dict | None) -> dict:
    """Run one training in the engine; ``secure`` holds the grid's arguments, None trains in the clear."""
    outcomes: list[dict] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        grid = grid if secure is None else SecAggGrid(grid, **secure, **TERMS)
        # All hospitals share this machine, which may be busy
        outcomes.append(server_app.train(grid, rounds=rounds, hospitals=hospitals, seed=1, patience=300.0))

    run_simulation(server, app, hospitals, backend_config={"client_resources": {"num_cpus": 1}})
    return outcomes[0]


def main() -> None:
    """Run all three and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hospitals", type=int, default=5)
    parser.add_argument("--threat", default="malicious-server", choices=["semi-honest", "malicious-server"])
    parser.add_argument("--protocol", default="secagg+", help="secagg, secagg+, bfv")
    parser.add_argument("--pipelined", action="store_true", help="advertise the next round's keys ahead")
    parser.add_argument("--json", type=Path, help="write all figures there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hospitals-") as folder:
        agreed = {"protocol": asked.protocol, "pipelined": asked.pipelined}
        secure: dict = {"threat": asked.threat, **agreed}
        if asked.threat == "malicious-server" or asked.protocol == "bfv":
            secure["directory"] = make_identities(Path(folder), asked.hospitals)
            os.environ["HOSPITALS_SIMULATED_KEYS"] = folder
        if asked.protocol == "bfv":
            secure["parties"] = {"decryptor": make_decryptor(Path(folder), asked.hospitals)}
        size = {"rounds": asked.rounds, "hospitals": asked.hospitals}
        modifier = secagg_mod(node=client_app.node, **agreed, **TERMS)
        outcomes = {
            "secure": run(client_app.make_app([modifier]), secure=secure, **size),
            "plain": run(client_app.make_app([]), secure=None, **size),
            "one fails": run(client_app.make_app([modifier, fails_in_round_two]), secure=secure, **size),
        }
    known = {"hospitals": asked.hospitals, "seed": 1}
    equal = [
        show(
            f"simulation engine, {asked.threat}",
            outcomes["secure"],
            plain=np.array(outcomes["plain"]["model"]),
            **known,
        ),
        show(f"simulation engine, {asked.threat}, one hospital fails in round 2", outcomes["one fails"], **known),
    ]
    print(f"\nin the clear, simulation engine: {outcomes['plain']['seconds']:.1f} s")
    if asked.json:
        asked.json.write_text(json.dumps(outcomes, indent=2))
    sys.exit(0 if all(equal) else 1)


def make_identities(folder: Path, hospitals: int) -> Path:
    """Make what ``secagg identity new`` and ``secagg identity directory`` make; return the directory's file."""
    for one in range(hospitals):
        new_signing_key(folder / f"{one}.key")
    new_directory(folder / "cohort.json", {one: folder / f"{one}.pub" for one in range(hospitals)})
    return folder / "cohort.json"


def make_decryptor(folder: Path, hospitals: int) -> DecryptorLink:
    """Make a decryptor's keys, and what hospitals pin of them; in a simulation all parties share one machine."""
    dimension = len(to_model(initial_arrays(hospitals, 1)))
    params = Agreement(protocol="bfv", **TERMS).plan(clients=hospitals, dimension=dimension, threat="malicious-server")
    signing_key = new_signing_key(folder / "decryptor.key")
    key = DecryptionKey.generate(params, keep=IN_MEMORY)
    (folder / "sums.pub-message").write_bytes(key.public.message(signing_key))
    return DecryptorLink(key, read_directory(folder / "cohort.json"), signing_key=signing_key, keep=IN_MEMORY)


if __name__ == "__main__":
    main()
