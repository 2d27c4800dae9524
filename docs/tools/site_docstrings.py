"""Docstrings in the form of Hugging Face, turned into the form of Google that mkdocstrings reads."""

import re
from typing import Any

import griffe


ITEM = re.compile(r"^( +)(\w+(?:, \w+)*) \(((?:`[^`]*`|[^`])*?)\):(.*)$")
RETURNED = re.compile(r"^( +)((?:`[^`]*`|\[`[^`]*`\]|[^`:])+):( .*)$")
REFERENCE = re.compile(r"\[`([\w.]+)`\](?!\[)")


class HuggingFaceDocstrings(griffe.Extension):
    """Rewrites every docstring of the package once all its modules are read, when its public names are known."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """See `griffe.Extension.on_package`."""
        public = public_names(pkg)
        for item in _documented(pkg):
            item.docstring.value = to_google(item.docstring.value, public, _shows_defaults(item))


def public_names(package: griffe.Module) -> dict[str, str]:
    """Where the reference has each name that a module directly below `package` lists in `__all__`."""
    places = {}
    for module in package.modules.values():
        for name in module.exports or []:
            places[str(name)] = f"{module.path}.{name}"
    return places


def to_google(text: str, public: dict[str, str], has_signature: bool = True) -> str:
    """
    A docstring with plain types before the colons, and with links between public names.

    Args:
        text (`str`): In the form of Hugging Face.
        public (`dict[str, str]`): Place in the reference by name; other names in brackets become plain code.
        has_signature (`bool`, *optional*, defaults to `True`):
            Whether a signature beside it says what is optional, and the defaults. They are left out then.

    Returns:
        `str`: In the form of Google.
    """
    lines, section = [], ""
    for line in text.splitlines():
        heading = re.match(r"(\w+):$", line)
        if heading:
            section = heading[1]
        elif line and not line.startswith(" "):
            section = ""
        lines.append(_rewritten(line, section, has_signature))
    return REFERENCE.sub(lambda match: _link(match[1], public), "\n".join(lines))


def _rewritten(line: str, section: str, has_signature: bool) -> str:
    item = ITEM.match(line) if section in ("Args", "Attributes") else None
    if item:
        told = ", *optional*" if section == "Args" and has_signature else "\n"
        kind = _plain(item[3]).partition(told)[0].replace("*optional*", "optional")
        return f"{item[1]}{item[2]} ({kind}):{item[4]}"
    returned = RETURNED.match(line) if section == "Returns" and line.lstrip().startswith(("`", "[`")) else None
    return f"{returned[1]}{_plain(returned[2])}:{returned[3]}" if returned else line


def _plain(kind: str) -> str:
    return re.sub(r"\[`([\w.]+)`\]", r"\1", kind).replace("`", "")


def _link(name: str, public: dict[str, str]) -> str:
    owner, _, member = name.partition(".")
    if owner not in public:
        return f"`{name}`"
    return f"[`{name}`][{public[owner]}{'.' + member if member else ''}]"


def _shows_defaults(item: griffe.Object) -> bool:
    # Classes of another kind than these get their parameters when they are imported, which is not done here.
    if not isinstance(item, griffe.Class):
        return True
    return "__init__" in item.members or any("dataclass" in str(found.value) for found in item.decorators)


def _documented(owner: griffe.Object) -> list[Any]:
    found: list[Any] = [owner] if owner.docstring else []
    for member in owner.members.values():
        if isinstance(member, griffe.Object):
            found += _documented(member)
    return found
