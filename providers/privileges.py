"""What a container must be allowed so that systemd and an engine run in it, and no more."""

from __future__ import annotations

import re

# capabilities(7), by number
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

NOT_FOR_MACHINES = ("SYS_MODULE", "SYS_RAWIO", "SYS_TIME")  # this computer's kernel, devices and clock


def options(status: str, *, cgroup_v2: bool) -> list[str]:
    """What an engine inside needs of this computer.

    Not --privileged: it opens every device, and it fails where this computer lacks a capability itself.
    """
    bounding = int(re.findall(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)[0], 16)
    lacking = [name for number, name in enumerate(CAPABILITIES) if not bounding >> number & 1]
    given = ["--cap-add", "ALL", *(f"--cap-drop={name}" for name in dict.fromkeys([*lacking, *NOT_FOR_MACHINES]))]
    for profile in ("seccomp", "apparmor", "systempaths"):
        given += ["--security-opt", f"{profile}=unconfined"]
    # on cgroup v2 a namespace of its own is writable by systemd as it is
    return given if cgroup_v2 else [*given, "--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
