"""The contents of objects: in files beside the state, whole after a crash, and gone with their objects."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_support import RunningApi, forget_everything
from botocore.exceptions import ClientError
from test_s3_callers import ask, refused, signed

from ec2lab.api.objects import Body, Directory, Segment, joined, use

MIB = 1 << 20
BUCKET = "backups"


@pytest.fixture
def s3(running_api: RunningApi) -> Any:
    client = running_api.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


def files(api: RunningApi) -> list[int]:
    """The sizes of the files that hold contents."""
    directory = api.state_file.with_name("objects")
    return sorted(entry.stat().st_size for entry in directory.iterdir()) if directory.is_dir() else []


def upload(s3: Any, key: str, parts: list[bytes]) -> tuple[str, list[dict[str, Any]]]:
    made = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    return made, [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(Bucket=BUCKET, Key=key, UploadId=made, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in enumerate(parts, 1)
    ]


def complete(s3: Any, key: str, made: str, parts: list[dict[str, Any]]) -> Any:
    return s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=made, MultipartUpload={"Parts": parts})


def test_the_state_has_the_names_alone(running_api: RunningApi, s3: Any) -> None:
    before = running_api.state_file.stat().st_size
    content = os.urandom(3 * MIB)
    s3.put_object(Bucket=BUCKET, Key="a", Body=content)
    assert running_api.state_file.stat().st_size < before + 4000
    assert files(running_api) == [3 * MIB]
    directory = running_api.state_file.with_name("objects")
    assert directory.stat().st_mode & 0o777 == 0o700
    (entry,) = directory.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    written = entry.stat().st_mtime_ns
    running_api.client("ec2").create_vpc(CidrBlock="10.1.0.0/16")
    s3.put_object(Bucket=BUCKET, Key="b", Body=b"")
    assert (entry.stat().st_mtime_ns, files(running_api)) == (written, [3 * MIB])
    assert s3.get_object(Bucket=BUCKET, Key="a")["Body"].read() == content
    assert s3.get_object(Bucket=BUCKET, Key="b")["Body"].read() == b""


def test_contents_and_parts_are_there_again(running_api: RunningApi, s3: Any) -> None:
    first, second, content = os.urandom(5 * MIB), os.urandom(MIB), os.urandom(2 * MIB)
    s3.put_object(Bucket=BUCKET, Key="whole", Body=content)
    made, parts = upload(s3, "parts", [first, second])
    # What a daemon that was killed in the middle of an upload leaves.
    running_api.state_file.with_name("objects").joinpath("0" * 32).write_bytes(b"half")
    forget_everything()
    assert running_api.api.load()
    assert files(running_api) == [MIB, 2 * MIB, 5 * MIB]
    assert s3.get_object(Bucket=BUCKET, Key="whole")["Body"].read() == content
    assert [part["Size"] for part in s3.list_parts(Bucket=BUCKET, Key="parts", UploadId=made)["Parts"]] == [
        5 * MIB,
        MIB,
    ]
    complete(s3, "parts", made, parts)
    forget_everything()
    assert running_api.api.load()
    assert s3.get_object(Bucket=BUCKET, Key="parts")["Body"].read() == first + second
    assert refused(s3.create_bucket, Bucket="Upper") == "InvalidBucketName"
    assert s3.create_bucket(Bucket=BUCKET)["Location"] == f"/{BUCKET}"  # the same one, as in us-east-1
    assert len(s3.list_objects_v2(Bucket=BUCKET)["Contents"]) == 2


def test_a_content_goes_when_nothing_has_it(running_api: RunningApi, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"one")
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"second")
    assert files(running_api) == [6]
    s3.copy_object(Bucket=BUCKET, Key="b", CopySource={"Bucket": BUCKET, "Key": "a"})
    assert files(running_api) == [6]  # one file, of both
    s3.delete_object(Bucket=BUCKET, Key="a")
    assert s3.get_object(Bucket=BUCKET, Key="b")["Body"].read() == b"second"
    s3.delete_object(Bucket=BUCKET, Key="b")
    assert files(running_api) == []
    made, _parts = upload(s3, "c", [b"part"])
    assert files(running_api) == [4]
    s3.abort_multipart_upload(Bucket=BUCKET, Key="c", UploadId=made)
    assert files(running_api) == []
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=BUCKET, Key="d", Body=b"first")["VersionId"]
    s3.put_object(Bucket=BUCKET, Key="d", Body=b"second")
    s3.delete_object(Bucket=BUCKET, Key="d")
    assert files(running_api) == [5, 6]
    forget_everything()
    assert running_api.api.load()
    assert len(s3.list_object_versions(Bucket=BUCKET)["Versions"]) == 2
    assert s3.get_object(Bucket=BUCKET, Key="d", VersionId=first)["Body"].read() == b"first"
    s3.delete_object(Bucket=BUCKET, Key="d", VersionId=first)
    assert files(running_api) == [6]


def test_a_call_that_fails_leaves_no_file_and_the_content_as_it_was(
    running_api: RunningApi, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"before")

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(running_api.api._store, "save", full)
        with pytest.raises(ClientError, match="No space left on device"):
            s3.put_object(Bucket=BUCKET, Key="a", Body=b"another")
    with monkeypatch.context() as patched:
        patched.setattr("ec2lab.api.objects.Incoming.write", full)
        with pytest.raises(ClientError, match="No space left on device"):
            s3.put_object(Bucket=BUCKET, Key="a", Body=b"another")
    assert files(running_api) == [6]
    assert s3.get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"before"


def test_a_client_that_goes_away_leaves_nothing(running_api: RunningApi, s3: Any) -> None:
    headers = signed(running_api, "PUT", "/backups/a", b"x" * 1000)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", urlsplit(running_api.url).port or 0), timeout=20) as connection:
        connection.sendall(f"PUT /backups/a HTTP/1.1\r\nHost: {urlsplit(running_api.url).netloc}\r\n".encode())
        connection.sendall(f"{lines}Content-Length: 1000\r\n\r\nxxx".encode())
        connection.shutdown(socket.SHUT_WR)
        assert b"IncompleteBody" in connection.makefile("rb").read()
    assert files(running_api) == []
    assert refused(s3.head_object, Bucket=BUCKET, Key="a") == "404"


def test_ranges(s3: Any) -> None:
    content = os.urandom(5 * MIB + 100)
    made, parts = upload(s3, "a", [content[: 5 * MIB], content[5 * MIB :]])
    complete(s3, "a", made, parts)
    first, last = 5 * MIB - 10, 5 * MIB + 10  # over the end of a part
    for span, wanted in (
        (f"bytes={first}-{last}", content[first : last + 1]),
        ("bytes=-7", content[-7:]),
        (f"bytes={5 * MIB}-", content[5 * MIB :]),
    ):
        answer = s3.get_object(Bucket=BUCKET, Key="a", Range=span)
        assert (answer["Body"].read(), answer["ResponseMetadata"]["HTTPStatusCode"]) == (wanted, 206)
    assert refused(s3.get_object, Bucket=BUCKET, Key="a", Range=f"bytes={len(content)}-") == "InvalidRange"
    copied = s3.create_multipart_upload(Bucket=BUCKET, Key="b")["UploadId"]
    part = s3.upload_part_copy(
        Bucket=BUCKET,
        Key="b",
        UploadId=copied,
        PartNumber=1,
        CopySource={"Bucket": BUCKET, "Key": "a"},
        CopySourceRange=f"bytes={first}-{last}",
    )["CopyPartResult"]
    complete(s3, "b", copied, [{"PartNumber": 1, "ETag": part["ETag"]}])
    assert s3.get_object(Bucket=BUCKET, Key="b")["Body"].read() == content[first : last + 1]


def test_rules_for_parts(s3: Any) -> None:
    made, parts = upload(s3, "a", [b"x" * (5 * MIB - 1), b"y"])
    with pytest.raises(ClientError, match="EntityTooSmall"):
        complete(s3, "a", made, parts)
    for wrong, code in (
        ([parts[1], parts[0]], "InvalidPartOrder"),
        ([{**parts[0], "ETag": "0" * 32}], "InvalidPart"),
        ([{**parts[0], "PartNumber": 3}], "InvalidPart"),
    ):
        with pytest.raises(ClientError, match=code):
            complete(s3, "a", made, wrong)
    complete(s3, "a", made, parts[1:])  # one part, which is the last
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.upload_part(Bucket=BUCKET, Key="a", UploadId="nothing", PartNumber=1, Body=b"x")
    with pytest.raises(ClientError, match="NoSuchUpload"):
        complete(s3, "b", "nothing", parts)
    another = s3.create_multipart_upload(Bucket=BUCKET, Key="c")["UploadId"]
    assert refused(s3.upload_part, Bucket=BUCKET, Key="c", UploadId=another, PartNumber=10001, Body=b"x") == (
        "InvalidArgument"
    )


def test_five_gibibytes_are_too_many_for_one_upload(running_api: RunningApi, s3: Any) -> None:
    """Said before the content is sent."""
    del s3
    for size, status in ((5 << 30) + 1, 400), (5 << 30, 403):
        connection = http.client.HTTPConnection(urlsplit(running_api.url).netloc, timeout=20)
        connection.putrequest("PUT", "/backups/a")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        if status == 400:
            answer = connection.getresponse()
            assert (answer.status, b"<Code>EntityTooLarge</Code>" in answer.read()) == (400, True)
        connection.close()
    assert ask(running_api, "PUT", "/backups/a", {"Transfer-Encoding": "chunked"}, b"0\r\n\r\n")[0] == 411


def test_a_content_that_is_not_what_its_checksums_say(running_api: RunningApi, s3: Any) -> None:
    assert (
        refused(s3.put_object, Bucket=BUCKET, Key="a", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==") == "BadDigest"
    )
    assert refused(s3.put_object, Bucket=BUCKET, Key="a", Body=b"x", ChecksumCRC32="AAAAAA==") == "BadDigest"
    assert refused(s3.put_object, Bucket=BUCKET, Key="a", Body=b"x", ChecksumSHA256="AAAAAA==") == "BadDigest"
    assert files(running_api) == []
    kept = s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", ChecksumAlgorithm="SHA256")["ChecksumSHA256"]
    assert s3.head_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")["ChecksumSHA256"] == kept
    made, parts = upload(s3, "b", [b"x" * 5 * MIB, b"y"])
    assert complete(s3, "b", made, parts)["ETag"].endswith('-2"')


def send_chunks(api: RunningApi, payload: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """As SDKs do over TLS, with a checksum behind the content, or with each chunk signed."""
    extra = {"X-Amz-Decoded-Content-Length": "6", "Content-Encoding": "aws-chunked", **headers}
    given = signed(api, "PUT", "/backups/a", payload=payload, **extra)
    return ask(api, "PUT", "/backups/a", {**given, "Content-Length": str(len(body))}, body)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"3\r\nabc\r\n3\r\ndef\r\n0\r\nx-amz-checksum-crc32:S4457w==\r\n\r\n", 200),
        (b"3\r\nabc\r\n3\r\ndeg\r\n0\r\nx-amz-checksum-crc32:S4457w==\r\n\r\n", 400),
        (b"3\r\nabc\r\n0\r\n\r\n", 400),
        (b"9\r\nabc", 400),
    ],
)
def test_a_body_in_chunks_with_its_checksum_behind(running_api: RunningApi, s3: Any, body: bytes, status: int) -> None:
    found = send_chunks(
        running_api, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", body, **{"X-Amz-Trailer": "x-amz-checksum-crc32"}
    )
    assert found[0] == status, found
    if status == 200:
        answer = s3.get_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")
        assert (answer["Body"].read(), answer["ChecksumCRC32"]) == (b"abcdef", "S4457w==")
        assert "aws-chunked" not in answer.get("ContentEncoding", "")
    else:
        assert files(running_api) == []


def test_chunks_that_are_signed_must_be_signed_right(running_api: RunningApi, s3: Any) -> None:
    del s3
    body = f"6;chunk-signature={'0' * 64}\r\nabcdef\r\n0;chunk-signature={'0' * 64}\r\n\r\n".encode()
    status, said = send_chunks(running_api, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", body)
    assert (status, b"SignatureDoesNotMatch" in said, files(running_api)) == (403, True, [])


def test_chunks_signed_as_in_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's own example: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html"""
    import io
    from datetime import UTC, datetime

    from ec2lab.api import signatures
    from ec2lab.api.s3 import contents, requests

    moment = datetime(2013, 5, 24, tzinfo=UTC)
    monkeypatch.setattr(signatures, "now", lambda: moment)
    headers = {
        "host": "s3.amazonaws.com",
        "x-amz-date": "20130524T000000Z",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "66560",
        "content-length": "66824",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;"
        "x-amz-decoded-content-length;x-amz-storage-class,"
        "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    }
    path, secret = "/examplebucket/chunkObject.txt", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    request = signatures.Request("PUT", path, (), headers, path)
    claim = signatures.claim(request)
    assert claim is not None
    signatures.check(claim, secret, request)
    asked = requests.Asked(request, "examplebucket", "chunkObject.txt", False, "", None, claim, secret)
    body = (
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
        + b"a" * 65536
        + b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
        + b"a" * 1024
        + b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
    )
    source = contents.Source({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    assert b"".join(contents._chunks(source, asked, {})) == b"a" * 66560


def test_a_content_in_pieces(tmp_path: Path) -> None:
    directory = use(tmp_path / "objects")
    first, second = directory.put(b"abcdef"), directory.put(b"ghi")
    both = joined([first, Body([]), second])
    assert (len(both), b"".join(both), b"".join(both[4:8]), len(both[3:3])) == (9, b"abcdefghi", b"efgh", 0)
    assert b"".join(both[4:8][1:3]) == b"fg"
    reading = iter(both)
    directory.sweep(set())
    assert b"".join(reading) == b"abcdefghi"  # what is being read is read to its end
    with pytest.raises(FileNotFoundError):
        iter(both)


def test_what_is_being_received_is_not_swept(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "objects")
    with directory.receive() as incoming:
        incoming.write(b"abc")
        directory.sweep(set())
        assert incoming.body().segments == (Segment(incoming.name, 0, 3),)
        assert len(list(directory.path.iterdir())) == 1
    assert list(directory.path.iterdir()) == []


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An API in a process of its own, whose memory can be told from the test's."""
    program = (
        "import os, sys, pathlib\n"
        "from ec2lab.api import patches, seed, server\n"
        "patches.install('198.18.4.0/22')\n"
        "api = server.Api(pathlib.Path(sys.argv[1]), lambda: None)\n"
        "keys = seed.add_user('unit')\n"
        "api.save()\n"
        "http = server.listen(api, '127.0.0.1', 0)\n"
        "print(http.server_port, keys.access_key_id, keys.secret_access_key, flush=True)\n"
        "http.serve_forever()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.wait(timeout=30)


def test_an_upload_of_hundreds_of_mebibytes_takes_little_memory(
    other_process: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, said = other_process
    port, key, secret = said.split()
    from ec2lab.api import seed

    nothing: Any = None
    api = RunningApi(nothing, f"http://127.0.0.1:{port}", "", tmp_path / "state", seed.Credentials(key, secret))
    s3 = api.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    before = peak(process.pid)
    part = os.urandom(50 * MIB)
    made, parts = upload(s3, "big", [part] * 6)
    complete(s3, "big", made, parts)
    got = 0
    for piece in s3.get_object(Bucket=BUCKET, Key="big")["Body"].iter_chunks(MIB):
        got += len(piece)
    assert got == 300 * MIB
    grown = peak(process.pid) - before
    print(f"the API's memory grew by {grown // 1024} KiB at most, for {got // MIB} MiB up and down again")
    assert grown < 40 * MIB


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
