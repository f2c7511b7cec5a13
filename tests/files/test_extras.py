from __future__ import annotations

import sys

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.files.extras import import_extra


def test_an_installed_package_is_imported():
    assert import_extra("json.decoder", extra="data", needed_by="a test").JSONDecoder


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_names_the_extra_and_what_needs_it(package):
    with pytest.raises(UserError) as caught:
        import_extra(package, extra="cluster", needed_by="--engine ray")
    assert str(caught.value) == (
        "--engine ray needs the cluster extra: pip install 'gpt2_jax[cluster]'"
    )


@pytest.mark.parametrize("cause", ["import no_such_dependency", "raise ImportError('libx.so.3')"])
def test_a_package_that_is_broken_is_not_called_missing(tmp_path, monkeypatch, cause):
    (tmp_path / "broken_package.py").write_text(cause)
    monkeypatch.syspath_prepend(str(tmp_path))
    reason = "no_such_dependency" if "no_such" in cause else r"libx\.so\.3"
    with pytest.raises(UserError, match=f"cannot be imported .*{reason}.*--force-reinstall"):
        import_extra("broken_package", extra="data", needed_by="reading")
    assert "broken_package" not in sys.modules
