"""Bad input: a clear error on stderr, an exit code, and nothing changed. All our error texts can be read here.

The machines there are `fake1`, which is ready, and `half`, whose create was stopped.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machinekit import drivers
from machinekit.machine import Machine
from machinekit.store import Store
from tests.conftest import Cli
from tests.providers.fake import FakeCloud

CREATE = "see machinekit create --help"
HELP = "see machinekit --help"
LS = 'see "machinekit ls", or make it with "machinekit create"'
NAME = "1 to 63 letters, digits, dots and dashes, the first a letter or a digit"
DRIVERS = f"installed drivers: {', '.join(sorted([*drivers.names(), 'fake']))}"
DASH = "one that starts with a dash is given as {}=-VALUE"
SHELLS = "bash, zsh, sh, fish, powershell, cmd, tcsh, emacs, json, dotenv, csh, pwsh, ksh, dash, ash"
STATES = "one of Running, Paused, Saved, Stopped, Stopping, Starting, Error, Timeout, Not Found"
PORT = "is not [ADDRESS:]PORT:MACHINE-PORT[/udp], with ports from 1 to 65535"
URL = "is not a URL such as https://host.example/path"
RESERVED = "names that start with com.docker., io.docker., org.dockerproject. are Docker's own"
PLACE = "machines are kept where -s, $MACHINEKIT_HOME or $MACHINE_STORAGE_PATH says: a directory of your own"
FINISH = "run the same machinekit create again"
HUGE = "9" * 5000

# the command line; what is said; what to do about it
USAGE = [
    # --- which command
    ("", "COMMAND is missing", HELP),
    ("-D", "COMMAND is missing", HELP),
    ("creat", "'creat' is not a machinekit command; did you mean create?", HELP),
    ("xyzzy", "'xyzzy' is not a machinekit command", HELP),
    ("''", "'' is not a machinekit command", HELP),
    ("-- ls", "'--' is not a machinekit command", HELP),
    ("-s", "--storage-path needs a value", DASH.format("--storage-path")),
    ("-s /nowhere", "COMMAND is missing", HELP),
    ("--storage-path= --bogus", "COMMAND is missing", HELP),
    # --- which option
    ("ls --quite", "there is no option --quite; did you mean --quiet?", "see machinekit ls --help"),
    ("show --json", "there is no option --json", "see machinekit show --help"),
    ("ls --qui", "there is no option --qui; did you mean --quiet?", "see machinekit ls --help"),
    ("ls --fitler=name=a", "there is no option --fitler; did you mean --filter?", "see machinekit ls --help"),
    ("ls --quiet=yes", "--quiet takes no value", "see machinekit ls --help"),
    ("ls -x", "there is no option -x", "see machinekit ls --help"),
    ("ls -s DIR", "-s goes before the command", "machinekit -s ... ls ..."),
    ("ls --storage-path=DIR", "--storage-path goes before the command", "machinekit --storage-path ... ls ..."),
    ("url fake1 --debug", "--debug goes before the command", "machinekit --debug url ..."),
    ("create -v", "-v goes before the command", "machinekit -v create ..."),
    ("ls --filter", "--filter needs a value", DASH.format("--filter")),
    ("create -d", "--driver needs a value", DASH.format("--driver")),
    ("create --engine-label -x=1", "--engine-label needs a value", DASH.format("--engine-label")),
    ("create --engine-labl=s3cret", "there is no option --engine-labl; did you mean --engine-label?", CREATE),
    # --- how many arguments
    ("url fake1 half", "there is no place for 'half'", "see machinekit url --help"),
    ("ls fake1 half", "there is no place for 'fake1'", "see machinekit ls --help"),
    ("ls -- fake1", "there is no place for 'fake1'", "see machinekit ls --help"),
    ("version fake1 half", "there is no place for 'half'", "see machinekit version --help"),
    ("active fake1", "there is no place for 'fake1'", "see machinekit active --help"),
    ("scp fake1:a", "scp needs a source and a destination", "see machinekit scp --help"),
    ("scp", "[NAME:]PATH is missing", "see machinekit scp --help"),
    ("image", "ls|pull|build|rm is missing", "see machinekit image --help"),
    ("image build", "NAME is missing", "see machinekit image build --help"),
    ("completion", "shell is missing", "see machinekit completion --help"),
    ("env -u fake1", "-u takes no machine", 'eval "$(machinekit env -u)"'),
    # --- choices
    ("env --shell fsh", f"--shell: 'fsh' is none of {SHELLS}; did you mean fish?", "see machinekit env --help"),
    ("env --shell ''", f"--shell: '' is none of {SHELLS}", "see machinekit env --help"),
    ("completion ksh", "'ksh' is none of bash, zsh, fish; did you mean zsh?", "see machinekit completion --help"),
    ("image buidl", "'buidl' is none of ls, pull, build, rm; did you mean build?", "see machinekit image --help"),
    ("ls --filter colour=red", "cannot filter by 'colour=red'", "give driver=NAME, state=STATE or name=REGEX"),
    ("ls --filter running", "cannot filter by 'running'", "give driver=NAME, state=STATE or name=REGEX"),
    ("ls --filter state=runing", "'runing' is not a state; did you mean Running?", STATES),
    ("ls --filter state=", "'' is not a state", STATES),
    ("ls --filter 'name=['", "'[' is not a regular expression: unterminated character set at position 0", ""),
    ("ls -t soon", "--timeout: 'soon' is not a number of seconds, more than 0 and at most a day's", ""),
    ("ls -t 0", "--timeout: '0' is not a number of seconds, more than 0 and at most a day's", ""),
    ("ls -t nan", "--timeout: 'nan' is not a number of seconds, more than 0 and at most a day's", ""),
    ("ls -t 1e9", "--timeout: '1e9' is not a number of seconds, more than 0 and at most a day's", ""),
    (
        "image build debian-99",
        'no image "debian-99" can be built',
        "can be built: debian-11, debian-12, debian-13 (and +engine)",
    ),
    ("image build ../x", "'../x' is not a name for an image", "such as debian-12"),
    ("image rm ../x", "'../x' is not a name for an image", "such as debian-12"),
    ("image build -d none debian-12", "driver none boots no images of ours", ""),
    # --- the machine's name
    *(
        (["create", "-d", "fake", name], f"{name!r} is not a name for a machine", NAME)
        for name in ("", "a_b", "a b", "a/b", "../a", "..", ".a", "a" * 64, "ä", "a\n", "$(id)", "a\udcff")
    ),
    ("create -d fake -- -a", "'-a' is not a name for a machine", NAME),
    ("create -d fake ok a_b", "'a_b' is not a name for a machine", NAME),
    # --- the driver
    ("create -d kemu a", 'driver "kemu" not found; did you mean qemu?', DRIVERS),
    ("create -d '' a", 'driver "" not found', DRIVERS),
    ("create -d ../x a", 'driver "../x" not found', DRIVERS),
    ("image build -d kemu debian-12", 'driver "kemu" not found; did you mean qemu?', DRIVERS),
    ("create -d container --qemu-memory 1G a", "--qemu-memory is an option of driver qemu", CREATE),
    ("create --generic-ssh-user x a", "--generic-ssh-user is an option of driver generic", CREATE),
    (
        "create -d aws --amazonec2-access-key s3cret a",
        "--amazonec2-access-key would be seen in process lists: set $AWS_ACCESS_KEY_ID",
        CREATE,
    ),
    (
        "create -d openstack --openstack-password=s3cret a",
        "--openstack-password would be seen in process lists: set $OS_PASSWORD",
        CREATE,
    ),
    (
        "create -d aws --aws-peers 10.0.0.0/33 a",
        "--aws-peers: '10.0.0.0/33' is no address and no network such as 203.0.113.0/24",
        "",
    ),
    (
        "create -d openstack --openstack-peers lan a",
        "--openstack-peers: 'lan' is no address and no network such as 203.0.113.0/24",
        "",
    ),
    (
        "create -d aws --aws-security-group mine --aws-peers 10.0.0.0/8 a",
        "driver aws: --aws-peers goes with the group that machinekit makes, not with --aws-security-group",
        "",
    ),
    (
        "create -d openstack --openstack-security-group mine --openstack-peers 10.0.0.0/8 a",
        "driver openstack: --openstack-peers goes with the group that machinekit makes, not with "
        "--openstack-security-group",
        "",
    ),
    ("create --qemu-memroy 1G a", "there is no option --qemu-memroy; did you mean --qemu-memory?", CREATE),
    ("create -d generic a", "--generic-ip-address is required", ""),
    # --- a driver's options: numbers, switches, choices, sizes, ports, paths
    ("create -d fake --fake-size x a", "--fake-size: 'x' is not a whole number from 1 to 64", ""),
    ("create -d fake --fake-size '' a", "--fake-size: '' is not a whole number from 1 to 64", ""),
    ("create -d fake --fake-size 0 a", "--fake-size: '0' is not a whole number from 1 to 64", ""),
    ("create -d fake --fake-size=-1 a", "--fake-size: '-1' is not a whole number from 1 to 64", ""),
    ("create -d fake --fake-size 65 a", "--fake-size: '65' is not a whole number from 1 to 64", ""),
    ("create -d fake --fake-size 1.5 a", "--fake-size: '1.5' is not a whole number from 1 to 64", ""),
    ("create -d fake --fake-size 0x10 a", "--fake-size: '0x10' is not a whole number from 1 to 64", ""),
    (f"create -d fake --fake-size {HUGE} a", f"--fake-size: '{HUGE}' is not a whole number from 1 to 64", ""),
    ("create -d fake --fake-token '' a", "--fake-token does not have the right form: API token", ""),
    ("create -d fake --fake-size 33 --fake-spot a", "driver fake: no spot instance is larger than 32", ""),
    ("create -d fake --fake-spot=yes a", "--no-fake-spot takes no value", CREATE),
    ("create -d container --container-cpus x a", "--container-cpus: 'x' is not a number, 0 or more", ""),
    ("create -d container --container-cpus=-1 a", "--container-cpus: '-1' is not a number, 0 or more", ""),
    ("create -d container --container-cpus inf a", "--container-cpus: 'inf' is not a number, 0 or more", ""),
    ("create --qemu-accel kvn a", "--qemu-accel: 'kvn' is none of auto, kvm, tcg; did you mean kvm?", ""),
    ("create --qemu-memory 1T a", "--qemu-memory: '1T' is not a value it takes: memory, such as 1G or 512M", ""),
    ("create --qemu-memory 64M a", "--qemu-memory: 64M is too little to boot; give at least 128M", ""),
    ("create --qemu-disk '' a", "--qemu-disk: '' is not a value it takes: size the disk may grow to, such as 20G", ""),
    ("create --qemu-publish 80 a", f"--qemu-publish: '80' {PORT}", ""),
    ("create --qemu-publish 65536:80 a", f"--qemu-publish: '65536:80' {PORT}", ""),
    ("create --qemu-publish 80:80/sctp a", f"--qemu-publish: '80:80/sctp' {PORT}", ""),
    ("create --qemu-publish 80:80,x=y a", f"--qemu-publish: '80:80,x=y' {PORT}", ""),
    ("create --qemu-publish 1.2.3:80:80 a", "--qemu-publish: '1.2.3:80:80': 1.2.3 is not an IPv4 address", ""),
    (
        "create -d container --container-publish 0.0.0.0:80:1 --container-publish 80:2 a",
        "--container-publish: '0.0.0.0:80:1' and '80:2' take the same port of this computer",
        "",
    ),
    (
        "create -d container --container-network host a",
        "--container-network: a machine needs an address of its own, which network 'host' does not give",
        "",
    ),
    ("create -d container --container-network '' a", "--container-network: '' is not a name for a network", ""),
    (
        "create -d container --container-engine tcp://h:1 a",
        "--container-engine: 'tcp://h:1' is not a value it takes: engine that runs the container",
        "",
    ),
    (
        "create -d generic --generic-ip-address=-oProxyCommand=id a",
        "--generic-ip-address: '-oProxyCommand=id' is not a value it takes: address of the server, its name, or "
        "its alias in your ssh_config",
        "",
    ),
    (
        "create -d generic --generic-ip-address h --generic-ssh-user=-x a",
        "--generic-ssh-user: '-x' is not a value it takes: user to log in as, root if neither this nor "
        "your ssh_config says; any other needs sudo",
        "",
    ),
    (
        "create -d generic --generic-ip-address h --generic-ssh-key '~nobody-here/x' a",
        "--generic-ssh-key: '~nobody-here/x': there is no such user",
        "",
    ),
    (
        "create -d generic --generic-ip-address h --generic-ssh-port 99999 a",
        "--generic-ssh-port: '99999' is not a whole number from 0 to 65535",
        "",
    ),
    (
        "create -d none --none-url http://h a",
        "--none-url: 'http://h' is not a value it takes: engine URL: tcp://HOST:PORT or unix:///PATH",
        "",
    ),
    ("create -d none --none-url tcp://h:65536 a", "--none-url: 65536 is not a port", ""),
    (
        "create -d none --none-url tcp://h:1 --none-tls-ca x a",
        "driver none: TLS needs all of --none-tls-ca, --none-tls-cert and --none-tls-key",
        "",
    ),
    # --- the engine's settings
    (
        "create -d fake --engine dokcer a",
        "--engine: 'dokcer' is none of distro, docker, script, none; did you mean docker?",
        "",
    ),
    ("create -d fake --engine script a", "--engine script needs --engine-install-url", ""),
    ("create -d fake --engine-install-url http://x a", "--engine-install-url goes with --engine script", ""),
    (
        "create -d fake --engine script --engine-install-url get.docker.com a",
        f"--engine-install-url: 'get.docker.com' {URL}",
        "",
    ),
    ("create -d fake --engine-label a", "--engine-label: 'a' is not of the form name=value", ""),
    ("create -d fake --engine-label =a", "--engine-label: '=a' is not of the form name=value", ""),
    ("create -d fake --engine-label ''", "--engine-label: '' is not of the form name=value", ""),
    ("create -d fake --engine-label com.docker.x=1", f"--engine-label: 'com.docker.x=1': {RESERVED}", ""),
    (["create", "-d", "fake", "--engine-label=a=\udcff"], "--engine-label: 'a=\\udcff' is not valid UTF-8", ""),
    ("create -d fake --engine-opt debug", "--engine-opt: 'debug' is not of the form name=value", ""),
    ("create -d fake --engine-opt label=x", "--engine-opt: 'x' is not of the form name=value", ""),
    ("create -d fake --engine-opt 'a b=x'", "--engine-opt: 'a b=x' is not of the form name=value", ""),
    (
        "create -d fake --engine-opt 'log-opts={a'",
        "--engine-opt: 'log-opts={a' begins like JSON and is none: Expecting property name enclosed in double "
        "quotes: line 1 column 2 (char 1)",
        "",
    ),
    ("create -d fake --engine-opt hosts=[]", "--engine-opt: hosts is machinekit's own to set", ""),
    ("create -d fake --engine-opt tlsverify=false", "--engine-opt: tlsverify is machinekit's own to set", ""),
    (
        "create -d fake --engine-opt default-ulimit=nofile=1:2",
        "--engine-opt: default-ulimit is called default-ulimits in daemon.json and takes JSON there",
        "",
    ),
    (
        "create -d fake --engine-env my-var=x",
        "--engine-env: 'my-var=x' is not of the form NAME=value, the name of letters, digits and underscores",
        "",
    ),
    (
        ["create", "-d", "fake", "--engine-env", "A=x\ry"],
        "--engine-env: 'A=x\\ry' has the control character '\\r', which a systemd unit cannot carry",
        "",
    ),
    (
        "create -d fake --engine-insecure-registry http://r:5000",
        "--engine-insecure-registry: 'http://r:5000' is neither HOST[:PORT] nor a network such as 10.0.0.0/8",
        "",
    ),
    (
        "create -d fake --engine-insecure-registry 10.0.0.0/33",
        "--engine-insecure-registry: '10.0.0.0/33' is neither HOST[:PORT] nor a network such as 10.0.0.0/8",
        "",
    ),
    (
        "create -d fake --engine-registry-mirror mirror.test",
        f"--engine-registry-mirror: 'mirror.test' {URL}",
        "",
    ),
    (
        "create -d fake --engine-registry-mirror https://me:s3cret@mirror.test",
        "--engine-registry-mirror: a URL with a user or a password in it would be seen by others",
        "",
    ),
    (
        "create -d fake --engine-registry-mirror 'https://m/?a=b'",
        "--engine-registry-mirror: 'https://m/?a=b': a mirror's URL has neither ? nor #",
        "",
    ),
    (
        "create -d fake --engine-storage-driver 'over lay'",
        "--engine-storage-driver: 'over lay' is not a name such as overlay2",
        "",
    ),
    ("create -d fake --engine none --engine-version 1", "--engine-version goes with --engine distro or docker", ""),
    (
        "create -d fake --engine-version 29.1.2 --engine-package containerd=1;id",
        "--engine-package: 'containerd=1;id' is not NAME=VERSION with one of the names containerd.io, "
        "docker-buildx-plugin, containerd, runc, docker-cli",
        "",
    ),
    ("create -d fake --engine-package runc=1.1.5", "--engine-package goes with --engine-version", ""),
    (
        "create -d fake --engine-version '1 $(id)'",
        "--engine-version: '1 $(id)' is not a value it takes: exact version, held against upgrades, such as 29.1.2 "
        "(--engine docker or distro)",
        "",
    ),
    (
        "create -d fake --engine-repository https://x.test",
        "--engine-repository and --engine-key-fingerprint go with --engine docker",
        "",
    ),
    (
        "create -d fake --engine docker --engine-repository https://me:s3cret@x.test",
        "--engine-repository: a URL with a user or a password in it would be seen by others",
        "",
    ),
    (
        "create -d fake --engine docker --engine-key-fingerprint AB",
        "--engine-key-fingerprint: 'AB' is not the 40 hexadecimal digits of a key's fingerprint",
        "",
    ),
    ("create -d fake --tls-san 'a b'", "--tls-san: 'a b' is neither a host name nor an address", ""),
    ("create -d fake --tls-san ''", "--tls-san: '' is neither a host name nor an address", ""),
    ("create -d fake --proxy proxy:3128", f"--proxy: 'proxy:3128' {URL}", ""),
    (
        "create -d fake --proxy http://me:s3cret@p.test:1",
        "--proxy: a URL with a user or a password in it would be seen by others",
        "",
    ),
    ("create -d fake --proxy http://p/x", "--proxy: 'http://p/x' is not of the form http://HOST:PORT", ""),
    (
        "create -d fake --proxy http://p:1 --no-proxy 'a b'",
        "--no-proxy: 'a b' is neither a host, a domain nor a network",
        "",
    ),
    ("create -d fake --no-proxy a", "--no-proxy goes with --proxy", ""),
    ("create -d fake --tls-ca-cert x", "--tls-ca-cert and --tls-ca-key go together", ""),
    (
        "create -d fake --fake-size x --fake-token '' a",
        "--fake-token does not have the right form: API token; --fake-size: 'x' is not a whole number from 1 to 64",
        "",
    ),
]

# variables; the command line; what is said; what to do about it
FROM_THE_ENVIRONMENT: list[tuple[dict[str, str], str, str, str]] = [
    (
        {"MACHINE_DRIVER": "kemu"},
        "create a",
        '$MACHINE_DRIVER: driver "kemu" not found; did you mean qemu?',
        DRIVERS,
    ),
    (
        {"MACHINE_DRIVER": "fake", "MACHINEKIT_FAKE_SIZE": "x"},
        "create a",
        "$MACHINEKIT_FAKE_SIZE: 'x' is not a whole number from 1 to 64",
        "",
    ),
    (
        {"MACHINEKIT_FAKE_SPOT": "perhaps"},
        "create -d fake a",
        "$MACHINEKIT_FAKE_SPOT: 'perhaps' is neither true nor false",
        "",
    ),
    (
        {"GENERIC_SSH_PORT": "x"},
        "create -d generic --generic-ip-address h a",
        "$GENERIC_SSH_PORT: 'x' is not a whole number from 0 to 65535",
        "",
    ),
    (
        {"MACHINEKIT_GENERIC_SSH_PORT": "y", "GENERIC_SSH_PORT": "22"},
        "create -d generic --generic-ip-address h a",
        "$MACHINEKIT_GENERIC_SSH_PORT: 'y' is not a whole number from 0 to 65535",
        "",
    ),
    (
        {"MACHINEKIT_NONE_TLS_CA": "x"},
        "create -d none --none-url tcp://h:1 a",
        "driver none: TLS needs all of $MACHINEKIT_NONE_TLS_CA, --none-tls-cert and --none-tls-key",
        "",
    ),
    (
        {"MACHINEKIT_QEMU_PUBLISH": "80:80,81"},
        "create a",
        f"$MACHINEKIT_QEMU_PUBLISH: '81' {PORT}",
        "",
    ),
    (
        {"ENGINE_REGISTRY_MIRROR": "m"},
        "create -d fake a",
        f"$ENGINE_REGISTRY_MIRROR: 'm' {URL}",
        "",
    ),
    (
        {"MACHINE_DOCKER_INSTALL_URL": "https://x.test"},
        "create -d fake a",
        "$MACHINE_DOCKER_INSTALL_URL goes with --engine script",
        "",
    ),
    (
        {"MACHINE_TLS_CA_CERT": "x"},
        "create -d fake a",
        "$MACHINE_TLS_CA_CERT and --tls-ca-key go together",
        "",
    ),
    (
        {"MACHINEKIT_CONTAINER_ENGINE": "x"},
        "image rm -y -d container debian-12",
        "$MACHINEKIT_CONTAINER_ENGINE: 'x' is not a value it takes: engine that runs the container",
        "",
    ),
    (
        {"MACHINEKIT_HOME": "~nobody-here/x"},
        "ls",
        "'~nobody-here/x': there is no such user",
        PLACE,
    ),
]

# the command line, the exit code; what is said; what to do about it
REFUSED = [
    *(
        (f"{command} fake2", 1, 'machine "fake2" does not exist; did you mean fake1?', LS)
        for command in (
            *"url ip config env status inspect use start stop restart kill provision ssh version".split(),
            *["rm -y", "rm -f", "regenerate-certs -f", "ip fake1", "stop fake1"],
        )
    ),
    ("url", 1, 'machine "default" does not exist', LS),
    ("url ''", 1, 'machine "" does not exist', LS),
    ("url ../machines/fake1", 1, 'machine "../machines/fake1" does not exist', LS),
    ("rm -y ..", 1, 'machine ".." does not exist', LS),
    ("scp fake2:a b", 1, 'machine "fake2" does not exist; did you mean fake1?', LS),
    ("scp fake1:a b", 1, 'there is no SSH to machine "fake1"', "its driver knows none, or its create did not end"),
    ("ssh fake1", 1, 'there is no SSH to machine "fake1"', "its driver knows none, or its create did not end"),
    ("url half", 1, 'machine "half" has no address yet', FINISH),
    ("env half", 1, 'machine "half" has no address yet', FINISH),
    ("stop half", 1, 'machine "half" was not created to the end', f"{FINISH}, or machinekit rm"),
    ("active", 1, "no machine is active", 'eval "$(machinekit env NAME)"'),
    ("rm fake1", 2, "this asks for confirmation and there is no terminal", "add -y"),
    ("regenerate-certs fake1", 2, "this asks for confirmation and there is no terminal", "add -y"),
    (
        "upgrade --to 'x y' fake1",
        2,
        "--to: 'x y' is not a value it takes: exact version, held against upgrades, such as 29.1.2 "
        "(--engine docker or distro)",
        "",
    ),
    ("image rm -y debian-12", 1, 'there is no disk image "debian-12"', "see machinekit image ls"),
    (
        "create -d fake --fake-size 2 --fake-spot fake1",
        1,
        'Docker machine "fake1" already exists, with other options:\n'
        "  --fake-size: 1 -> 2\n  --fake-spot: False -> True",
        "to replace it: machinekit rm fake1, then create it again",
    ),
    (
        "create -d none --none-url unix:///s fake1",
        1,
        "Docker machine \"fake1\" already exists, with other options:\n  --driver: 'fake' -> 'none'",
        "to replace it: machinekit rm fake1, then create it again",
    ),
    (
        "create -d generic --generic-ip-address h --generic-ssh-key /nowhere/key a",
        3,
        "a: there is no SSH key at /nowhere/key",
        "give the path of a private key",
    ),
    (
        "create -d none --none-url tcp://h:1 --none-tls-ca /no/a --none-tls-cert /no/b --none-tls-key /no/c a",
        3,
        "a: there is no file /no/a",
        "give the path of a PEM file",
    ),
    ("create -d fake --fake-token wrong a", 3, "a: the provider refuses the token", "look at FAKE_TOKEN"),
    (
        "create -d container --container-engine unix:///no/such.sock a",
        3,
        "a: docker network: Cannot connect to the Docker daemon at unix:///no/such.sock. Is the docker daemon running?",
        "start the engine, or name another with --container-engine",
    ),
    (
        "create --qemu-memory 999999G a",
        3,
        "a: --qemu-memory asks for 999999G, and this computer has",
        "",
    ),
    (
        "create --qemu-publish 192.0.2.1:8080:80 a",
        3,
        "a: cannot publish 192.0.2.1:8080:80: 192.0.2.1 is not an address of this computer",
        "see ip address; 0.0.0.0 stands for all of them",
    ),
]


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every path below a folder with its mode and content; a lock says who held it last, which is no change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "locks" not in path.parts and not path.name.startswith(".lock-"):
            content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


@pytest.fixture
def unchanged(store: Store, made: Machine, unfinished: Machine, cloud: FakeCloud, tmp_path: Path) -> Iterator[None]:
    """At the end everything is as it was: home with the store and docker's configuration, and the provider."""
    store.identity()
    store.removed.mkdir()  # where goes what is taken back
    files, instances, disks = everything(tmp_path), dict(cloud.instances), dict(cloud.disks)
    asked = cloud.calls.copy()
    yield
    assert everything(tmp_path) == files
    assert (cloud.instances, cloud.disks) == (instances, disks)
    asked["check"] = cloud.calls["check"]  # to look is no change
    assert cloud.calls == asked


