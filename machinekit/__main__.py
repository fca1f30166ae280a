"""Lets `python -m machinekit` do what `machinekit` does."""

from machinekit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
