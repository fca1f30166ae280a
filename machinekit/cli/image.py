"""`image`: the system images on this computer."""

from __future__ import annotations

import argparse

from machinekit.cli.command import Command, confirm, store_of
from machinekit.errors import MachinekitError, UsageError
from machinekit.machine import Image


class ImageCommand(Command):
    """Build, list and remove the images that machines boot."""

    examples = (
        "Examples: machinekit image build debian-12 --engine\n"
        "          machinekit image build debian-13 --driver container\n"
        "          machinekit image rm debian-12"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """One of ls, build and rm."""
        from machinekit import images

        verbs = parser.add_subparsers(metavar="ls|build|rm", required=True)
        listing = verbs.add_parser("ls", help="list the images")
        listing.add_argument("--json", action="store_true", help="a JSON list for programs")
        listing.set_defaults(image_verb=_list)
        build = verbs.add_parser("build", help="build an image from the distribution's packages")
        build.add_argument("name", metavar="NAME", help=", ".join(images.RELEASES))
        build.add_argument("--engine", action="store_true", help="with the engine baked in (the same as NAME+engine)")
        _driver_option(build)
        build.set_defaults(image_verb=_build)
        remove = verbs.add_parser("rm", help="remove an image that no machine uses")
        remove.add_argument("name", metavar="NAME")
        remove.add_argument("-y", action="store_true", dest="yes", help="do not ask")
        _driver_option(remove)
        remove.set_defaults(image_verb=_remove)

    def run(self, args: argparse.Namespace) -> int:
        """Hand over to the verb."""
        code: int = args.image_verb(args)
        return code


def _driver_option(parser: argparse.ArgumentParser) -> None:
    from machinekit.providers import DEFAULT

    parser.add_argument("-d", "--driver", default=DEFAULT, help=f"the driver that boots it ({DEFAULT})")


def _kind(args: argparse.Namespace) -> str:
    from machinekit import drivers

    kind = drivers.load(args.driver).capabilities.image
    if not kind:
        raise UsageError(f"driver {args.driver} boots no images of ours")
    return kind


def _list(args: argparse.Namespace) -> int:
    from machinekit import images

    found = images.Images(store_of(args).images).all()
    if args.json:
        import json

        about = [
            {"kind": i.kind, "name": i.name, "build": i.build, "created": i.created, "bytes": images.size(i)}
            for i in found
        ]
        print(json.dumps(about, indent=2))
        return 0
    from machinekit.cli.table import print_table

    print_table(
        ("KIND", "NAME", "CREATED", "SIZE"),
        [(i.kind, i.name, i.created, f"{images.size(i) / 1e6:.0f} MB") for i in found],
    )
    return 0


def _build(args: argparse.Namespace) -> int:
    from machinekit import images
    from machinekit.cli.leaving import leaving

    name = args.name
    if args.engine and not name.endswith(images.WITH_ENGINE):
        name += images.WITH_ENGINE
    library, kind = images.Images(store_of(args).images), _kind(args)
    old = library.find(kind, name)
    with leaving(lambda: [f"the image {name} is not built; the same command starts anew"]):
        library.build(kind, name, lambda text: print(text, flush=True))
    if old:
        _forget(args.driver, old)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from machinekit import images

    store, kind = store_of(args), _kind(args)
    library = images.Images(store.images)
    image = library.find(kind, args.name)
    if image is None:
        raise MachinekitError(f'there is no {kind} image "{args.name}"', "see machinekit image ls")
    users = [name for name in store.names() if store.read(name).get("image") == f"{kind}/{args.name}"]
    if users:
        raise MachinekitError(f'image "{args.name}" is in use by {", ".join(users)}', "remove those machines first")
    if not args.yes and not confirm(f"Remove the {kind} image {args.name}?"):
        return 1
    _forget(args.driver, image)
    library.remove(image)
    print(f"removed {args.name}")
    return 0


def _forget(name: str, image: Image) -> None:
    from machinekit import drivers
    from machinekit.cli.options import from_environment
    from machinekit.spec import parse_options

    driver = drivers.load(name)
    driver.forget_image(parse_options(name, driver, from_environment(name, driver)), image)