def refused(cli: Cli, line: str | list[str], code: int, said: str, hint: str) -> None:
    result = cli(*(shlex.split(line) if isinstance(line, str) else line))
    error = result.err.removeprefix(SEEN) if result.err.startswith(SEEN) else result.err
    expected = f"machinekit: {said}" + (f"\n  {hint}" if hint else "")
    assert error[: len(expected)] == expected
    assert result.code == code
    assert error[len(expected) :] == "\n" or said.endswith("this computer has")  # so much


SEEN = (
    "machinekit: --fake-token on the command line is seen in process lists, and no later command knows it: "
    "set $FAKE_TOKEN instead\n"
)


def label(value: Any) -> str:
    return " ".join(value).encode("ascii", "replace").decode()[:60] if isinstance(value, list) else str(value)[:60]


@pytest.mark.parametrize(("line", "said", "hint"), USAGE, ids=label)
@pytest.mark.usefixtures("unchanged")
def test_a_wrong_command_line(cli: Cli, line: str | list[str], said: str, hint: str) -> None:
    refused(cli, line, 2, said, hint)


@pytest.mark.parametrize(("variables", "line", "said", "hint"), FROM_THE_ENVIRONMENT, ids=label)
@pytest.mark.usefixtures("unchanged")
def test_a_wrong_variable_is_named(
    cli: Cli, environment: pytest.MonkeyPatch, store: Store, variables: dict[str, str], line: str, said: str, hint: str
) -> None:
    if "image" in line:
        image = store.images / "rootfs" / "debian-12"
        image.mkdir(parents=True)
        (image / "image.json").write_text('{"build": "b", "created": ""}')
    for name, value in variables.items():
        environment.setenv(name, value)
    before = everything(store.home)
    refused(cli, line, 2, said, hint)
    assert everything(store.home) == before
    shutil.rmtree(store.images, ignore_errors=True)


