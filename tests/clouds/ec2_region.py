"""A region of EC2: moto, and the rules of EC2 that moto does not have."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.core.exceptions import ServiceException

from tests.clouds import ec2_images, ec2_launch, ec2_texts
from tests.clouds.ec2_moto import Answer, Parameters, Refusal, ask, backend_of, error

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
FORGOTTEN = ("eni-", "key-", "sg-", "vol-")  # their tags go with them; those of an instance stay for a while
# what a call makes of an instance, for how long it may be told to take, and the states from which it is refused
POWER = {
    "StartInstances": ("pending", "running", ("stopping", "shutting-down", "terminated")),
    "StopInstances": ("stopping", "stopped", ("pending", "shutting-down", "terminated")),
    "RebootInstances": ("running", "running", ("stopping", "stopped", "shutting-down", "terminated")),
    "TerminateInstances": ("shutting-down", "terminated", ()),
}


@dataclass
class Conditions:
    """How this region is just now, beyond what has been asked of it.

    `unlisted_for`: seconds until Describe* shows a new instance, key pair or group. `lasting`: seconds that an instance
    stays pending, stopping or shutting-down. `full`: where there is no capacity: type, zone, market; "" is any.
    """

    unlisted_for: float = 0
    lasting: dict[str, float] = field(default_factory=dict)
    full: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Launched:
    """What was asked for in RunInstances, what it made, and how often each of that was booted again."""

    parameters: Parameters
    instances: list[str]
    body: str
    boots: Counter[str] = field(default_factory=Counter)


class Region:
    """One region, and all that an account has in it. One call at a time."""

    def __init__(self, name: str, conditions: Conditions) -> None:
        self.name = name
        self.conditions = conditions
        self.backend = backend_of(name)
        self.backend.amis.update({image.id: image for image in ec2_images.images(self.backend)})
        self.launched: dict[str, Launched] = {}  # by instance
        self._tokens: dict[str, Launched] = {}
        self._listed: dict[str, float] = {}  # by id: from when on
        self._turns: dict[str, tuple[float, str]] = {}  # by instance: when it becomes what
        self._note_births()

    def answer(self, parameters: Parameters) -> Answer:
        """One call."""
        self.settle()
        action = parameters["Action"]
        try:
            ec2_texts.check(parameters)
            if action == "RunInstances":
                answer = self._run(parameters)
            elif action in POWER:
                answer = self._power(action, parameters)
            elif action == "AuthorizeSecurityGroupIngress":
                answer = self._authorize(parameters)
            elif action.startswith("Describe"):
                return self._describe(parameters)
            else:
                if action == "DeleteSecurityGroup":
                    self._refuse_used(parameters.get("GroupId", ""))
                answer = ask(self.name, parameters)
        except Refusal as refusal:
            return refusal.answer
        except ServiceException as refusal:  # of moto's, when it was asked before
            return error(refusal.code, refusal.message, 400)
        self._note_births()
        return answer

    def settle(self) -> None:
        """Let what has lasted long enough be over."""
        for identity, (due, state) in list(self._turns.items()):
            if due <= time.monotonic():
                del self._turns[identity]
                self._put(identity, state)

    def instances(self) -> list[Any]:
        """All of moto's, those that are terminated too."""
        return [instance for reservation in self.backend.reservations.values() for instance in reservation.instances]

    # --- instances

    def _run(self, parameters: Parameters) -> Answer:
        token = parameters.get("ClientToken", "")
        if known := self._tokens.get(token):
            if known.parameters != parameters:
                raise Refusal("IdempotentParameterMismatch", "The client token was used with other parameters before.")
            return Answer(200, self._as_of_now(known))
        filled = ec2_launch.filled(self.backend, parameters, self.conditions.full)
        answer = ask(self.name, filled)
        if answer.status != 200:
            return answer
        made = list(self.backend.reservations.values())[-1].instances
        launched = Launched(parameters, [instance.id for instance in made], answer.body)
        for instance in made:
            ec2_launch.settle_in(instance, parameters)
            self.launched[instance.id] = launched
            self._pass_through("pending", "running", instance.id)
        if token:
            self._tokens[token] = launched
        return answer

    def _as_of_now(self, launched: Launched) -> str:
        """The answer to a launch again, with the states that its instances have meanwhile."""
        states = iter([self.backend.get_instance(identity).state for identity in launched.instances])

        def state(found: re.Match[str]) -> str:
            name = next(states)
            return f"<instanceState><code>{CODES[name]}</code><name>{name}</name></instanceState>"

        return re.sub(r"<instanceState>.*?</instanceState>", state, launched.body)

    def _power(self, action: str, parameters: Parameters) -> Answer:
        during, after, refused = POWER[action]
        named = [value for key, value in parameters.items() if key.startswith("InstanceId.")]
        there = {instance.id: instance.state for instance in self.instances()}
        for identity in named:
            if there.get(identity) in refused:
                raise Refusal("IncorrectInstanceState", f"The instance '{identity}' is {there[identity]}.")
        concerned = [identity for identity in named if there.get(identity) not in (during, after)]
        answer = ask(self.name, parameters)
        for identity in named if answer.status == 200 else ():
            if action == "RebootInstances" or (action == "StartInstances" and identity in concerned):
                self.launched[identity].boots[identity] += 1
            if identity in concerned:
                self._pass_through(during, after, identity)
            if action == "TerminateInstances":
                ec2_launch.let_go(self.backend.get_instance(identity))
        return answer

    def _pass_through(self, during: str, after: str, identity: str) -> None:
        self._turns.pop(identity, None)
        if seconds := self.conditions.lasting.get(during, 0):
            self._put(identity, during)
            self._turns[identity] = (time.monotonic() + seconds, after)

    def _put(self, identity: str, state: str) -> None:
        current = self.backend.get_instance(identity).instance_state
        current.name, current.code = state, CODES[state]

    # --- groups

    def _authorize(self, parameters: Parameters) -> Answer:
        """All of the rules, or none when one of them is there; moto takes those before that one."""
        group = self.backend.get_security_group_from_id(parameters.get("GroupId", ""))
        before = list(group.ingress_rules) if group else []
        answer = ask(self.name, parameters)
        if group and answer.status != 200:
            group.ingress_rules[:] = before
        return answer

    def _refuse_used(self, group: str) -> None:
        for instance in self.instances():
            groups = {used.id for nic in instance.nics.values() for used in nic.group_set}
            if group in groups and instance.state != "terminated":
                raise Refusal("DependencyViolation", f"resource {group} has a dependent object")

    # --- what is listed

    def _describe(self, parameters: Parameters) -> Answer:
        hidden = self._unlisted()
        if parameters.get("IncludeDeprecated") != "true" and "ImageId.1" not in parameters:
            hidden |= {image.id for image in self.backend.amis.values() if image.deprecation_time}
        if parameters["Action"] == "DescribeInstances" and not any(key.startswith("InstanceId") for key in parameters):
            parameters = {"MaxResults": "1000"} | parameters  # as many as EC2 gives; moto stops at 100
        with _without(self.backend, hidden):
            return ask(self.name, parameters)

    def _unlisted(self) -> set[str]:
        now = time.monotonic()
        return {identity for identity, listed in self._listed.items() if listed > now}

    def _note_births(self) -> None:
        there = self._there()
        listed = time.monotonic() + self.conditions.unlisted_for
        self._listed = {identity: self._listed.get(identity, listed) for identity in there}
        for identity in set(self.backend.tags) - there:
            if identity.startswith(FORGOTTEN):
                del self.backend.tags[identity]

    def _there(self) -> set[str]:
        groups = {group for groups in self.backend.groups.values() for group in groups}
        pairs = {pair.id for pair in self.backend.key_pairs.values()}
        return (
            groups
            | pairs
            | {instance.id for instance in self.instances()}
            | set(self.backend.volumes)
            | set(self.backend.enis)
        )


@contextmanager
def _without(backend: Any, hidden: set[str]) -> Iterator[None]:
    """Take these out of the account while it is asked what there is."""
    shelves = [backend.reservations, backend.key_pairs, backend.amis, backend.tags, *backend.groups.values()]
    full = [dict(shelf) for shelf in shelves] if hidden else []
    for shelf, before in zip(shelves, full, strict=False):
        for key, thing in before.items():
            inside = {instance.id for instance in getattr(thing, "instances", ())}
            if hidden & {key, getattr(thing, "id", ""), *inside}:
                del shelf[key]
    try:
        yield
    finally:
        for shelf, before in zip(shelves, full, strict=False):
            shelf.clear()
            shelf.update(before)
