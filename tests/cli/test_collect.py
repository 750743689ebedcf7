"""`collect`: from ids to images on disk, and its continuation after an interruption."""

import asyncio
import json
import os
import re
import ssl
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path

import pytest
from support.raw_peer import REQUEST, RawPeer

from kie_cover_async import AuthenticationError, ConnectionSetupError
from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli.callback_server import Address
from kie_cover_async.cli.commands import collect as command
from kie_cover_async.cli.output import DONE, FAILED, INTERRUPTED, UsageError
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.ledger import Api

FAILURE = CoverScript(statuses=["failure"], error_message="no luck")
NEVER = CoverScript(end="never")
BROKEN = Fault.answer(status=503, body="")

pytestmark = pytest.mark.usefixtures("key")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "covers"


@pytest.fixture
def collect(emulator, folder, capsys):
    """Run it in the process of the tests; return its lines, by id if they are JSON, and stderr."""

    async def collect(*ids, code=DONE, **options):
        given = {
            "task_ids": ids,
            "file": None,
            "out": str(folder),
            "rate": float("inf"),
            "timeout": 20.0,
            "base_url": emulator.url,
            "as_json": True,
        }
        assert await command.collect(**given | options) == code
        captured = capsys.readouterr()
        if not options.get("as_json", True):
            return sorted(captured.out.splitlines()), captured.err
        return {
            line["taskId"]: line for line in map(json.loads, captured.out.splitlines())
        }, captured.err

    return collect


def done(emulator, number=1):
    jobs = [emulator.add_job(CoverScript(statuses=["success"])) for _ in range(number)]
    return jobs[0] if number == 1 else jobs


def requested_ids(emulator, endpoint):
    """Return the ids of the requests to this endpoint since the last call."""
    ids = [request.task_id for request in emulator.requests if request.endpoint == endpoint]
    emulator.requests.clear()
    return ids


async def pending(folder):
    async with CoverArchive(folder) as archive:
        return [cover.task_id for cover in await archive.pending()]


@pytest.mark.usefixtures("route")
async def test_images_are_on_disk_as_the_lines_say(collect, emulator, tmp_path, folder):
    """Ids from arguments and from a file are treated alike."""
    ids = done(emulator, 3)
    file = tmp_path / "ids.txt"
    file.write_text(f"{json.dumps({'taskId': ids[1], 'successFlag': 1})}\n{ids[2]}\n")
    lines, messages = await collect(ids[0], ids[0], file=str(file))
    assert sorted(lines) == sorted(ids)
    assert {line["state"] for line in lines.values()} == {"saved"}
    contents = {str(path): path.read_bytes() for path in folder.glob("*.png")}
    for image in [image for line in lines.values() for image in line["files"]]:
        content = contents.pop(image["path"])
        assert image["sha256"] == sha256(content).hexdigest()
        assert image["size"] == len(content)
        assert (image["type"], image["width"], image["height"]) == ("image/png", 64, 64)
    assert contents == {}
    assert messages.startswith("3 covers saved in ")
    assert "s: 6 images, " in messages
    assert messages.count("\n") == 1


async def test_saved_covers_are_counted_and_cost_no_request(collect, emulator):
    """A second run with the same ids does nothing."""
    ids = done(emulator, 2)
    await collect(*ids)
    emulator.requests.clear()
    lines, messages = await collect(*ids)
    assert lines == {}
    assert messages.endswith("; 2 saved before\n")
    assert emulator.requests == []


async def test_given_cover_whose_file_is_missing_is_collected_again(collect, emulator, folder):
    """Only the missing file is fetched. Without ids nothing happens."""
    whole, gone = done(emulator, 2)
    before, _ = await collect(whole, gone)
    [first] = folder.glob(f"{gone}-1.png")
    content = first.read_bytes()
    first.unlink()
    emulator.requests.clear()
    lines, messages = await collect()
    assert (lines, emulator.requests) == ({}, [])
    assert "nothing is pending" in messages
    lines, messages = await collect(whole, gone, gone)
    assert lines == {gone: before[gone]}
    assert messages.startswith("1 cover saved in ")
    assert messages.endswith("; 1 saved before\n")
    assert first.read_bytes() == content
    requests = [request.endpoint for request in emulator.requests]
    assert sorted(requests) == ["image", "record-info"]


