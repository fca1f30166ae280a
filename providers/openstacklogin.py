"""Who asks an OpenStack: the credentials of its own files and variables, a token, and where each service answers."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import platformdirs

from machinekit.errors import NotSetUpError, PreCheckError, nearest

from .calls import TIMEOUT, CloudError, Kind, classified, kind_of

ADVICE = (
    "looked for in clouds.yaml and secure.yaml (--openstack-cloud or $OS_CLOUD chooses) here, in ~/.config/openstack "
    "and in /etc/openstack, or where $OS_CLIENT_CONFIG_FILE says, and in $OS_AUTH_URL, $OS_USERNAME, $OS_PASSWORD, "
    "$OS_PROJECT_NAME ... or $OS_APPLICATION_CREDENTIAL_ID and _SECRET"
)
NAMED = ("OS_CLOUD", "OS_AUTH_URL", "OS_CLIENT_CONFIG_FILE")  # variables that say which cloud
AN_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
T = TypeVar("T")


class Login:
    """An account in one region, by openstacksdk's configuration of it; all threads share its token."""

    def __init__(self, config: Any, region: str) -> None:
        self._config = config
        self._region = region
        self._kept: dict[str, Any] = {}
        self._keeping = threading.Lock()
        self._session = config.get_session()
        self._session.timeout = self._session.timeout or TIMEOUT
        self.url: str = config.config["auth"].get("auth_url", "")
        self.verify: bool | str = self._session.verify
        self.certificate: Any = self._session.cert

    @property
    def token(self) -> str:
        """The token, a new one when it is about to expire."""
        return str(self._access.auth_token)

    @property
    def project(self) -> str:
        """The id of the project that all is made in."""
        return str(self._access.project_id)

    def endpoint(self, service: str) -> str:
        """Where a service answers, as the configuration or else the catalog says."""
        if fixed := self._config.get_endpoint(service):
            return str(fixed)
        where = {"service_type": service, "interface": self._config.get_interface(service)}
        catalog = self._access.service_catalog
        there = {each["region"] for found in catalog.get_endpoints(**where).values() for each in found}
        wanted = self._region or (there.pop() if len(there) == 1 else "")
        if not wanted and there:
            raise PreCheckError(
                f"which region? There are {', '.join(sorted(there))}", "name one with --openstack-region"
            )
        try:
            return str(catalog.url_for(region_name=wanted, **where))
        except Exception:
            if there and wanted not in there:
                known = f"regions: {', '.join(sorted(there))}"
                raise PreCheckError(f"there is no region {wanted}{nearest(wanted, there)}", known) from None
            raise PreCheckError(f"this cloud has no service {service!r} for us", "its catalog names none") from None

    def kept(self, key: str, look: Callable[[], T]) -> T:
        """What `look` finds the first time; others who want the same wait for it."""
        with self._keeping:
            if key not in self._kept:
                self._kept[key] = look()
            found: T = self._kept[key]
            return found

    def renew(self) -> None:
        """The token was refused: take another one for the next call."""
        self._session.auth.invalidate()

    @property
    def _access(self) -> Any:
        return _told(lambda: self._session.auth.get_access(self._session))


def find(cloud: str, region: str, auth_url: str, project: str) -> Login:
    """The login of this process for the account; raises PreCheckError where there are no credentials for it."""
    found = _configured(cloud, region, auth_url, project)
    config = {key: found.config.get(key) for key in ("auth", "auth_type", "interface", "verify", "cacert", "cert")}
    region = region or found.region_name or ""
    key = json.dumps([config, region], sort_keys=True, default=str)
    with _finding:
        return _logins.setdefault(key, Login(found, region))


def account(cloud: str, region: str) -> dict[str, str]:
    """What the credentials say of region, auth_url and project; raises PreCheckError where there are none."""
    found = _configured(cloud, region, "", "")
    auth = found.config["auth"]
    return {
        "region": region or found.region_name or "",
        "auth_url": auth.get("auth_url", ""),
        "project": auth.get("project_id") or auth.get("project_name") or "",
    }


