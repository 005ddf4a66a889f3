"""What the check scripts share: which files are ours, and C text without comments and strings."""
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Order matters: whichever begins first wins, so a quote in a comment opens no string.
_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL
)


def c_files(*folders, root=ROOT):
    """Returns the C files below the folders, sorted; a folder that does not exist has none."""
    return sorted(
        path
        for folder in folders
        for path in (root / folder).rglob("*.[ch]")
        if "corpus" not in path.parts
    )


def blank(text):
    """Returns C text of the same shape, with comments and the insides of literals blanked."""

    def replace(match):
        token = match.group(0)
        if token[0] in "\"'":
            return token[0] + " " * (len(token) - 2) + token[0]
        return re.sub(r"[^\n]", " ", token)

    return _TOKEN.sub(replace, text)


def relative(path, root=ROOT):
    return str(Path(path).relative_to(root))