async def test_cover_beyond_the_limit_whose_files_are_missing_becomes_pending(
    collect, emulator, folder
):
    """The next run collects it."""
    task_id, other = done(emulator, 2)
    await collect(task_id)
    for path in folder.glob("*.png"):
        path.unlink()
    lines, messages = await collect(other, task_id, limit=1)
    assert [*lines] == [other]
    assert messages.endswith("1 is still pending: run the same command again\n")
    assert await pending(folder) == [task_id]


async def test_pending_covers_come_before_new_ones(collect, emulator, folder):
    """They need not be given again."""
    earlier, new = done(emulator), done(emulator)
    async with CoverArchive(folder) as archive:
        await archive.add([earlier])
    lines, _ = await collect(new, limit=1)
    assert [*lines] == [earlier]
    assert await pending(folder) == [new]
    lines, _ = await collect()
    assert [*lines] == [new]


async def test_limit_bounds_the_polls_and_not_the_archive(collect, emulator, folder):
    """All ids are added to the archive, and the next run continues."""
    ids = done(emulator, 5)
    lines, messages = await collect(*ids, limit=2)
    assert sorted(lines) == sorted(ids[:2])
    assert len(requested_ids(emulator, "record-info")) == 2
    assert messages.endswith("3 are still pending: run the same command again\n")
    lines, messages = await collect(*ids, limit=2)
    assert sorted(lines) == sorted(ids[2:4])
    assert "1 is still pending" in messages
    assert await pending(folder) == ids[4:]


async def test_cover_whose_download_fails_temporarily_stays_pending(collect, emulator, monkeypatch):
    """The next run fetches it without another poll."""
    monkeypatch.setattr("backoff.full_jitter", lambda _: 0.0)
    broken, whole = done(emulator), done(emulator)
    emulator.fault(BROKEN, endpoint="image", task_id=broken, rate=1.0)
    lines, messages = await collect(broken, whole, code=FAILED)
    assert lines[whole]["state"] == "saved"
    assert lines[broken]["state"] == "pending"
    assert (lines[broken]["error"], lines[broken]["httpStatus"]) == ("DownloadError", 503)
    assert "; 1 not done\n1 is still pending: run the same command again\n" in messages
    emulator.clear_faults()
    emulator.requests.clear()
    lines, _ = await collect()
    assert [*lines] == [broken]
    assert requested_ids(emulator, "record-info") == []


async def test_limit_applies_to_covers_that_need_no_poll(collect, emulator, folder, monkeypatch):
    """They are known to be done."""
    monkeypatch.setattr("backoff.full_jitter", lambda _: 0.0)
    ids = done(emulator, 3)
    emulator.fault(BROKEN, endpoint="image", rate=1.0)
    await collect(*ids, code=FAILED)
    emulator.clear_faults()
    lines, _ = await collect(limit=2)
    assert sorted(lines) == sorted(ids[:2])
    assert await pending(folder) == ids[2:]


async def test_failed_cover_is_tried_again_only_on_request(collect, emulator):
    """If its id is given, it is a failure each time."""
    failed = emulator.add_job(FAILURE)
    lines, messages = await collect(failed, code=FAILED)
    assert (lines[failed]["state"], lines[failed]["error"]) == ("failed", "CoverFailedError")
    assert messages.endswith("; 1 failed\n1 failed: run it with --retry-failed to try again\n")
    emulator.requests.clear()
    lines, messages = await collect(failed, code=FAILED)
    assert (lines[failed]["state"], lines[failed]["error"]) == ("failed", "CoverFailedError")
    assert "no luck" in lines[failed]["message"]
    assert "; 1 failed before\n" in messages
    _, messages = await collect()
    assert messages.startswith("nothing is pending in ")
    assert emulator.requests == []
    lines, _ = await collect(retry_failed=True, code=FAILED)
    assert [*lines] == requested_ids(emulator, "record-info") == [failed]