@pytest.mark.parametrize(("line", "code", "said", "hint"), REFUSED, ids=label)
@pytest.mark.usefixtures("unchanged")
def test_what_cannot_be_done(cli: Cli, line: str, code: int, said: str, hint: str) -> None:
    refused(cli, line, code, said, hint)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.usefixtures("unchanged")
def test_a_published_port_that_is_taken(cli: Cli, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port, protocol = taken.getsockname()[1], "tcp" if kind == socket.SOCK_STREAM else "udp"
        text = f"{port}:80/{protocol}"
        said = f"a: cannot publish {text}: port {port}/{protocol} of this computer is taken"
        refused(cli, f"create --qemu-publish {text} a", 3, said, "free it, or publish another")


@pytest.mark.parametrize(
    ("home", "line", "said"),
    [
        ("/dev/null", "ls", "cannot read /dev/null/machines: Not a directory"),
        ("/dev/null", "url a", "cannot read /dev/null/machines: Not a directory"),
        ("/dev/null", "create -d fake a", "a: cannot keep machines in /dev/null: File exists"),
        ("/dev/null/x", "create -d fake a", "a: cannot keep machines in /dev/null/x: Not a directory"),
        ("/proc/x", "create -d fake a", "a: cannot keep machines in /proc/x: No such file or directory"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_place_that_cannot_hold_machines(
    cli: Cli, environment: pytest.MonkeyPatch, home: str, line: str, said: str
) -> None:
    environment.setenv("MACHINEKIT_HOME", home)
    refused(cli, line, 1, said, PLACE)


@pytest.mark.parametrize("place", ["with space", 'it\'s "quoted"', "a\nb", "ü", "a,b:c;d", "$(id) `id` %h {{ 7 }}"])
def test_a_store_may_be_anywhere(cli: Cli, cloud: FakeCloud, tmp_path: Path, place: str) -> None:
    home = str(tmp_path / place)
    assert cli("-s", home, "create", "-d", "fake", "a").code == 0
    assert cli("-s", home, "ls", "-q").out == "a\n"
    script = 'eval "$("$@")"; printf %s "$DOCKER_CERT_PATH"'
    words = [sys.executable, "-m", "machinekit", "-s", home, "env", "--shell", "bash", "a"]
    result = subprocess.run(["bash", "-c", script, "-", *words], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == (f"{home}/machines/a", "")
    assert cli("-s", home, "rm", "-y", "a").code == 0


def test_a_relative_store_is_made_absolute(cli: Cli, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.chdir(tmp_path)
    environment.setenv("MACHINEKIT_HOME", "here")
    (tmp_path / "here" / "machines" / "a").mkdir(parents=True)
    assert cli("ls", "-q").out == "a\n"


def test_an_empty_or_missing_home_is_the_users_own(cli: Cli, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".local" / "share" / "machinekit" / "machines" / "a").mkdir(parents=True)
    environment.delenv("XDG_DATA_HOME", raising=False)
    environment.setenv("MACHINEKIT_HOME", "")
    assert cli("ls", "-q").out == "a\n"
    environment.delenv("HOME")  # the user database has it then
    assert cli("ls", "-q").code == 0


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("{} ls -q <&- >&- 2>&-", 0, ""),
        ("{} rm fake1 <&-", 2, "machinekit: this asks for confirmation and there is no terminal\n  add -y\n"),
        ("{} url fake1 >&-", 0, ""),
        ("{} create --help >&-", 0, ""),
        ("{} nonsense 2>&-", 2, ""),
        ("{} url fake1 >/dev/full", 1, "machinekit: cannot write to stdout: No space left on device\n"),
        ("{} inspect fake1 >/dev/full", 1, "machinekit: cannot write to stdout: No space left on device\n"),
        ("{} url fake2 2>/dev/full", 1, ""),
        ("LC_ALL=C {} url fäke1", 1, 'machinekit: machine "fäke1" does not exist; did you mean fake1?'),
        ("LC_ALL=C PYTHONIOENCODING=ascii {} url fäke1", 1, 'machinekit: machine "f\\xe4ke1" does not exist; did you'),
        ("PYTHONIOENCODING=ascii {} -s ./ü env -u --shell json", 0, ""),
        ("PYTHONIOENCODING=ascii {} -s ./ü env -u --shell bash", 1, "machinekit: cannot print "),
    ],
)
def test_streams_that_are_closed_full_or_narrow(
    made: Machine, tmp_path: Path, shell: str, code: int, said: str
) -> None:
    command = f"{sys.executable} -m machinekit"
    result = subprocess.run(
        ["bash", "-c", shell.format(command)],
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (result.returncode, result.stderr.decode()[: len(said)]) == (code, said)
    assert b"Traceback" not in result.stderr
    assert bool(said) is bool(result.stderr)
