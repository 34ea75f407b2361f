"""Takes from a process what a model from elsewhere must not use: the network, the user's files, other processes.

The process keeps what it needs to load and run a model: it may read what its user may, compute, and write to the
folders that it was given. Linux alone has the means, from 5.13 on for files and 6.12 on for signals; see `missing`.
Nothing here needs privileges, and nothing of it can be undone by the process or by what it starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 21, 22, 2

# include/uapi/linux/landlock.h; the system calls have these numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_VERSION, _RULE_PATH_BENEATH = 1, 1
_WRITE_FILE = 1 << 1
_CHANGE_FILES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove and make, of every kind
_REFER, _TRUNCATE = (2, 1 << 13), (3, 1 << 14)  # with the version that each came with
_SCOPE_SIGNALS_AND_SOCKETS = (6, 3)

# Numbers of system calls that open a way out. io_uring would open sockets without the call for it.
_REFUSED_CALLS = {
    "x86_64": (0xC000003E, {"socket": 41, "ptrace": 101, "process_vm_writev": 311, "io_uring_setup": 425}),
    "aarch64": (0xC00000B7, {"socket": 198, "ptrace": 117, "process_vm_writev": 271, "io_uring_setup": 425}),
}
_X32 = 0x40000000  # x86-64's second table of system calls, which the kernel may have


def missing() -> list[str]:
    """What this system cannot keep a process from, in words for a message; empty where it can all."""
    found = []
    if not _landlock_version():
        found.append("writing the user's files")
    if platform.machine() not in _REFUSED_CALLS or _libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        found.append("using the network")
    return found


def confine(writable: Iterable[Path]) -> None:
    """Confine this process, and all that it starts, for as long as they live; to call before it has threads.

    Its memory is limited to the machine's, so that a model that claims more fails alone, and it leaves no core file.

    Args:
        writable: the folders that it may change files in. Devices stay writable, such as a GPU's.
    """
    with suppress(ValueError):  # a lower limit is set
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_DATA, (machine, machine))
    if sys.platform != "linux":
        return
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return
    if version := _landlock_version():
        _confine_files(libc, version, writable)
    if platform.machine() in _REFUSED_CALLS:
        _refuse_calls(libc, *_REFUSED_CALLS[platform.machine()])


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _landlock_version() -> int:
    """The version of Landlock that the kernel has switched on, or 0."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _ABI_VERSION)))


def _confine_files(libc: ctypes.CDLL, version: int, writable: Iterable[Path]) -> None:
    rights = _CHANGE_FILES | sum(right for since, right in (_REFER, _TRUNCATE) if version >= since)
    scope = _SCOPE_SIGNALS_AND_SOCKETS[1] if version >= _SCOPE_SIGNALS_AND_SOCKETS[0] else 0
    attributes = struct.pack("QQQ", rights, 0, scope)
    size = 24 if scope else 8  # older kernels know a shorter form
    ruleset = libc.syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    to_devices = _WRITE_FILE | (rights & _TRUNCATE[1])
    for folder, allowed in [*((folder, rights) for folder in writable), (Path("/dev"), to_devices)]:
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed, descriptor)
        if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0):
            raise OSError(ctypes.get_errno(), "landlock_add_rule", str(folder))
        os.close(descriptor)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _refuse_calls(libc: ctypes.CDLL, architecture: int, calls: dict[str, int]) -> None:
    """Have system calls fail with EACCES: a program for the kernel that reads `struct seccomp_data`."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # classic BPF
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EACCES
    count = len(calls)
    instructions = [  # (operation, instructions to skip if so, if not, operand)
        (load, 0, 0, 4),  # the architecture
        (equal, 0, count + 3, architecture),
        (load, 0, 0, 0),  # the number of the call
        (at_least, count + 1, 0, _X32),
        *((equal, count - index, 0, number) for index, number in enumerate(calls.values())),
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
    ]
    packed = b"".join(struct.pack("HBBI", *each) for each in instructions)
    program = _Program(len(instructions), packed)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
