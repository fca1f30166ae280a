"""The user-data a new machine reads at its first boot. Builder only.

https://docs.cloud-init.io/en/latest/reference/modules.html
"""

from __future__ import annotations

import json


def user_data(hostname: str, user: str, authorized_key: str, host_key: str, host_key_public: str) -> str:
    """A cloud-config with our user, our key and the machine's SSH host key.

    It is JSON, which is YAML too and has only one way to quote.
    """
    config = {
        "hostname": hostname,
        "manage_etc_hosts": True,  # or sudo complains that it cannot resolve the host
        "users": [
            {
                "name": user,
                "groups": ["docker"],
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [authorized_key],
            }
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key, "ed25519_public": host_key_public},
    }
    return f"#cloud-config\n{json.dumps(config, indent=1)}\n"
