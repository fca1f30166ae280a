"""`image`: the system images on this computer, and those that can be had."""

from __future__ import annotations

import argparse

from machinekit.cli.command import Command, confirm, report, store_of
from machinekit.errors import MachinekitError, UsageError
from machinekit.machine import Image


class ImageCommand(Command):
    """Pull, build, list and remove the images that machines boot."""

    examples = (
        "Examples: machinekit image pull ubuntu-24.04\n"
        "          machinekit image pull https://example.org/disk.qcow2 --checksum sha256:...\n"
        "          machinekit image build debian-12 --engine\n"
        "          machinekit image build debian-13 --driver container\n"
        "          machinekit image rm debian-12"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """One of ls, pull, build and rm."""
        from machinekit import bootstrap, catalogue

        verbs = parser.add_subparsers(metavar="ls|pull|build|rm", required=True)
        listing = verbs.add_parser("ls", help="list the images that are here, and those that can be pulled")
        listing.add_argument("--json", action="store_true", help="a JSON list for programs")
        listing.set_defaults(image_verb=_list)
        pull = verbs.add_parser("pull", help="get an official cloud image, or one of your own, verified")
        names = ", ".join(catalogue.CATALOGUE)
        wanted = pull.add_argument("name", metavar="NAME|URL|PATH", help=f"{names}; or a disk image of your own")
        wanted.completer = lambda **_: list(catalogue.CATALOGUE)  # type: ignore[attr-defined]
        pull.add_argument("--checksum", default="", help="sha256:... or sha512:... of your own; a URL needs it")
        _driver_option(pull)
        pull.set_defaults(image_verb=_pull)
        build = verbs.add_parser("build", help="build an image from the distribution's packages")
        name = build.add_argument("name", metavar="NAME", help=", ".join(bootstrap.RELEASES))
        name.completer = lambda **_: list(bootstrap.RELEASES)  # type: ignore[attr-defined]
        build.add_argument("--engine", action="store_true", help="with the engine baked in (the same as NAME+engine)")
        _driver_option(build)
        build.set_defaults(image_verb=_build)
        remove = verbs.add_parser("rm", help="remove an image that no machine uses, or an unfinished pull")
        remove.add_argument("name", metavar="NAME").completer = _here  # type: ignore[attr-defined]
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


def _here(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    from machinekit.images import Images

    return [image.name for image in Images(store_of(parsed_args).images).all()]


def _kind(args: argparse.Namespace) -> str:
    from machinekit import drivers

    kind = drivers.load(args.driver).capabilities.image
    if not kind:
        raise UsageError(f"driver {args.driver} boots no images of ours")
    return kind


def _list(args: argparse.Namespace) -> int:
    from machinekit.images import Images
    from machinekit.imagestore import DISK, size

    library = Images(store_of(args).images)
    here = library.all()
    absent = library.published.keys() - {image.name for image in here if image.kind == DISK}
    about = [
        {"kind": i.kind, "name": i.name, "here": True, "source": i.source, "digest": i.digest}
        | {"build": i.build, "created": i.created, "bytes": size(i)}
        for i in here
    ] + [
        {"kind": DISK, "name": name, "here": False, "source": entry.directory + entry.file}
        for name, entry in library.published.items()
        if name in absent
    ]
    code = max((report(error) for error in library.broken()), default=0)
    if args.json:
        import json

        print(json.dumps(about, indent=2))
        return code
    from machinekit.cli.table import print_table

    print_table(("KIND", "NAME", "CREATED", "SIZE", "SOURCE"), [_row(each) for each in about])
    return code


def _row(about: dict[str, object]) -> tuple[str, ...]:
    kind, name, source = (str(about[key]) for key in ("kind", "name", "source"))
    if not about["here"]:
        return kind, name, "-", "-", f"to pull from {source.split('/')[2]}"
    return kind, name, str(about["created"]), f"{int(str(about['bytes'])) / 1e6:.0f} MB", source


def _pull(args: argparse.Namespace) -> int:
    import os

    from machinekit.cli.leaving import leaving
    from machinekit.cli.progress import progress
    from machinekit.images import Images, is_own
    from machinekit.imagestore import DISK

    if (kind := _kind(args)) != DISK:
        raise UsageError(
            f"driver {args.driver} boots images of kind {kind}, which no publisher offers",
            f"machinekit image build NAME --driver {args.driver}",
        )
    library, wanted = Images(store_of(args).images), args.name
    if is_own(wanted) and "://" not in wanted:
        wanted = os.path.abspath(os.path.expanduser(wanted))  # noqa: PTH100, PTH111 (what a shell would have done)
    short = wanted.rpartition("/")[2]
    kept = f"what has come of {short} is kept; the same command goes on"
    with progress() as shown, leaving(lambda: [kept], shown.stop):
        shown.step(short, "Pulling the image")
        if is_own(wanted):
            library.take(wanted, args.checksum, lambda t: shown.note(short, t), lambda t: shown.part(short, t))
        else:
            library.pull(wanted, lambda t: shown.note(short, t), lambda t: shown.part(short, t))
    return 0


def _build(args: argparse.Namespace) -> int:
    from machinekit.bootstrap import WITH_ENGINE
    from machinekit.cli.leaving import leaving
    from machinekit.images import Images

    name = args.name
    if args.engine and not name.endswith(WITH_ENGINE):
        name += WITH_ENGINE
    library, kind = Images(store_of(args).images), _kind(args)
    old = library.find(kind, name)
    with leaving(lambda: [f"the image {name} is not built; the same command starts anew"]):
        library.build(kind, name, lambda text: print(text, flush=True))
    if old:
        _forget(args.driver, old)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from machinekit.images import Images

    store, kind = store_of(args), _kind(args)
    library = Images(store.images)
    image, drafts = library.find(kind, args.name), library.drafts(kind, args.name)
    if image is None and not drafts:
        raise MachinekitError(f'there is no {kind} image "{args.name}"', "see machinekit image ls")
    users = [name for name in store.names() if store.read(name).get("image") == f"{kind}/{args.name}"]
    if image and users:
        raise MachinekitError(f'image "{args.name}" is in use by {", ".join(users)}', "remove those machines first")
    if not args.yes and not confirm(f"Remove the {kind} image {args.name}?"):
        return 1
    with library.alone(kind, args.name, "remove", lambda text: print(text, flush=True)):
        if image:
            _forget(args.driver, image)
        library.remove(kind, args.name)
    print(f"removed {args.name}")
    return 0


def _forget(name: str, image: Image) -> None:
    from machinekit import drivers
    from machinekit.cli.options import chosen_options

    drivers.load(name).forget_image(chosen_options(name), image)