@pytest.mark.parametrize("status", [404, 410])
async def test_missing_image_is_a_failure(collect, emulator, status):
    """Its host does not have it under a fresh link either."""
    gone = done(emulator)
    emulator.fault(Fault.answer(status), endpoint="image", task_id=gone, rate=1.0)
    lines, _ = await collect(gone, code=FAILED)
    assert (lines[gone]["state"], lines[gone]["httpStatus"]) == ("failed", status)


def finished(emulator, *images, **fields):
    """Make a cover whose record has these images."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    record = {"taskId": task_id, "successFlag": 1, "response": {"images": images}, **fields}
    body = {"code": 200, "msg": "success", "data": record}
    emulator.fault(Fault.answer(body=body), endpoint="record-info", task_id=task_id, rate=1.0)
    return task_id


@pytest.fixture
async def untrusted():
    """Return a host with a self-signed certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).parents[1] / "client/another.example.pem")
    async with RawPeer([[REQUEST]], tls=tls) as peer:
        yield peer


OUT_OF_REACH = {
    "fake address": ("https://198.18.0.5/a.png", r"198\.18\.0\.5; .* --allow-image-network"),
    "private address": ("https://10.0.0.1/a.png", r"no public address but 10\.0\.0\.1"),
    "NAT64 of one": ("https://[64:ff9b::a00:1]/a.png", "no public address but 64:ff9b::a00:1"),
    "plain http": ("http://images.example/a.png", "http and not https"),
}


@pytest.mark.parametrize(("url", "messages"), OUT_OF_REACH.values(), ids=OUT_OF_REACH)
async def test_cover_whose_images_are_out_of_reach_stays_pending(
    collect, emulator, folder, url, messages
):
    """The address may be the fault of this network, and proves nothing about the cover."""
    task_id = finished(emulator, url)
    lines, _ = await collect(task_id, code=FAILED)
    assert lines[task_id]["state"] == "pending"
    assert re.search(messages, lines[task_id]["message"])
    assert await pending(folder) == [task_id]


async def test_cover_whose_host_is_not_trusted_stays_pending(collect, emulator, folder, untrusted):
    """The certificate may be that of a local proxy, or this machine's clock may be wrong."""
    task_id = finished(emulator, f"{untrusted.url}/a.png")
    lines, _ = await collect(task_id, code=FAILED)
    assert lines[task_id]["state"] == "pending"
    assert "does not trust the host's certificate" in lines[task_id]["message"]
    assert await pending(folder) == [task_id]


@pytest.mark.parametrize("status", [400, 401, 403, 407, 451])
async def test_cover_whose_images_are_refused_stays_pending(collect, emulator, folder, status):
    """The host may serve other clients, or this one later."""
    task_id = done(emulator)
    emulator.fault(Fault.answer(status), endpoint="image", rate=1.0)
    lines, _ = await collect(task_id, code=FAILED)
    assert (lines[task_id]["state"], lines[task_id]["httpStatus"]) == ("pending", status)
    assert await pending(folder) == [task_id]


async def test_refused_images_that_have_expired_are_gone(collect, start):
    """The host answers 403 for deleted images, too."""
    emulator = await start(clock_offset=-15 * 24 * 3600)
    task_id = done(emulator)
    emulator.fault(Fault.answer(403), endpoint="image", rate=1.0)
    lines, _ = await collect(task_id, base_url=emulator.url, code=FAILED)
    assert (lines[task_id]["state"], lines[task_id]["httpStatus"]) == ("failed", 403)


async def test_names_for_loopback_are_one_host(collect, emulator):
    """An emulator at localhost has its images at 127.0.0.1."""
    task_id = done(emulator)
    url = emulator.url.replace("127.0.0.1", "localhost")
    lines, _ = await collect(task_id, base_url=url)
    assert lines[task_id]["state"] == "saved"


async def test_invalid_image_network_is_rejected(collect):
    """The message names the option, before any request."""
    with pytest.raises(UsageError, match="--allow-image-network must be a network such as '198"):
        await collect("an-id", allow_image_network=["198.18.0.0/33"])


