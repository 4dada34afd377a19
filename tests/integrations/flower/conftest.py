import atexit
import os
import shutil
import tempfile

import pytest

# Before flwr is imported: nothing is sent, nothing is looked up, its files stay out of the home directory
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
if "FLWR_HOME" not in os.environ:
    os.environ["FLWR_HOME"] = tempfile.mkdtemp(prefix="flwr-tests-")
    atexit.register(shutil.rmtree, os.environ["FLWR_HOME"], ignore_errors=True)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

try:
    import flwr  # noqa: F401
except ModuleNotFoundError:
    # Reported as skips with their reason by test_installed.py
    collect_ignore_glob = ["test_flower_*.py"]


@pytest.fixture(autouse=True)
def _task_identity():
    """Stand in for the process that Flower would have made: messages take their run and source from it."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ModuleNotFoundError:
        yield
        return
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    yield
