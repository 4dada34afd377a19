"""The index page: README.md, whose links lead to files beside it that an index does not show.

They become links into the published source, below the address of ``Source`` in pyproject.toml. While that is a reserved
one (``.example``), which leads nowhere, their texts alone stay. Everything else about the package is in pyproject.toml.
"""

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from setuptools import setup

ROOT = Path(__file__).resolve().parent
RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def index_page(readme: str, source: str) -> str:
    published = not (urlsplit(source).hostname or "example").endswith("example")
    return RELATIVE_LINK.sub(rf"[\1]({source.rstrip('/')}/\2)" if published else r"\1", readme)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=index_page((ROOT / "README.md").read_text(encoding="utf-8"), project["urls"]["Source"]),
        long_description_content_type="text/markdown",
    )
