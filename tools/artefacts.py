"""Build the sdist, and the wheel from it, as a publisher would, without leaving anything in the source folder.

Run: ``python tools/artefacts.py OUT``. Needs the setuptools that pyproject.toml asks for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What work leaves in a source folder, git's own folder included; MANIFEST.in names what is taken of the rest
LEAVINGS = (".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".numba_cache")
_HOOKS = "import sys, setuptools.build_meta as hooks; print(getattr(hooks, sys.argv[1])(sys.argv[2]))"


def _call(hook: str, source: Path, out: Path) -> Path:
    """Call a hook of the build backend in a process of its own, as pip does; give the file that it made."""
    done = subprocess.run(
        [sys.executable, "-c", _HOOKS, hook, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{hook} failed in {source}:\n{done.stdout}\n{done.stderr}")
    return out / done.stdout.splitlines()[-1]


def unpack(sdist: Path, into: Path) -> Path:
    """Unpack an sdist and give its one folder."""
    with tarfile.open(sdist) as archive:
        # Python 3.11.3 and older know no filters; ours is an archive that we have just made
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(into)  # noqa: S202
    return into / sdist.name.removesuffix(".tar.gz")


def build(out: Path, root: Path = ROOT) -> tuple[Path, Path]:
    """Build both into ``out``: the paths of the sdist and of the wheel, which is made from the sdist."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        shutil.copytree(root, source, ignore=shutil.ignore_patterns(*LEAVINGS))
        sdist = _call("build_sdist", source, out.resolve())
        return sdist, _call("build_wheel", unpack(sdist, Path(scratch) / "unpacked"), out.resolve())


if __name__ == "__main__":
    print(*build(Path(sys.argv[1])), sep="\n")
