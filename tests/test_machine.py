"""The record of one machine."""

from __future__ import annotations

import json

import pytest

from machinekit.machine import Machine, Phase, Resource, State


def test_a_record_survives_json() -> None:
    machine = Machine("n", "u", "d", "s", "c", phase=Phase.REMOVING, resources=[Resource("disk", "x")], done=["a"])
    data = json.loads(json.dumps(machine.to_json()))
    again = Machine.from_json(data)
    assert again == machine
    assert again.phase is Phase.REMOVING
    assert json.loads(json.dumps(again.to_json())) == data


def test_two_records_share_nothing() -> None:
    one, two = Machine("a", "", "", "", ""), Machine("b", "", "", "", "")
    one.done.append("x")
    one.options["y"] = 1
    assert (two.done, two.options, two.resources) == ([], {}, [])


@pytest.mark.parametrize("state", State)
def test_states_print_as_docker_machine_prints_them(state: State) -> None:
    assert f"{state}" == state.value
    assert state.value == state.value.title()
