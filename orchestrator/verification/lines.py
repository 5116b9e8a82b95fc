"""Files of lines, each of which carries its own checksum: journals, notes of who read a test split, plans of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.store.events import parse_event
from orchestrator.store.integrity import is_sound, unseal, write_whole
from orchestrator.verification.findings import Finding, Remedy, put_aside

IsSound = Callable[[bytes], bool]


def is_whole_event(line: bytes) -> bool:
    """Whether a line is an event as a journal was given it."""
    try:
        parse_event(unseal(line))
    except ValueError:
        return False
    return True


def is_whole_line(line: bytes) -> bool:
    """Whether a line is as it was sealed."""
    return is_sound(line + b"\n")


def damaged_lines(file: Path, is_sound: IsSound, remedy: Remedy) -> Iterator[Finding]:
    """The damaged lines of a file, a finding each."""
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        # an empty one is what a writer leaves that goes on behind the half line of another
        if line and not is_sound(line):
            yield Finding(file, f"line {number} is not what was written", remedy)


def drop_damaged_lines(file: Path, is_sound: IsSound) -> None:
    """Leave the sound lines of a file; as it was, it is put aside."""
    sound = []
    for line in file.read_bytes().split(b"\n"):
        if line and is_sound(line):
            sound.append(line + b"\n")
    put_aside(file)
    write_whole(file, b"".join(sound))
