"""``wafermon run``: a command as a span of a job, for programs that know nothing of wafermon."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import click

from wafermon.cli.address import Address
from wafermon.cli.parameters import LEVELS, service_option, sidecar_options
from wafermon.monitoring_sdk import MonitoringSDK

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
NOT_EXECUTABLE, NOT_FOUND, BY_SIGNAL = 126, 127, 128
"""The exit statuses of shells; the number of the signal is added to the last."""
OWN_SERVICE = "wafermon"
"""The sidecar's own, which no command may speak for."""
_CHUNK = 1 << 16
_BLOCK = 512
"""Bytes that the kernel counts as one of input or output."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--job", required=True, help="The job's id, which is also the trace of all that the command sends.")
@service_option("Who is speaking; by default the command's own name.")
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True, help="Of the lines of stderr.")
@sidecar_options
@click.argument("arguments", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    job: str, service: str | None, level: str, url: Address, token: str | None, arguments: tuple[str, ...]
) -> None:
    """Run COMMAND as a span of a job.

    What it writes to standard error passes through and is logged, one event per line. Trace and span are exported, so
    that what it sends itself falls under its span. Its exit status becomes the job's `done` or `failed`, and is the
    exit status here; 128 + N where signal N ended it, 127 where there is no such command. Signals are passed on.
    What it leaves running in the background goes on; what that writes to standard error is thrown away.

    \b
    Example:
      wafermon run --job job-4711 --service nightly -- ./import.sh --all
    """
    _open_standard_streams()
    name = Path(arguments[0]).name
    try:
        sdk = MonitoringSDK(service or service_of(name), url=str(url), trace_id=job, token=token)
        sdk.log_progress(job, 0)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    status = _as_span(sdk, name, level, arguments)
    sdk.log_progress(job, 0 if status else 100, "failed" if status else "done")
    sdk.close()
    if lost := sdk.get_stats()["dropped"]:
        click.echo(f"wafermon: {lost} messages about the command were lost: no sidecar, and no spill file", err=True)
    raise click.exceptions.Exit(status)


def _as_span(sdk: MonitoringSDK, name: str, level: str, arguments: Sequence[str]) -> int:
    """Run it, tell everything about it but the job's end, and answer with the exit status."""
    span = sdk.start_span(name, tags={"command": " ".join(arguments)})
    began = time.monotonic()
    try:
        status = _run(sdk, level, arguments, sdk.child_env())
        what = f"exit status {status}" if status >= 0 else f"killed by {signal_name(-status)}"
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        what = f"{arguments[0]}: {error.strerror}"
        click.echo(f"wafermon: {what}", err=True)
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu = 100 * (used.ru_utime + used.ru_stime) / max(seconds, 1e-6)
    sdk.log_resource(cpu=round(cpu, 3), mem=memory, disk=_BLOCK * (used.ru_inblock + used.ru_oublock))
    status = BY_SIGNAL - status if status < 0 else status
    context = {"command": " ".join(arguments), "status": status, "seconds": round(seconds, 6)}
    sdk.log_event("error" if status else "info", what, context)
    sdk.end_span(span, "error" if status else "ok", {"status": status})
    return status


def _run(sdk: MonitoringSDK, level: str, arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Until the command ends; what it leaves running is not waited for. Raises OSError where it can't start."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGQUIT) and _typed():
            return  # the terminal has sent it to the command too
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    lines = _Lines(sdk, level)
    with _woken_by_signals(forward) as woken:
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, env=environ)
        for number in early:
            process.send_signal(number)
        assert process.stderr is not None
        pipe = process.stderr.fileno()
        os.set_blocking(pipe, False)
        poll = select.poll()
        poll.register(woken, select.POLLIN)
        poll.register(pipe, select.POLLIN)
        open_pipe = True
        while process.poll() is None:
            ready = dict(poll.poll())
            with suppress(BlockingIOError):
                os.read(woken, _CHUNK)
            if pipe in ready and not (open_pipe := lines.read(pipe)):
                poll.unregister(pipe)
        pending = _readable_bytes(pipe)  # and not more: what goes on in the background may write for ever
        while open_pipe and pending > 0:
            before = lines.taken
            open_pipe = lines.read(pipe)
            pending -= lines.taken - before
        lines.end()
        if open_pipe and lines.read(pipe):
            lines.end()
            _read_on(process.stderr)
        process.stderr.close()
        return process.returncode


def service_of(name: str) -> str:
    """A command's name as the name of a service: what that may not hold becomes ``_``."""
    service = re.sub(r"[^A-Za-z0-9._:-]", "_", name)[:128] or "_"
    return f"{service}_" if service == OWN_SERVICE else service


def signal_name(number: int) -> str:
    """``SIGTERM``, ``SIGRTMIN+3``."""
    first, last = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
    if first < number < last:
        return f"SIGRTMIN+{number - first}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _open_standard_streams() -> None:
    """Where one of them is closed, the next file that is opened would become it, and get what is meant for it."""
    for stream in (0, 1, 2):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _readable_bytes(pipe: int) -> int:
    """How much can be read at once."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


def _read_on(pipe: IO[bytes]) -> None:
    """Somebody still has the other end, and would be ended by its next line if nobody read it: a process of its own does from here on."""
    with suppress(OSError):
        os.set_blocking(pipe.fileno(), True)
        subprocess.Popen(
            ["cat"], stdin=pipe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/"
        )


@contextmanager
def _woken_by_signals(forward: object) -> Iterator[int]:
    """Handle signals by `forward`, those that are ignored excepted; a descriptor that becomes readable by each of them,
    and when a child ends."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    handled = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in handled}  # type: ignore[arg-type]
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _typed() -> bool:
    """Whether we are in the foreground of a terminal, which sends its signals to the whole group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _pass_on(data: bytes) -> None:
    """To our own standard error, which may be a pipe that takes nothing now, or that nobody reads any more."""
    view = memoryview(data)
    with suppress(OSError):
        while view:
            try:
                view = view[os.write(2, view) :]
            except BlockingIOError:
                select.select([], [2], [])


class _Lines:
    """Standard error on its way through: passed on at once, and logged line by line."""

    def __init__(self, sdk: MonitoringSDK, level: str) -> None:
        self.taken = 0
        """Bytes that have passed."""
        self._sdk = sdk
        self._level = level
        self._rest = b""

    def read(self, pipe: int) -> bool:
        """Take what is there; False at the end."""
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return True
        self.taken += len(data)
        _pass_on(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._rest) >= _CHUNK:
            self.end()
        return bool(data)

    def end(self) -> None:
        """Log what has no newline."""
        rest, self._rest = self._rest, b""
        self._log(rest)

    def _log(self, line: bytes) -> None:
        if text := line.rstrip(b"\r"):
            self._sdk.log_event(self._level, text.decode(errors="replace"), {"stream": "stderr"})
