"""
Write the repository's address where it belongs: pyproject.toml and the notebooks.

    python run.py badges

It comes from the remote called origin. Every notebook then knows what to clone on
Colab, and has a badge under its title that opens it there. Only the standard library
is used, so that nothing has to be installed first.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GITHUB = re.compile(
    r"(?:git@github\.com:|(?:https|ssh|git)://(?:[^/@]*@)?github\.com/)"
    r"([\w.-]+)/([\w.-]+?)(?:\.git)?/?"
)
COLAB = "https://colab.research.google.com"
BADGE = re.compile(rf"^\[!\[Open in Colab\]\({COLAB}/.*\n\n", re.MULTILINE)


def read_address(remote: str) -> str:
    """
    Turn a git remote into the address of its page.

    Parameters
    ----------
    remote : str
        As ``git remote get-url origin`` gives it; a password in it is left out.

    Returns
    -------
    str
        Such as "https://github.com/owner/name", empty for a place that is not GitHub:
        Colab opens notebooks from there alone.

    Examples
    --------
    >>> read_address("git@github.com:owner/name.git")
    'https://github.com/owner/name'
    """
    found = GITHUB.fullmatch(remote.strip())
    return f"https://github.com/{found[1]}/{found[2]}" if found else ""


def set_project_address(text: str, address: str) -> str:
    """
    Put the address into the text of ``pyproject.toml``.

    Parameters
    ----------
    text : str
        The file's text.
    address : str
        From `read_address`.

    Returns
    -------
    str
        The text with one ``[project.urls]``.
    """
    line = f'Repository = "{address}"'
    if "[project.urls]" in text:
        return re.sub(r'^Repository = ".*"$', line, text, flags=re.MULTILINE)
    start = "[project.optional-dependencies]"
    return text.replace(start, f"[project.urls]\n{line}\n\n{start}", 1)


def set_notebook_address(text: str, name: str, address: str, branch: str) -> str:
    """
    Put the address into a notebook: its set-up cell, and a badge under its title.

    Parameters
    ----------
    text : str
        The notebook as JSON.
    name : str
        Its file's name.
    address : str
        From `read_address`.
    branch : str
        The branch that Colab is to open.

    Returns
    -------
    str
        The notebook with nothing else changed.
    """
    notebook = json.loads(text)
    place = address.removeprefix("https://github.com")
    target = f"{COLAB}/github{place}/blob/{branch}/notebooks/{name}"
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({target})"
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell is notebook["cells"][0]:
            title, rest = BADGE.sub("", source).split("\n\n", 1)
            source = f"{title}\n\n{badge}\n\n{rest}"
        elif "setup" in cell["metadata"].get("tags", []):
            wanted = f'REPOSITORY = "{address}"'
            source = re.sub(r"^REPOSITORY = .*$", wanted, source, flags=re.MULTILINE)
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _ask_git(*arguments: str) -> str:
    """Give what git says, empty when it knows nothing or is not there."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, check=False, capture_output=True, text=True
        )
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()


def main() -> int:
    """
    Set the address everywhere.

    Returns
    -------
    int
        The exit status.
    """
    address = read_address(_ask_git("remote", "get-url", "origin"))
    if not address:
        sys.exit(
            "There is no remote called origin on GitHub, from where alone Colab opens "
            "notebooks: `git remote add origin https://github.com/OWNER/NAME`, then "
            "run this again."
        )
    head = _ask_git("symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    branch = head.removeprefix("origin/") or "main"
    project = ROOT / "pyproject.toml"
    changed = {project: set_project_address(project.read_text("utf-8"), address)}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = path.read_text("utf-8")
        changed[path] = set_notebook_address(text, path.name, address, branch)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{address} (branch {branch}) is in pyproject.toml and the notebooks now.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
