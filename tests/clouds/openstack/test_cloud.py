"""The cloud that the tests run on is one: guests boot, are reached and told apart, and quotas hold."""

from __future__ import annotations
