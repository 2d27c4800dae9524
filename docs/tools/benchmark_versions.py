"""With which version of the code a benchmark was measured."""

import re
from collections.abc import Iterable
from typing import Any


def version_of(table: dict[str, Any]) -> str:
    """Of one table; those that are older than this say nothing of it."""
    code = table.get("machine", {}).get("code")
    return "an earlier version" if code is None else f"version {code}"


def measured_with(tables: Iterable[dict[str, Any]]) -> str:
    """A sentence about tables that are shown as one: their version or, where they have several, what is of which."""
    titles: dict[str, list[str]] = {}
    for table in tables:
        titles.setdefault(version_of(table), []).append(re.split("[:;]", table.get("title", ""))[0])
    if len(titles) == 1:
        return f"Measured with {next(iter(titles))} of the code."
    parts = [f"{version} ({'; '.join(dict.fromkeys(found))})" for version, found in titles.items()]
    return f"Measured with several versions of the code: {', '.join(parts)}." if parts else ""