async def test_cover_without_a_record_fails_after_the_grace(instant_time, collect, emulator):
    """The API says that it has no record of the id."""
    task_id = emulator.add_job(CoverScript(statuses=["missing"]))
    lines, _ = await collect(task_id, timeout=900.0, code=FAILED)
    assert (lines[task_id]["state"], lines[task_id]["error"]) == ("failed", "TaskNotFoundError")
    assert instant_time.elapsed >= 90


async def test_wrong_base_url_fails_no_cover(instant_time, collect, emulator, folder):
    """Its 404 may mean that there is no API, and the message says so."""
    task_id = done(emulator)
    options = {"timeout": 900.0, "code": FAILED, "base_url": f"{emulator.url}/elsewhere"}
    lines, _ = await collect(task_id, **options)
    assert lines[task_id]["state"] == "pending"
    assert "(404: Not Found; is the base URL right?)" in lines[task_id]["message"]
    assert await pending(folder) == [task_id]


@pytest.mark.parametrize("status", [400, 404, 410, 422])
async def test_refusal_without_an_envelope_fails_no_cover(collect, emulator, folder, status):
    """It may not come from the API."""
    task_id = done(emulator)
    emulator.fault(Fault.answer(status, b"<html>"), endpoint="record-info", rate=1.0)
    lines, _ = await collect(task_id, code=FAILED)
    assert lines[task_id]["state"] == "pending"
    assert ("is the base URL right?" in lines[task_id]["message"]) == (status == 404)
    assert await pending(folder) == [task_id]


async def test_base_url_may_end_in_the_path_of_the_api(collect, emulator):
    """Many pages print it like this."""
    task_id = done(emulator)
    lines, _ = await collect(task_id, base_url=f"{emulator.url}/api/v1/")
    assert lines[task_id]["state"] == "saved"


async def test_cover_that_times_out_stays_pending(collect, emulator, folder):
    """Its line says so."""
    never = emulator.add_job(NEVER)
    lines, messages = await collect(never, timeout=0.3, code=FAILED)
    assert (lines[never]["state"], lines[never]["error"]) == ("pending", "CoverTimeoutError")
    assert "1 not done" in messages
    assert await pending(folder) == [never]


async def test_invalid_id_is_rejected_and_not_archived(collect, emulator, folder):
    """It has a line, and the other ids are collected."""
    task_id = done(emulator)
    lines, messages = await collect("no id", task_id, code=FAILED)
    assert (lines["no id"]["state"], lines["no id"]["error"]) == (None, "InvalidTaskIdError")
    assert lines[task_id]["state"] == "saved"
    assert "; 1 rejected" in messages
    assert await pending(folder) == []


async def test_wrong_key_ends_the_run_and_fails_no_cover(collect, emulator, folder, capsys):
    """Every cover would end in the same way."""
    emulator.fault(Fault.answer(body={"code": 401, "msg": "no"}), rate=1.0)
    ids = done(emulator, 40)
    with pytest.raises(AuthenticationError):
        await collect(*ids)
    assert capsys.readouterr().err == "40 are still pending: run the same command again\n"
    assert await pending(folder) == ids


async def test_connection_that_cannot_be_set_up_ends_the_run(collect, emulator, folder, capsys):
    """All covers stay pending."""
    ids = done(emulator, 40)
    with pytest.raises(ConnectionSetupError, match="does not answer in TLS"):
        await collect(*ids, base_url=emulator.url.replace("http", "https"))
    assert capsys.readouterr().err == "40 are still pending: run the same command again\n"
    assert await pending(folder) == ids


async def test_disk_error_ends_the_run(run, emulator, folder):
    """The line says what failed, and all covers stay pending."""
    ids = done(emulator, 2)
    for task_id in ids:
        (folder / f"{task_id}-1.png").mkdir(parents=True)
    ended = await run("collect", *ids, "--out", str(folder), "--base-url", emulator.url)
    assert (ended.code, ended.out) == (FAILED, "")
    messages, refused = ended.err.splitlines()
    assert messages == "2 are still pending: run the same command again"
    assert refused.startswith("kie-cover: [Errno 21] Is a directory: ")
    assert await pending(folder) == ids


