"""Writes docs/interface.md: the public names of the package, from their docstrings and annotations.

    python docs/make_interface.py           # writes it
    python docs/make_interface.py --check   # says whether it is as the docstrings are; status 1 where it is not

The package is read, not imported.
"""

import argparse
import re
import sys
from pathlib import Path

from griffe import GriffeLoader, Parser
from griffe2md import ConfigDict, render_object_docs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "interface.md"
HEAD = """\
# The interface

What `import dsvlfs` gives, from the docstrings (`make docs` writes this page). Names beside these may change in any
version. The command line says what it takes by `dsvlfs COMMAND --help`.

"""
STYLE = ConfigDict(
    heading_level=2,
    inherited_members=True,  # of our own classes: no other package is loaded
    line_length=110,
    members_order="source",
    show_if_no_docstring=False,
    show_object_full_path=False,
    show_root_full_path=False,
    show_root_members_full_path=False,
    show_signature_annotations=True,
    summary=False,
)


def main() -> int:
    """Writes or checks the page, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is out of date")
    check = parser.parse_args().check
    page = interface()
    if not check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        print("docs/interface.md is not what the docstrings say; run `make docs`.", file=sys.stderr)
        return 1
    return 0


def interface() -> str:
    """The page, as Markdown."""
    # Names that share a line of a docstring ("width, height: ...") are no parameters to griffe: no warnings of it.
    options = {"ignore_init_summary": True, "returns_multiple_items": False, "warnings": False}
    loader = GriffeLoader(search_paths=[ROOT], docstring_parser=Parser("google"), docstring_options=options)
    package = loader.load("dsvlfs")
    loader.resolve_aliases()
    names = sorted(str(name) for name in package.exports or ())
    contents = "".join(f"- [`{name}`](#{name.lower()})\n" for name in names)
    parts = (render_object_docs(package[name].final_target, STYLE, format_md=True) for name in names)
    return HEAD + contents + "\n" + "\n".join(_plain_types(part, names) for part in parts)


def _plain_types(text: str, names: list[str]) -> str:
    """Types as code, in place of links of which most lead nowhere: only the public names have a heading here."""

    def plain(found: re.Match[str]) -> str:
        written = re.sub(r"\[([^\[\]]+)\]\(#[^)]*\)", r"\1", found[1])
        written = written.replace("\\", "")
        return f"[`{written}`](#{written.lower()})" if written in names else f"`{written}`"

    text = re.sub(r"<code>(.*?)</code>", plain, text)
    return re.sub(r"\[(\*\*\w+\*\*)\]\(#[^)]*\)", r"\1", text)  # attributes have no heading either


if __name__ == "__main__":
    sys.exit(main())
