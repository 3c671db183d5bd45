"""Logs through the port: from the first line, in order, once each."""

from tests.contract.subject import Subject, printing, read_all, reading, serving, until_finished, until_started

LINES = 2000
SLOWLY = f"""
import time
for number in range({LINES}):
    print(f"line {{number:06d}}", flush=True)
    if number % 100 == 99:
        time.sleep(0.05)
"""


def numbers(data: bytes) -> list[int]:
    """Return the numbers of all lines."""
    return [int(line.removeprefix(b"line ")) for line in data.splitlines()]


async def test_a_log_is_complete_in_order_and_once_while_it_grows(subject: Subject) -> None:
    """Followed from before its first line to the end of the container."""
    made = await subject.plain.create(printing(subject.run, SLOWLY))
    await until_started(subject.plain, made)
    reader = await read_all(subject.plain, made)
    assert numbers(reader.data) == list(range(LINES))
    assert reader.gaps == 0


async def test_a_log_is_the_same_after_the_container_ended(subject: Subject) -> None:
    """A kprof that comes late reads the same log."""
    made = await subject.plain.create(printing(subject.run, SLOWLY))
    await until_finished(subject.plain, made)
    reader = await read_all(subject.plain, made)
    assert numbers(reader.data) == list(range(LINES))


async def test_two_readers_get_the_same_log_of_a_server(subject: Subject) -> None:
    """Following a server's start-up and reading it again later give the same bytes, the first line included."""
    made = await subject.vllm.create(serving(subject.run))
    await until_started(subject.vllm, made)
    async with reading(subject.vllm, made) as early:
        await early.until_line(b"Application startup complete.")
        async with reading(subject.vllm, made) as late:
            await late.until_line(b"Application startup complete.")
            same = min(len(early.data), len(late.data))
            assert early.data[:same] == late.data[:same]
    assert early.data.startswith(b"kprof simulator")
    assert all(chunk.data.endswith(b"\n") for chunk in early.chunks)


async def test_a_last_line_without_newline_is_not_lost(subject: Subject) -> None:
    """A process that is cut off in the middle of a line has often just said why."""
    made = await subject.plain.create(printing(subject.run, "print('first')\nprint('no newline here', end='')"))
    await until_finished(subject.plain, made)
    reader = await read_all(subject.plain, made)
    assert reader.data.rstrip(b"\n") == b"first\nno newline here"


async def test_empty_lines_long_lines_and_stray_bytes_survive(subject: Subject) -> None:
    """Log lines are bytes; a line of 40,000 of them is one line."""
    script = (
        "import sys\n"
        "sys.stdout.buffer.write(b'a\\n\\n\\xff\\xfe b\\n' + b'x' * 40000 + b'\\n' + '\u00e9\\n'.encode())\n"
    )
    made = await subject.plain.create(printing(subject.run, script))
    await until_finished(subject.plain, made)
    reader = await read_all(subject.plain, made)
    assert reader.data.splitlines() == [b"a", b"", b"\xff\xfe b", b"x" * 40000, "\u00e9".encode()]


async def test_the_log_of_a_silent_container_is_empty(subject: Subject) -> None:
    """No line is no error, and the reader ends."""
    made = await subject.plain.create(printing(subject.run, "pass"))
    await until_finished(subject.plain, made)
    assert (await read_all(subject.plain, made)).data == b""