@pytest.mark.parametrize("has_ids", [True, False])
async def test_file_instead_of_a_folder_is_rejected(collect, tmp_path, has_ids):
    """No request is sent."""
    file = tmp_path / "file"
    file.touch()
    ids = ("an-id",) if has_ids else ()
    refusal = (
        "--out .*: .*Not a directory" if has_ids else "no ids, and no folder .*file to continue"
    )
    with pytest.raises(UsageError, match=refusal):
        await collect(*ids, out=str(file))


async def test_empty_folder_name_is_rejected(collect):
    """It may be an unset shell variable."""
    with pytest.raises(UsageError, match="--out must name a folder, not ''"):
        await collect("an-id", out="")


@pytest.mark.parametrize("ids", [(), ("an-id",)])
async def test_empty_file_name_is_rejected(collect, emulator, folder, ids):
    """It is not ignored: the user wanted to give ids."""
    folder.mkdir()
    with pytest.raises(UsageError, match="--file must name a file, not ''"):
        await collect(*ids, file="")
    assert not emulator.requests


async def test_unreadable_ids_end_the_run(collect, tmp_path):
    """The message says why."""
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        await collect(file=str(tmp_path))


@pytest.mark.parametrize("content", ["", " \n\n"])
async def test_file_without_ids_is_rejected_if_nothing_is_pending(
    collect, emulator, tmp_path, content
):
    """There is nothing to do."""
    file = tmp_path / "ids.txt"
    file.write_text(content)
    with pytest.raises(UsageError, match=f"^no ids found in {file}, and nothing is pending$"):
        await collect(file=str(file))
    assert not emulator.requests


async def test_file_without_ids_is_named_if_covers_are_pending(collect, emulator, folder, tmp_path):
    """They are collected."""
    task_id = done(emulator)
    async with CoverArchive(folder) as archive:
        await archive.add([task_id])
    file = tmp_path / "ids.txt"
    file.touch()
    lines, messages = await collect(file=str(file))
    assert lines[task_id]["state"] == "saved"
    assert messages.startswith(f"kie-cover: no ids found in {file}\n1 cover saved in ")


async def test_json_without_an_id_is_rejected_and_not_archived(collect, emulator, folder, tmp_path):
    """The error quotes it."""
    file = tmp_path / "ids.txt"
    file.write_text('["an-id"]\n')
    lines, _ = await collect(file=str(file), code=FAILED)
    assert "not JSON without a string taskId" in lines['["an-id"]']["message"]
    assert await pending(folder) == []


async def test_text_has_the_id_the_end_and_the_files_or_the_error(collect, emulator, folder):
    """It is written unless JSON is asked for."""
    task_id = emulator.add_job(CoverScript(statuses=["success"]), task_id="a")
    failed = emulator.add_job(FAILURE, task_id="b")
    lines, _ = await collect(task_id, failed, "\tid", as_json=False, code=FAILED)
    assert lines[0].startswith("\\tid  rejected  InvalidTaskIdError: task_id must be")
    assert lines[1] == f"a  saved  {folder / 'a-1.png'} {folder / 'a-2.png'}"
    assert lines[2].startswith("b  failed  CoverFailedError: the cover failed")
    lines, _ = await collect(failed, as_json=False, code=FAILED)
    assert lines[0].startswith("b  failed before  CoverFailedError: the cover failed")


async def test_callback_ends_a_wait_before_its_next_poll_is_due(started, start, tmp_path, folder):
    """With --listen there is one more poll after the first."""
    emulator = await start(callback_key="a-callback-key")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments = ("collect", "--file", str(pipe), "--out", str(folder), "--listen", "127.0.0.1:0/in")
    keys = {"KIE_CALLBACK_KEY": "a-callback-key", "KIE_BASE_URL": emulator.url}
    async with started(*arguments, **keys) as command:
        message = await command.message()
        url = message.removeprefix("Callbacks are received at ").removesuffix(".\n")
        ids = [emulator.add_job(CoverScript(seconds=1), callback_url=url) for _ in range(3)]
        await asyncio.to_thread(pipe.write_text, "\n".join(ids))
        ended = await asyncio.wait_for(command.end(), 20)
    assert ended.code == DONE
    assert {line["taskId"] for line in ended.documents} == set(ids)
    assert [emulator.poll_count(task_id) for task_id in ids] == [2, 2, 2]
    assert "Anyone can" not in ended.err


