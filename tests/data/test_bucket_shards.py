"""Tests that shards in a bucket read as on a disk, and that what is wrong with one is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.data.loader import TrainLoader
from gpt2_jax.data.shard_file import write_shard
from gpt2_jax.data.shards import fingerprint, open_tokens
from gpt2_jax.data.token_sets import open_sets, resolve_vocab_size
from gpt2_jax.errors import UserError
from gpt2_jax.files import bucket
from gpt2_jax.files.bucket import ByteRange, StoredObject, _grouped, read_ranges
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from tests.fake_gcs import fake_storage

FOREIGN = Path(__file__).parent / "foreign"
MIXTURE = "gs://bucket/data=0.7,gs://bucket/foreign/=0.3"


def test_near_ranges_of_an_object_are_one_request_of_limited_size():
    one, two = (StoredObject(Path(name), 1 << 30, "1") for name in ("one", "two"))
    ranges = [
        ByteRange(one, 5_000_000, 5_000_100),
        ByteRange(two, 0, 100),
        ByteRange(one, 0, 2_000),
        ByteRange(one, 60_000, 62_000),
        ByteRange(one, 61_000, 61_100),
        ByteRange(one, 5_000_100, 13_000_000),
        ByteRange(one, 13_000_000, 14_000_000),
    ]
    assert _grouped(ranges) == [[2, 3, 4], [0, 5], [6], [1]]


def test_a_large_range_is_read_by_several_requests_of_limited_size(monkeypatch):
    content = np.random.default_rng(0).bytes(20 << 20)
    requests = []

    class Storage:
        def cat_ranges(self, names, starts, stops, **settings):
            requests.extend(zip(starts, stops, strict=True))
            return [content[start:stop] for start, stop in zip(starts, stops, strict=True)]

    monkeypatch.setattr(bucket, "_storage", Storage)
    source = StoredObject(Path("gs://bucket/one"), len(content), "1")
    ranges = [ByteRange(source, 5, len(content)), ByteRange(source, 7, 7), ByteRange(source, 1, 4)]
    assert [bytes(part) for part in read_ranges(ranges)] == [content[5:], b"", content[1:4]]
    assert max(stop - start for start, stop in requests) <= 8 << 20
    assert len(requests) <= 4
    assert b"".join(bucket.read_blocks(source)) == content


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Returns (the fake storage, a folder whose content is in gs://bucket)."""
    import gcsfs  # of an extra, for which the marker gcs looks first

    folder = tmp_path_factory.mktemp("bucket")
    prepare(
        [Document("x", "one fish two fish " * 400)], "byte", folder / "data", tokens_per_shard=999
    )
    (folder / "foreign").mkdir()
    for name in ("a_train_000001.bin", "a_train_000002.bin"):
        write_shard(folder / "foreign" / name, [np.arange(4000, dtype=np.uint16) % 257], 4000)
    with fake_storage() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        gcsfs.GCSFileSystem.clear_instance_cache()
        fs = gcsfs.GCSFileSystem(use_listings_cache=False)
        fs.put(str(folder) + "/", "bucket/", recursive=True)
        yield fs, folder
        gcsfs.GCSFileSystem.clear_instance_cache()


def config_of(**data):
    small = {"num_layers": 1, "context_length": 16, "vocab_size": 257}
    return from_dict(
        {
            "model": small,
            "compute": {"loss_chunk": 0},
            "train": {"batch_size": 8},
            "data": {"tokenizer": "byte", **data},
        }
    )


@pytest.mark.gcs
@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "foreign"])
def test_a_bucket_has_the_tokens_the_batches_and_the_fingerprint_of_a_disk(storage, name):
    _, folder = storage
    place = f"gs://bucket/{name}"
    for split in ("train", "val"):
        near, far = open_tokens(folder / name, split), open_tokens(place, split)
        assert np.array_equal(near.read(0, len(near)), far.read(0, len(far)))
    assert fingerprint(place) == fingerprint(folder / name)
    batches = [
        TrainLoader(open_tokens(where, "train"), batch_size=64, context_length=16, seed=0)
        for where in (folder / name, place)
    ]
    for step in range(3):
        one, other = (loader.rows(step, range(64)) for loader in batches)
        assert np.array_equal(one.inputs, other.inputs)


