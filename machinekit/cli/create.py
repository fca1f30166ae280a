"""`create`: its options are the engine's and the chosen driver's."""

from __future__ import annotations

import argparse
import os
import sys

from machinekit.cli.command import DEFAULT_MACHINE, Command, store_of


class Create(Command):
    """Create machines, or go on with ones that a stopped create left."""

    examples = (
        "Examples: machinekit create node1\n"
        "          machinekit create --driver container node1 node2\n"
        "          machinekit create --driver generic --generic-ip-address 192.0.2.7 --generic-ssh-user admin web\n"
        "The options of another driver: machinekit create --driver NAME --help"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """The engine's options, then those of the driver that the command line names."""
        from machinekit import drivers
        from machinekit.cli import options

        chosen = options.chosen_driver(self.words)
        parser.add_argument("names", nargs="*", metavar="NAME", help=f'the machines, "{DEFAULT_MACHINE}" if none')
        driver = parser.add_argument(
            "-d",
            "--driver",
            default=chosen,
            type=drivers.canonical,
            help=f"{', '.join(drivers.names())} ({chosen}) [$MACHINE_DRIVER]",
        )
        driver.completer = lambda **_: drivers.names()  # type: ignore[attr-defined]  # argcomplete's own way
        parser.add_argument("-y", "--yes", action="store_true", help="do not ask before a server in use is changed")
        parser.add_argument("--json", action="store_true", help="print the records as JSON; progress goes to stderr")
        options.add_engine_options(parser)
        options.add_driver_options(parser, chosen)

    def elsewhere(self, option: str) -> str:
        """Another driver has it, perhaps, or the environment."""
        from machinekit.cli import options

        return options.elsewhere(option)

    def run(self, args: argparse.Namespace) -> int:
        """All machines in parallel."""
        from machinekit import create, drivers
        from machinekit.cli import options
        from machinekit.cli.many import each, told
        from machinekit.spec import check_name, parse_spec
        from machinekit.work import Progress

        store = store_of(args)
        names = [check_name(name) for name in dict.fromkeys(args.names)] or [DEFAULT_MACHINE]
        spec = parse_spec(options.given(args, options.ENGINE), options.engine_variables(args))
        for variable, value in spec.proxies.items():  # images are pulled and built through it too
            os.environ[variable] = os.environ[variable.lower()] = value
        driver = drivers.load(args.driver)
        parsed = options.chosen_options(args.driver, args)
        for remark in options.remarks(args.driver, driver, args):
            print(f"machinekit: {remark}", file=sys.stderr)

        def verb(name: str, shown: Progress) -> str:
            changes = create.create(
                store, name, driver=args.driver, options=parsed, spec=spec, progress=shown, agreed=args.yes
            )
            return f"ready at {store.read(name)['url']} ({told(changes)})"

        code = each(store, names, verb, stream=sys.stderr if args.json else sys.stdout)
        if args.json:
            import json

            print(json.dumps([store.read(name) for name in names if store.exists(name)], indent=2))
        elif code == 0 and sys.stdout.isatty():
            print(f'To point docker at it: eval "$(machinekit env {names[0]})"')
        return code
