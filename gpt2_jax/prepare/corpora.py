"""Named corpora; `inputs.py` makes corpora of the user's own files.

The corpus `python-stdlib` exists wherever Python is installed, so a first run needs no network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import os
import sysconfig
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.files.atomic import write_file
from gpt2_jax.prepare.work_items import Document, WorkItem, documents_items, files_items

# Packages and modules that both Python 3.11 and 3.12 ship as source, without tests, idlelib and
# lib2to3, modules that 3.12 removed, and modules generated for each machine (_sysconfigdata*).
_STDLIB = """
asyncio collections concurrent ctypes curses dbm email encodings ensurepip html http importlib json
logging multiprocessing pydoc_data re sqlite3 tkinter tomllib turtledemo unittest urllib venv
wsgiref xml xmlrpc zoneinfo

__future__ __hello__ _aix_support _collections_abc _compat_pickle _compression _markupbase
_osx_support _py_abc _pydecimal _pyio _sitebuiltins _strptime _threading_local _weakrefset abc aifc
antigravity argparse ast base64 bdb bisect bz2 cProfile calendar cgi cgitb chunk cmd code codecs
codeop colorsys compileall configparser contextlib contextvars copy copyreg crypt csv dataclasses
datetime decimal difflib dis doctest enum filecmp fileinput fnmatch fractions ftplib functools
genericpath getopt getpass gettext glob graphlib gzip hashlib heapq hmac imaplib imghdr inspect io
ipaddress keyword linecache locale lzma mailbox mailcap mimetypes modulefinder netrc nntplib ntpath
nturl2path numbers opcode operator optparse os pathlib pdb pickle pickletools pipes pkgutil platform
plistlib poplib posixpath pprint profile pstats pty py_compile pyclbr pydoc queue quopri random
reprlib rlcompleter runpy sched secrets selectors shelve shlex shutil signal site smtplib sndhdr
socket socketserver sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct
subprocess sunau symtable sysconfig tabnanny tarfile telnetlib tempfile textwrap this threading
timeit token tokenize trace traceback tracemalloc tty turtle types typing uu uuid warnings wave
weakref webbrowser xdrlib zipapp zipfile zipimport
"""
_TEST_FOLDERS = {"test", "tests", "idle_test"}

_TINYSHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
_TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_DOWNLOAD_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Holds documents in a fixed order, in work items that can be read independently.

    Attributes:
      name: recorded in the meta.json of what is prepared from the corpus.
      description: shown in help.
      work_items: takes the bytes that a work item should have; raises UserError if the text cannot
        be found.
    """

    name: str
    description: str
    work_items: Callable[[int], Iterable[WorkItem]] = dataclasses.field(repr=False)


def documents_corpus(documents: Iterable[Document]) -> Corpus:
    """Returns a corpus of documents in memory, or of an iterable that can be read repeatedly."""
    return Corpus("documents", "texts in memory", lambda size: documents_items(documents, size))


def get_corpus(name: str) -> Corpus:
    """Returns the named corpus.

    Raises:
      UserError: if there is no corpus of that name.
    """
    if name not in CORPORA:
        raise UserError(
            f"--corpus must be one of {', '.join(CORPORA)} (your own text: --input PATH), "
            f"not {name!r}{did_you_mean(name, CORPORA)}"
        )
    return CORPORA[name]


def _stdlib_files(root: Path) -> list[Path]:
    """Returns the listed modules' files, relative to `root`, in an order that mixes the packages.

    Sorting by the hash of each path gives the same order everywhere, and makes the end of the
    stream, which becomes the validation split, hold files of many packages.
    """
    files = [Path(f"{name}.py") for name in _STDLIB.split() if (root / f"{name}.py").is_file()]
    for name in _STDLIB.split():
        inside = (path.relative_to(root) for path in (root / name).rglob("*.py"))
        files += [path for path in inside if not _TEST_FOLDERS & set(path.parts)]
    return sorted(files, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest())


def _stdlib_items(item_bytes: int) -> Iterable[WorkItem]:
    root = Path(sysconfig.get_path("stdlib"))
    files = _stdlib_files(root)
    if not files:
        raise UserError(
            f"this Python has no library source in {root}: use --input with text of your own"
        )
    return files_items([root / path for path in files], item_bytes, "text")


def _tinyshakespeare_items(item_bytes: int) -> Iterable[WorkItem]:
    return files_items([_find_tinyshakespeare()], item_bytes, "text")


def _find_tinyshakespeare() -> Path:
    """Returns the verified file from $GPT2_JAX_DATA or the cache, into which it is downloaded."""
    name = "tinyshakespeare.txt"
    if folder := os.environ.get("GPT2_JAX_DATA"):
        path = Path(folder, name)
        if path.is_file():
            if _sha256(path) != _TINYSHAKESPEARE_SHA256:
                raise UserError(
                    f"{path} is not the original tinyshakespeare, because its sha256 differs: "
                    "replace it, or prepare it as it is with --input"
                )
            return path
    cached = Path.home() / ".cache" / "gpt2_jax" / name
    if not cached.is_file() or _sha256(cached) != _TINYSHAKESPEARE_SHA256:
        _download(_TINYSHAKESPEARE_URL, _TINYSHAKESPEARE_SHA256, cached)
    return cached


def _download(url: str, sha256: str, path: Path) -> None:
    """Fetches `url` to `path`, which appears only once its sha256 is right."""
    instead = f"set GPT2_JAX_DATA to a folder with {path.name}, or use --input with your own text"
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {url} ({error}); {instead}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"what {url} sent has another sha256 than expected; {instead}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            "python-stdlib",
            "the source of Python's own standard library, 10 MB, no network",
            _stdlib_items,
        ),
        Corpus(
            "tinyshakespeare",
            "Shakespeare's plays, 1.1 MB, from $GPT2_JAX_DATA or downloaded",
            _tinyshakespeare_items,
        ),
    )
}
