from __future__ import annotations

import errno
import os

import pytest

from gpt2_jax.files.disk_full import disk_full_message, is_disk_full


def os_error(number, *path):
    return OSError(number, os.strerror(number), *path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_a_full_quota_and_a_file_at_its_limit_are_recognized(number):
    assert is_disk_full(os_error(number))
    message = disk_full_message(os_error(number, "/data/x"))
    assert message.startswith("no space left on /data/x")
    assert message.endswith(": make room and run the same command again")
    assert ("ulimit" in message) == (number == errno.EFBIG)


@pytest.mark.parametrize(
    "error",
    [
        os_error(errno.EACCES),
        os_error(errno.EIO),
        ValueError("429: quota exceeded for requests per minute"),  # of a bucket
        MemoryError(),
    ],
)
def test_other_failures_are_not(error):
    assert not is_disk_full(error)


def test_tensorstore_tells_of_it_in_words():
    for number in (errno.ENOSPC, errno.EDQUOT):
        error = ValueError(
            f"RESOURCE_EXHAUSTED: Error writing '/run/params/d/1': [OS error {number}: "
            f"{os.strerror(number)}] [source locations='tensorstore/internal/os']"
        )
        assert is_disk_full(error)
        assert disk_full_message(error, remedy="") == "no space left on the disk"


def raised(*errors, **settings):
    """Returns the last error, raised while the ones before it were handled."""
    try:
        if len(errors) > 1:
            try:
                raise raised(*errors[:-1])
            except Exception as cause:
                if "cause" in settings:
                    raise errors[-1] from (cause if settings["cause"] else None)
                raise errors[-1]  # noqa: B904
        raise errors[-1]
    except Exception as error:
        return error


def test_a_full_disk_is_found_among_the_causes_of_an_error():
    full = os_error(errno.ENOSPC, "/data/x")
    for settings in ({}, {"cause": True}):
        error = raised(full, ValueError("save failed"), **settings)
        assert is_disk_full(error) and "/data/x" in disk_full_message(error)
    assert is_disk_full(raised(full, KeyError("a"), RuntimeError("b")))
    assert not is_disk_full(raised(full, ValueError("another matter"), cause=False))


def test_the_caller_may_say_what_is_full_and_what_to_do():
    error = os_error(errno.ENOSPC, "/run/1.tmp/x")
    message = disk_full_message(error, place="the disk", remedy="remove something")
    assert message == "no space left on the disk: remove something"