@pytest.mark.gcs
@pytest.mark.slow
def test_a_mixture_reads_from_a_bucket_and_a_disk(storage):
    _, folder = storage
    in_bucket = open_sets(config_of(mixture=MIXTURE))
    mixed = f"gs://bucket/data=0.7,{folder / 'foreign'}=0.3"
    half = open_sets(config_of(mixture=mixed))
    assert list(in_bucket.val_tokens) == ["gs://bucket/data", "gs://bucket/foreign"]
    assert in_bucket.fingerprint == half.fingerprint
    one, other = (sets.source.rows(5, range(8)) for sets in (in_bucket, half))
    assert np.array_equal(one.inputs, other.inputs)
    assert open_sets(config_of(path="gs://bucket/data/"), check_sums=True)


@pytest.mark.gcs
@pytest.mark.slow
def test_what_is_missing_or_wrong_in_a_bucket_is_one_line_that_names_it(storage):
    fs, folder = storage
    for place in ("gs://bucket/absent", "gs://absent/data"):
        with pytest.raises(UserError, match=f"^no data folder {place}: name another$"):
            open_sets(config_of(path=place))
    fs.pipe("bucket/empty/note.txt", b"x")
    with pytest.raises(UserError, match=r"^gs://bucket/empty has no train tokens"):
        open_sets(config_of(path="gs://bucket/empty"))

    content = (folder / "data" / "train_000001.bin").read_bytes()

    def copy(name):
        fs.put(str(folder / "data") + "/", f"bucket/{name}/", recursive=True)
        return f"gs://bucket/{name}", f"bucket/{name}/train_000001.bin"

    place, shard = copy("truncated")
    fs.pipe(shard, content[:-10])
    with pytest.raises(UserError, match=rf"^gs://{shard} is corrupt: it must have 3022 bytes"):
        open_sets(config_of(path=place))
    place, shard = copy("missing")
    fs.rm(shard)
    with pytest.raises(UserError, match=rf"^gs://{shard} has no tokens, but meta\.json says 999"):
        open_sets(config_of(path=place))
    place, shard = copy("damaged")
    fs.pipe(shard, content[:-2] + b"\0\0")
    with pytest.raises(UserError, match=rf"^gs://{shard} is damaged, because its sha256"):
        open_sets(config_of(path=place), check_sums=True)
    fs.pipe(f"{place.removeprefix('gs://')}/meta.json", b"{")
    with pytest.raises(UserError, match=rf"^{place}/meta.json cannot be read"):
        open_sets(config_of(path=place))


@pytest.mark.gcs
@pytest.mark.slow
def test_an_object_that_changes_while_it_is_read_is_named(storage):
    fs, folder = storage
    content = (folder / "data" / "train_000001.bin").read_bytes()
    for name, change, problem in (
        ("written", lambda shard: fs.pipe(shard, content), "has changed: it was written to since"),
        ("cut", lambda shard: fs.pipe(shard, content[:-10]), "has changed: it had 3,022 bytes and"),
        ("gone", lambda shard: fs.rm(shard), "is missing;"),
    ):
        fs.put(str(folder / "data") + "/", f"bucket/{name}/", recursive=True)
        tokens = open_tokens(f"gs://bucket/{name}", "train")
        change(f"bucket/{name}/train_000001.bin")
        assert len(tokens.read(0, 900)) == 900
        with pytest.raises(UserError, match=f"^gs://bucket/{name}/train_000001.bin, .* {problem}"):
            tokens.read(900, 200)


@pytest.mark.gcs
@pytest.mark.slow
def test_a_run_is_planned_without_reaching_its_bucket(storage, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    config = from_dict({"data": {"tokenizer": "byte", "path": "gs://bucket/data"}})
    assert resolve_vocab_size(config).model.vocab_size == 257


def test_nanogpts_characters_are_refused_by_name(tmp_path):
    shutil.copytree(FOREIGN / "nanogpt_char", tmp_path / "chars")
    (tmp_path / "chars" / "meta.pkl").write_bytes(b"not even a pickle")
    for tokenizer in ("gpt2", "char", "byte"):
        config = config_of(path=str(tmp_path / "chars"), tokenizer=tokenizer)
        with pytest.raises(UserError, match=r"meta\.pkl, .* prepare --tokenizer char") as error:
            open_sets(config)
        assert "\n" not in str(error.value)
