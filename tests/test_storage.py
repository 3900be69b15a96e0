"""Files by address, local and in S3 (moto speaks the real protocol)."""

import resource

import boto3
import pytest
from moto.server import ThreadedMotoServer

from neuroint import storage
from neuroint.storage import StorageError, exists, list_files, read_bytes, upload_folder, write_bytes


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch):
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    storage._STORES["s3"].cache_clear()
    everything = boto3.resource("s3").create_bucket(Bucket="lab")
    yield "s3://lab/sweeps"
    everything.objects.delete()
    everything.delete()
    storage._STORES["s3"].cache_clear()


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """An address to write to, of either kind."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("bucket")


def test_what_is_written_is_read_and_replaced(place):
    address = f"{place}/run/config.yaml"
    assert not exists(address)
    write_bytes(address, b"lr: 1\n")
    write_bytes(address, b"lr: 2\n")
    assert read_bytes(address) == b"lr: 2\n"
    assert exists(address)
    assert list_files(place) == ["run/config.yaml"]


def test_a_folder_exists_but_not_a_name_that_only_begins_alike(place):
    write_bytes(f"{place}/run/a", b"")
    assert exists(f"{place}/run")
    assert exists(f"{place}/run/")
    assert not exists(f"{place}/ru")
    assert not exists(f"{place}/run/a/b")


def test_files_are_listed_at_any_depth_in_order_and_relative(place):
    for name in ("b", "a/z", "a/b/c"):
        write_bytes(f"{place}/x/{name}", b"1")
    write_bytes(f"{place}/xy/other", b"1")
    assert list_files(f"{place}/x") == ["a/b/c", "a/z", "b"]


def test_a_folder_is_uploaded_whole_and_again(place, tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one.bin").write_bytes(b"1" * 100_000)
    (folder / "deep" / "er" / "two").write_text("2")
    for _ in range(2):
        upload_folder(folder, f"{place}/copy")
    assert list_files(f"{place}/copy") == ["deep/er/two", "one.bin"]
    assert read_bytes(f"{place}/copy/one.bin") == b"1" * 100_000


@pytest.mark.slow
def test_a_listing_of_more_than_a_page_of_keys_is_whole(bucket):
    client = boto3.client("s3")
    for i in range(1001):  # S3 returns 1000 a page
        client.put_object(Bucket="lab", Key=f"sweeps/{i:04d}", Body=b"")
    assert list_files(bucket) == [f"{i:04d}" for i in range(1001)]


def test_what_is_not_there_is_told(place):
    with pytest.raises(StorageError, match=r"missing.npy: .*; expected .* that can be read; check the address"):
        read_bytes(f"{place}/missing.npy")
    with pytest.raises(StorageError, match=r"missing: no .*; expected a .*; check the p"):
        list_files(f"{place}/missing")
    with pytest.raises(StorageError, match=r"nowhere: not a folder; expected a local folder to upload"):
        upload_folder("nowhere", place)


def test_a_bucket_that_is_not_there_is_told(bucket, tmp_path):
    (tmp_path / "a").write_text("1")
    with pytest.raises(StorageError, match=r"s3://other/a: .*NoSuchBucket.*; expected a bucket that can be written"):
        write_bytes("s3://other/a", b"1")
    with pytest.raises(StorageError, match=r"s3://other/x/a: .*NoSuchBucket.*; expected a bucket that can be written"):
        upload_folder(tmp_path, "s3://other/x")
    with pytest.raises(StorageError, match=r"s3://other/a: .*NoSuchBucket.*; expected a bucket that can be listed"):
        exists("s3://other/a")


def test_an_endpoint_that_is_down_is_told(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage._STORES["s3"].cache_clear()
    with pytest.raises(StorageError, match=r"s3://lab/a: .*127.0.0.1:9.*; expected an object that can be read"):
        read_bytes("s3://lab/a")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("gs://bucket/a", "unknown scheme 'gs'; expected a local path or s3://bucket/key"),
        ("s3:///a", "names no bucket"),
    ],
)
def test_an_address_that_is_none_is_told(bucket, address, message):
    with pytest.raises(StorageError, match=message):
        read_bytes(address)


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path):
    address = tmp_path / "scores"
    write_bytes(address, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large; expected a folder that can be written and has space"):
            write_bytes(address, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert address.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]