async def test_unsigned_callbacks_are_announced(collect, emulator, monkeypatch):
    """Without a key anyone can send them."""
    monkeypatch.delenv("KIE_CALLBACK_KEY", raising=False)
    _, messages = await collect(done(emulator), listen="127.0.0.1:0")
    assert "Anyone can send them: KIE_CALLBACK_KEY has no key.\n" in messages


FEW_FILES = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 100))"


async def test_low_limit_of_open_files_bounds_the_requests(run, start, folder, tmp_path):
    """One line says so, and all covers are saved."""
    emulator = await start(latency=0.2, image_size=8, keep_requests=False)
    # More waits than the limit allows, so that no descriptor would be left for downloads.
    script = CoverScript(statuses=["success"], images=1)
    ids = [emulator.add_job(script) for _ in range(90)]
    (tmp_path / "ids").write_text("\n".join(ids))
    arguments = ("collect", "--file", str(tmp_path / "ids"), "--out", str(folder))
    ended = await run(*arguments, "--rate", "inf", before=FEW_FILES, KIE_BASE_URL=emulator.url)
    assert ended.code == DONE
    assert [line["state"] for line in ended.documents] == ["saved"] * 90
    warned, summary = ended.err.splitlines()
    assert warned.startswith("requests at the same time: 34 instead of 120")
    assert "ulimit -n" in warned
    assert summary.startswith("90 covers saved")


NO_PLACES = ["8080", ":8080", "host", "a b:1", "h:65536", "h:1/{x}", "h:1?"]
ODD_PLACES = ["..:0", f"{'a' * 70}.com:0", "\udce9:0/a", f"h:{'1' * 5000}", "h:\u0661", "h?:1"]


@pytest.mark.parametrize("listen", [*NO_PLACES, *ODD_PLACES])
async def test_invalid_address_is_rejected_with_an_example(collect, listen):
    """The message is short, whatever was given."""
    with pytest.raises(
        UsageError, match=r"--listen must be an address such as 127.*, not"
    ) as refused:
        await collect("an-id", listen=listen)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("localhost:80", "localhost", 80, "/kie/callback"),
        ("[::1]:8080/in", "::1", 8080, "/in"),
    ],
)
def test_address_may_lack_a_path_or_be_ipv6(text, host, port, path):
    """An IPv6 address stands in brackets."""
    assert Address.parse("--listen", text) == Address(host, port, path)


async def test_ctrl_c_during_a_download_leaves_no_partial_file(
    started, collect, emulator, folder, eventually
):
    """The same command continues."""
    first, second = done(emulator, 2)
    emulator.fault(Fault.stall(midway=True), endpoint="image", task_id=second, count=2)
    arguments = ("collect", first, second, "--out", str(folder), "--base-url", emulator.url)
    async with started(*arguments, PYTHONASYNCIODEBUG="1") as command:
        assert (await command.document())["taskId"] == first
        await eventually(lambda: [each.endpoint for each in emulator.requests].count("image") == 4)
        command.interrupt()
        ended = await command.end()
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert "1 cover saved" in ended.err
    assert "1 is still pending: run the same command again\n" in ended.err
    assert "Traceback" not in ended.err
    assert [*folder.glob(".*.part")] == []
    lines, _ = await collect(first, second)
    assert [*lines] == [second]


async def test_reader_that_goes_away_ends_the_run(started, emulator, folder, tmp_path):
    """There is no error message, and the rest stays pending."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ids = done(emulator, 2)
    arguments = ("collect", "--file", str(pipe), "--out", str(folder), "--base-url", emulator.url)
    async with started(*arguments) as command:
        with pipe.open("w", buffering=1) as writing:
            writing.write(f"{ids[0]}\n")
            await command.document()
            command.close_stdout()
            writing.write(f"{ids[1]}\nanother\n")
            ended = await command.end()
    assert ended.code == FAILED
    assert "Traceback" not in ended.err
    assert "another" in await pending(folder)


async def test_failure_counts_if_the_reader_goes_away(started, emulator, folder, tmp_path):
    """The exit code is 1 although nothing is pending any more."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    failed = emulator.add_job(FAILURE)
    arguments = ("collect", "--file", str(pipe), "--out", str(folder), "--base-url", emulator.url)
    async with started(*arguments) as command:
        with pipe.open("w", buffering=1) as writing:
            writing.write(f"{failed}\n")
            assert (await command.document())["state"] == "failed"
            command.close_stdout()
            await asyncio.sleep(0)  # until the pipe is closed
            writing.write("no id\n")
            ended = await command.end()
    assert ended.code == FAILED
    assert "pending" not in ended.err