_logins: dict[str, Login] = {}
logging.getLogger("keystoneauth").addHandler(logging.NullHandler())  # what it warns of, it raises soon after
_finding = threading.Lock()


def _configured(cloud: str, region: str, auth_url: str, project: str) -> Any:
    """openstacksdk's configuration; never one for another cloud or project than was asked for."""
    if not _is_mentioned():
        raise NotSetUpError("no credentials for OpenStack", ADVICE)
    try:
        from openstack.config import OpenStackConfig
    except ImportError:
        raise PreCheckError("driver openstack needs openstacksdk", "pip install 'machinekit[openstack]'") from None
    loader = _found(OpenStackConfig)
    given = _one(loader, cloud, region, validate=False).config
    auth = given | given["auth"]  # what is of the environment is not where it belongs yet
    theirs = {auth[key] for key in ("project_id", "project_name") if auth.get(key)}
    if auth_url and auth.get("auth_url") and _host(auth_url) != _host(auth["auth_url"]):
        raise PreCheckError(f"the credentials at hand are for {auth['auth_url']}, and not for {auth_url}", ADVICE)
    if project and theirs and project not in theirs:
        raise PreCheckError(f"the credentials at hand are for project {min(theirs)}, and not for {project}", ADVICE)
    missing = {} if auth.get("auth_url") else {"auth_url": auth_url}
    if project and not theirs and not any(key.startswith("application_credential") for key in auth):
        missing["project_id" if AN_ID.fullmatch(project) else "project_name"] = project
    found = _one(loader, cloud, region, auth=missing)
    if "password" in found.config["auth_type"] and not found.config["auth"].get("password"):
        raise PreCheckError("no credentials for OpenStack: there is no password", ADVICE)
    return found


def _is_mentioned() -> bool:
    """Whether this computer has anything of an OpenStack: openstacksdk, which reads it, is slow and leaves a cache."""
    folders = (Path(), platformdirs.user_config_path("openstack"), Path("/etc/openstack"))
    files = [folder / f"clouds.{kind}" for folder in folders for kind in ("yaml", "yml", "json")]
    return any(name in os.environ for name in NAMED) or any(file.exists() for file in files)


def _one(loader: Any, cloud: str, region: str, **more: Any) -> Any:
    """The configuration of one region; of any where it names others only: what regions there are says the catalog."""
    look = functools.partial(loader.get_one, cloud=cloud or None, **more)
    with contextlib.suppress(PreCheckError):
        return _found(functools.partial(look, region_name=region or None))
    return _found(look)


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _found(look: Callable[[], T]) -> T:
    """What openstacksdk finds; raises PreCheckError with its reason."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import ConfigException
    from requests import RequestException  # a vendor's profile may be on the web
    from yaml import YAMLError

    try:
        return look()
    except (ClientException, ConfigException, RequestException, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise PreCheckError(f"no credentials for OpenStack: {reason}", ADVICE) from None


def _told(ask: Callable[[], T]) -> T:
    """What Keystone answers; raises CloudError."""
    from keystoneauth1 import exceptions

    try:
        return ask()
    except exceptions.ConnectionError as error:
        told = classified(error.__context__) if isinstance(error.__context__, Exception) else None
        raise told or CloudError(Kind.UNREACHABLE, f"Keystone cannot be reached: {error}") from None
    except exceptions.DiscoveryFailure as error:
        raise CloudError(Kind.UNREACHABLE, f"Keystone cannot be found: {error}") from None
    except exceptions.HttpError as error:
        status = int(error.http_status or 0)
        raise CloudError(kind_of(status, str(error)), f"Keystone refuses: {error}") from None
    except exceptions.ClientException as error:
        raise CloudError(Kind.REFUSED, f"Keystone cannot be used: {error}") from None
