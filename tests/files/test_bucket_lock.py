from __future__ import annotations

import dataclasses
import datetime
import email.utils
import json
import os
import time
from pathlib import Path

import fsspec
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.files import bucket_lock
from gpt2_jax.files.bucket_lock import BucketLock
from gpt2_jax.files.lock_owner import Holder

_WORKDIR = Path("bucket/run")


class Bucket:
    """What a lock asks of Google Cloud Storage, with a clock that moves when it is looked at."""

    base = "https://host/storage/v1/"

    def __init__(self):
        self.content, self.generation, self.written, self.now = b"", 0, 0.0, 1.7e9
        self.before_write = lambda: None
        self.answers_lost = 0

    def put(self, holder, age_s=0.0):
        self.generation += 1
        self.content, self.written = holder.to_bytes(), self.now - age_s

    def holder(self):
        return Holder.parse(self.content) if self.content else None

    def call(self, method, path, bucket, key="", *, timeout, **settings):
        url = (path if path.startswith("https:") else self.base + path).format(bucket, key)
        if method == "POST":
            assert url == "https://host/upload/storage/v1/b/bucket/o"
            assert settings["name"] == "run/lock" and settings["uploadType"] == "media"
            self.before_write()
        else:
            assert url == "https://host/storage/v1/b/bucket/o/run/lock"
        self.now += 1
        if method == "GET":
            return self._get(settings)
        if settings["ifGenerationMatch"] != (str(self.generation) if self.content else "0"):
            raise FileExistsError(path)
        if method == "DELETE":
            self.content = b""
            return {}, b""
        self.put(Holder.parse(settings["data"]))
        if self.answers_lost:
            self.answers_lost -= 1  # gcsfs asks again, and now the condition fails
            raise FileExistsError(path)
        return {}, self._resource()

    def _get(self, settings):
        if not self.content or settings.get("generation", str(self.generation)) != str(
            self.generation
        ):
            raise FileNotFoundError
        headers = {"Date": email.utils.formatdate(self.now, usegmt=True)}
        return headers, self.content if settings.get("alt") else self._resource()

    def _resource(self):
        updated = datetime.datetime.fromtimestamp(self.written, datetime.UTC)
        text = updated.isoformat().replace("+00:00", "Z")
        return json.dumps({"generation": str(self.generation), "updated": text}).encode()


@pytest.fixture
def bucket(monkeypatch):
    bucket = Bucket()
    monkeypatch.setattr(fsspec, "filesystem", lambda name: bucket)
    return bucket


@pytest.fixture
def lock(bucket):
    lock = BucketLock(_WORKDIR, refresh_s=0.02, stale_s=300, poll_s=0)
    yield lock
    lock.release()


def elsewhere():
    """A holder on another machine."""
    return dataclasses.replace(Holder.this(), host="far", place="elsewhere")


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_holder_writes_the_object_again_and_again_and_removes_it(bucket, lock):
    lock.acquire()
    token = bucket.holder().token
    generation = bucket.generation
    wait_for(lambda: bucket.generation >= generation + 3)
    assert bucket.holder().token == token
    bucket.content = b""  # by someone who takes it for a file left behind
    wait_for(lambda: bucket.holder() is not None)
    assert bucket.holder().token == token
    lock.release()
    assert bucket.holder() is None


def test_a_trainer_on_this_machine_is_refused_while_the_holder_lives(bucket, lock):
    lock.acquire()
    second = BucketLock(_WORKDIR, stale_s=-1)  # however old
    with pytest.raises(UserError, match=rf"bucket/run is in use by .*process {os.getpid()}, since"):
        second.acquire()
    token = bucket.holder().token
    second.release()
    assert bucket.holder().token == token


def test_a_holder_that_died_on_this_machine_is_followed_at_once(bucket, lock, capsys):
    bucket.put(dataclasses.replace(Holder.this(), born="0"))
    lock.acquire()
    assert bucket.holder().pid == os.getpid() and capsys.readouterr().err == ""


def test_a_holder_elsewhere_is_followed_once_it_was_silent_for_long(bucket, lock, capsys):
    bucket.put(elsewhere(), age_s=100)
    began = bucket.now
    lock.acquire()
    assert 200 <= bucket.now - began < 210
    assert bucket.holder().host != "far"
    (warned,) = capsys.readouterr().err.splitlines()
    assert "in use by a trainer on host far" in warned and " 199 s at most" in warned


def test_a_sign_of_life_elsewhere_refuses(bucket, lock):
    other = elsewhere()
    bucket.put(other, age_s=100)
    find = lock._find

    def find_and_refresh():
        found = find()
        if bucket.now > 1.7e9 + 50:
            bucket.put(other)
        return found

    lock._find = find_and_refresh
    with pytest.raises(UserError, match="in use by a trainer on host far"):
        lock.acquire()
    assert bucket.holder() == other and bucket.now < 1.7e9 + 100


@pytest.mark.parametrize("left_behind", [True, False])
def test_of_two_that_find_the_lock_free_one_gets_it(bucket, lock, left_behind):
    if left_behind:
        bucket.put(elsewhere(), age_s=1000)
    faster = Holder.this()
    bucket.before_write = lambda: bucket.put(faster)
    with pytest.raises(UserError, match="in use"):
        lock.acquire()
    assert bucket.holder() == faster


def test_an_answer_that_is_lost_does_not_lock_the_holder_out(bucket, lock):
    bucket.answers_lost = 1
    lock.acquire()
    bucket.answers_lost = 1
    generation = bucket.generation
    wait_for(lambda: bucket.generation >= generation + 3)
    lock.release()
    assert bucket.holder() is None


def test_a_bucket_that_fails_for_a_while_costs_nothing(bucket, lock, monkeypatch):
    lock.acquire()
    call, failures = bucket.call, []

    def fail(*args, **settings):
        failures.append(args)
        raise ConnectionError("no route")

    monkeypatch.setattr(bucket, "call", fail)
    wait_for(lambda: len(failures) >= 3)
    monkeypatch.setattr(bucket, "call", call)
    generation = bucket.generation
    wait_for(lambda: bucket.generation > generation)
    assert bucket.holder().pid == os.getpid()


def test_one_that_was_cut_off_for_too_long_ends(bucket, lock, monkeypatch, capfd):
    statuses = []

    def end(status):
        statuses.append(status)
        lock._released.set()  # what would end with the process
        raise ConnectionError("in a test it goes on")

    monkeypatch.setattr(bucket_lock.os, "_exit", end)
    lock.acquire()
    other = elsewhere()
    bucket.put(other)
    wait_for(lambda: statuses)
    assert statuses == [2] and bucket.holder() == other
    said = capfd.readouterr().err.strip()
    assert said.startswith("error: ") and "taken over by a trainer on host far" in said


def test_a_bucket_that_may_not_be_written_to_is_the_users_to_mend(bucket, lock, monkeypatch):
    def forbid(*args, **settings):
        raise OSError("Forbidden: no storage.objects.create access")

    monkeypatch.setattr(bucket, "call", forbid)
    with pytest.raises(UserError, match="can't lock --workdir bucket/run: Forbidden"):
        lock.acquire()
