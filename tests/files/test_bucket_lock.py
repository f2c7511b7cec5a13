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
from gpt2_jax.files.lock_owner import LockOwner

_WORKDIR = Path("bucket/run")


class Bucket:
    """Answers a lock's requests as Google Cloud Storage does; each request takes a second."""

    base = "https://host/storage/v1/"

    def __init__(self):
        self.content, self.generation, self.written, self.now = b"", 0, 0.0, 1.7e9
        self.before_write = lambda: None
        self.answers_lost = 0

    def put(self, owner, age_s=0.0):
        self.generation += 1
        self.content, self.written = owner.to_bytes(), self.now - age_s

    def owner(self):
        return LockOwner.parse(self.content) if self.content else None

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
        self.put(LockOwner.parse(settings["data"]))
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
    lock = BucketLock(_WORKDIR, "--workdir gs://bucket/run", refresh_s=0.02, stale_s=300, poll_s=0)
    yield lock
    lock.release()


def elsewhere():
    """Returns an owner on another machine."""
    return dataclasses.replace(LockOwner.this_process(), host="far", pid_space="elsewhere")


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_owner_rewrites_the_object_and_removes_it_at_the_end(bucket, lock):
    lock.acquire()
    token = bucket.owner().token
    generation = bucket.generation
    wait_for(lambda: bucket.generation >= generation + 3)
    assert bucket.owner().token == token
    bucket.content = b""  # as by someone who takes it for a file left behind
    wait_for(lambda: bucket.owner() is not None)
    assert bucket.owner().token == token
    lock.release()
    assert bucket.owner() is None


def test_a_second_process_on_this_machine_is_refused_while_the_owner_lives(bucket, lock):
    lock.acquire()
    second = BucketLock(_WORKDIR, stale_s=-1)  # however old
    with pytest.raises(UserError, match=rf"bucket/run is in use by process {os.getpid()} on "):
        second.acquire()
    token = bucket.owner().token
    second.release()
    assert bucket.owner().token == token


def test_the_lock_of_a_process_that_died_on_this_machine_is_taken_at_once(bucket, lock, capsys):
    bucket.put(dataclasses.replace(LockOwner.this_process(), started="0"))
    lock.acquire()
    assert bucket.owner().pid == os.getpid() and capsys.readouterr().err == ""


def test_the_lock_of_another_machine_is_taken_once_it_was_silent_for_long(bucket, lock, capsys):
    bucket.put(elsewhere(), age_s=100)
    began = bucket.now
    lock.acquire()
    assert 200 <= bucket.now - began < 210
    assert bucket.owner().host != "far"
    (warned,) = capsys.readouterr().err.splitlines()
    assert "may be in use by process" in warned and " on host far" in warned
    assert "at most 199 s" in warned


def test_a_sign_of_life_from_another_machine_refuses(bucket, lock):
    other = elsewhere()
    bucket.put(other, age_s=100)
    read = lock._read

    def read_and_refresh():
        stored = read()
        if bucket.now > 1.7e9 + 50:
            bucket.put(other)
        return stored

    lock._read = read_and_refresh
    with pytest.raises(UserError, match=r"is in use by process .* on host far"):
        lock.acquire()
    assert bucket.owner() == other and bucket.now < 1.7e9 + 100


@pytest.mark.parametrize("left_behind", [True, False])
def test_of_two_processes_that_find_the_lock_free_one_gets_it(bucket, lock, left_behind):
    if left_behind:
        bucket.put(elsewhere(), age_s=1000)
    faster = LockOwner.this_process()
    bucket.before_write = lambda: bucket.put(faster)
    with pytest.raises(UserError, match="in use"):
        lock.acquire()
    assert bucket.owner() == faster


def test_an_answer_that_is_lost_does_not_lock_the_owner_out(bucket, lock):
    bucket.answers_lost = 1
    lock.acquire()
    bucket.answers_lost = 1
    generation = bucket.generation
    wait_for(lambda: bucket.generation >= generation + 3)
    lock.release()
    assert bucket.owner() is None


def test_the_lock_outlasts_a_bucket_that_fails_for_a_while(bucket, lock, monkeypatch):
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
    assert bucket.owner().pid == os.getpid()


def test_an_owner_that_was_cut_off_for_too_long_ends(bucket, lock, monkeypatch, capfd):
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
    assert statuses == [2] and bucket.owner() == other
    said = capfd.readouterr().err.strip()
    assert said.startswith("error: ") and "taken over by process" in said and "on host far" in said


def test_a_bucket_that_forbids_writing_is_a_user_error(bucket, lock, monkeypatch):
    def forbid(*args, **settings):
        raise OSError("Forbidden: no storage.objects.create access")

    monkeypatch.setattr(bucket, "call", forbid)
    with pytest.raises(UserError, match="cannot lock --workdir gs://bucket/run: Forbidden"):
        lock.acquire()
