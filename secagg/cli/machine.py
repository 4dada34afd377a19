"""``secagg selftest`` and ``secagg warmup``: whether this machine is ready, and what it keeps for the next process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secagg.cli.errors import Failure
from secagg.cli.options import KeyHolderName, ThreatName, protocol_option
from secagg.cli.output import JsonFile, as_json, check_outputs, say, screen, write_json
from secagg.cohort import PLANNED_CORRUPT, PLANNED_DROPOUT
from secagg.errors import InputError
from secagg.protocol import DEFAULT_PROTOCOL, protocol_named

if TYPE_CHECKING:
    from secagg.readiness import KernelCache


def kernels_text(compiled: int, seconds: float, cache: KernelCache) -> str:
    """Return a sentence about kernels that were just made ready, and where they are kept."""
    if not cache.enabled:
        return "not compiled, since NUMBA_DISABLE_JIT is set: slow"
    made = f"{compiled} compiled in {seconds:.1f} s" if compiled else "compiled before"
    return f"{made}; {cache.describe()}"


def selftest(json_file: JsonFile = None) -> None:
    """Check the AES paths of this machine against known answers, and say which one runs."""
    check_outputs(json_file)
    import secagg
    from secagg.readiness import kernel_cache

    report = dict(secagg.selftest())
    console = screen(json_file)
    for name, value in report.items():
        if name.startswith("cache"):
            continue
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        console.print(f"{name.replace('_', ' ')}: {text}", markup=False, highlight=False)
    console.print(f"kernels: {kernel_cache().describe()}", markup=False, highlight=False)
    console.print("selftest passed")
    write_json(console, json_file, as_json(report))


def warmup(
    clients: Annotated[int | None, typer.Option(help="Clients of the rounds to come.")] = None,
    dimension: Annotated[int, typer.Option(help="Coordinates of a vector; only homomorphic sums depend on it.")] = 1000,
    bits: Annotated[int, typer.Option(help="Bits of one coordinate.")] = 16,
    max_weight: Annotated[int, typer.Option(help="Largest weight that a client may give its vector.")] = 1,
    dropout: Annotated[float, typer.Option(help="Planned share of clients that vanish.")] = PLANNED_DROPOUT,
    corrupt: Annotated[float, typer.Option(help="Planned share of clients that collude.")] = PLANNED_CORRUPT,
    protocol: Annotated[str, protocol_option("Which protocol.")] = DEFAULT_PROTOCOL,
    key_holder: Annotated[KeyHolderName, typer.Option(help="Of homomorphic sums.")] = KeyHolderName.DECRYPTOR,
    threat: Annotated[ThreatName, typer.Option(help="What the server may do.")] = ThreatName.SEMI_HONEST,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that any round runs, at all 64 ring widths, which takes minutes.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Compile what a round runs, so that no process of this user waits for it; say where it is kept.

    In a container's image: run it with --all as the user that will run rounds, NUMBA_CACHE_DIR set as it will be then.
    """
    check_outputs(json_file)
    if (clients is None) is not everything:
        both = " and not both" if everything else ""
        raise InputError(
            f"say which rounds to get ready for: --clients (with --bits, --max-weight ...), or --all{both}"
        )
    console = screen(json_file)
    from secagg import readiness
    from secagg.encoding.fixed_point import FixedPoint

    start = time.perf_counter()
    with console.status("compiling kernels ...", spinner="line") as status:
        if clients is None:
            compiled = readiness.warmup_all(lambda width: status.update(f"compiling kernels: ring of {width}/64 bits"))
        else:
            cohort = {"clients": clients, "dropout": dropout, "corrupt": corrupt}
            vector = {"dimension": dimension, "max_weight": max_weight, "encoding": FixedPoint(clip=1.0, bits=bits)}
            asked = cohort | vector | {"key_holder": key_holder.value, "threat": threat.value}
            compiled = readiness.warmup(protocol_named(protocol).plan(protocol, **asked))
    seconds, cache = time.perf_counter() - start, readiness.kernel_cache()
    say(console, "kernels", kernels_text(compiled, seconds, cache))
    report: dict[str, Any] = {
        "kernels_compiled": compiled,
        "kernels_loaded": readiness.kernels_loaded(),
        "seconds": seconds,
        "cache_path": cache.path,
        "cache_writable": cache.writable,
    }
    write_json(console, json_file, as_json(report))
    if cache.enabled and not cache.writable:
        raise Failure(f"nothing that was compiled here serves another process: kernels are {cache.describe()}")
