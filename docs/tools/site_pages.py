"""
What mkdocs does with every page before it renders it.

- A line that is nothing but a link to a section of a Markdown file, with the title "include", is replaced by that
  section. In a view of the repository it stays a link.
- `<!-- table: NAME -->` is replaced by a table of `site_tables`, and `<!-- api: PACKAGE -->` by the reference of every
  name in the package's `__all__`.
- A link to a file outside of docs/ leads to a copy of that file in the site; one to a folder becomes its text.
"""

import importlib
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_tables import TABLES


ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
INCLUDE = re.compile(r'^\[[^\]]+\]\(([^)#]+)#([\w-]+) "include"\)$', flags=re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
TABLE = re.compile(r"<!-- table: (\w+) -->")
REFERENCE = re.compile(r"<!-- api: ([\w.]+) -->")


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """See the hooks of mkdocs."""
    source = DOCS / page.file.src_uri
    text = INCLUDE.sub(lambda match: included(source.parent / match[1], match[2], source.parent), markdown)
    text = TABLE.sub(lambda match: TABLES[match[1]](), text)
    text = REFERENCE.sub(lambda match: api(match[1]), text)
    return LINK.sub(lambda match: _on_site(match, source.parent, config, files), text)


def included(file: Path, slug: str, folder: Path) -> str:
    """
    A section of a Markdown file without its heading, with links that hold in another folder.

    Args:
        file (`Path`): The Markdown file.
        slug (`str`): Its heading in lower case, with hyphens in place of blanks.
        folder (`Path`): Where the section will be read.

    Raises:
        ValueError: The file has no such heading.
    """
    text = file.read_text(encoding="utf-8")
    for match in re.finditer(r"^(##+) (.+)\n", text, flags=re.MULTILINE):
        if re.sub(r"[^\w-]", "", match[2].lower().replace(" ", "-")) == slug:
            rest = text[match.end() :]
            following = re.search(rf"^#{{2,{len(match[1])}}} ", rest, flags=re.MULTILINE)
            body = rest[: following.start()] if following else rest
            return LINK.sub(lambda link: _rebased(link, file.parent, folder), body.strip())
    raise ValueError(f'{file.name} has no heading for #{slug}; correct the link with the title "include"')


def api(package: str) -> str:
    """The reference of every name that `package` makes public: classes and functions, then constants."""
    module = importlib.import_module(package)
    objects = {name: getattr(module, name) for name in module.__all__}
    documented = [f"::: {package}.{name}" for name, value in objects.items() if callable(value)]
    constants = [_constant(package, name, value) for name, value in objects.items() if not callable(value)]
    return "\n\n".join([*documented, *constants])


def _constant(package: str, name: str, value: Any) -> str:
    shown = f"keys: {', '.join(f'`{key}`' for key in value)}" if isinstance(value, dict) else f"`{value!r}`"
    return f"## `{name}` {{ #{package}.{name} }}\n\n`{type(value).__name__}`, {shown}"


def _rebased(link: re.Match[str], old: Path, new: Path) -> str:
    target = link[3]
    if "://" in target or target.startswith("#"):
        return link[0]
    return f"{link[1]}[{link[2]}]({os.path.relpath(old / target, new)})"


def _on_site(link: re.Match[str], folder: Path, config: Any, files: Files) -> str:
    target = link[3]
    path = (folder / target.partition("#")[0]).resolve()
    if "://" in target or target.startswith("#") or path.is_relative_to(DOCS):
        return link[0]
    if path.is_dir():
        return link[2]
    # With this ending a browser shows what it would download or run otherwise.
    copy = f"repository/{path.relative_to(ROOT)}.txt"
    if files.get_file_from_path(copy) is None:
        files.append(File.generated(config, copy, content=path.read_text(encoding="utf-8")))
    return f"{link[1]}[{link[2]}]({os.path.relpath(DOCS / copy, folder)})"