async def test_all_ids_of_a_file_are_archived_before_the_first_poll(
    started, emulator, folder, tmp_path, eventually
):
    """A run that was killed early can continue without ids."""
    ids = [emulator.add_job(NEVER) for _ in range(3)]
    many = tmp_path / "many"
    many.write_text("".join(f"{n}-{'x' * 500}\n" for n in range(2_000)) + "\n".join(ids))
    arguments = ("collect", "--file", str(many), "--out", str(folder), "--base-url", emulator.url)
    async with started(*arguments) as command:
        await eventually(lambda: emulator.requests)
        command.process.kill()
        await command.end()
    assert {*ids} < {*await pending(folder)}


async def test_terminal_shows_counts_below_the_lines(on_terminal, emulator, folder):
    """They are drawn while the run goes on."""
    task_id, never = done(emulator), emulator.add_job(NEVER)
    arguments = ("collect", task_id, never, "--out", str(folder), "--timeout", "5")
    options = {"before": "speed_up(10)", "KIE_BASE_URL": emulator.url}
    async with on_terminal(*arguments, **options) as terminal:
        await terminal.wait_for("1 saved")
        ended = await terminal.end()
    assert ended.code == FAILED
    for messages in ("1 pending", "2 images", "/s", f"{task_id}  ", "1 cover saved in "):
        assert messages in ended.out


async def test_id_that_another_run_added_is_collected(folder):
    """It was added after this run began."""
    results = command.ResultWriter(command.CollectView(), lambda _: None, as_json=True)
    async with CoverArchive(folder) as archive:
        api = Api(route="suno", origin="https://api.kie.ai")
        queue = command.CoverQueue(archive, results, await archive.pending(), 10, api)
        await archive.add(["theirs"])

        async def batches():
            yield ["theirs"]

        async with aclosing(batches()) as given:
            await queue.add(given)
    assert [task_id async for task_id in queue.waiting()] == ["theirs"]
    assert results.view.pending == 1


async def test_ids_of_another_route_are_reported_and_left(collect, emulator, folder):
    """Pending covers, and saved ones without their files, stay as they are for their own route."""
    saved, pending = done(emulator), emulator.add_job(NEVER)
    await collect(saved, route="market")
    for image in folder.glob(f"{saved}*"):
        image.unlink()
    await collect(pending, route="market", timeout=0.1, code=FAILED)
    emulator.requests.clear()
    lines, _ = await collect(saved, pending, route="suno", code=FAILED)
    assert not emulator.requests
    for task_id in (saved, pending):
        line = lines[task_id]
        assert (line["state"], line["error"]) == ("pending", "OtherApiError")
        assert f"the market route of {emulator.url}" in line["message"]
    async with CoverArchive(folder) as archive:
        assert (await archive.find(saved)).state == "saved"
        assert {each.api.route for each in await archive.pending()} == {"market"}
    assert (await collect(saved, route="market", timeout=0.1, code=FAILED))[0][saved]["files"]


async def test_id_given_to_the_wrong_route_can_be_collected_by_the_other(
    instant_time, collect, emulator, folder
):
    """A route that has no record of an id has not issued it."""
    missing = Fault.answer(200, {"code": 422, "msg": "recordInfo is null"})
    emulator.fault(missing, endpoint="poll", rate=1.0)
    task_id = done(emulator)
    lines, _ = await collect(task_id, route="suno", timeout=200.0, code=FAILED)
    assert lines[task_id]["error"] == "TaskNotFoundError"
    emulator.clear_faults()
    assert (await collect(route="market", retry_failed=True))[0][task_id]["files"]
