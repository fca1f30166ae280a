"""machinekit: Docker hosts on clouds, hypervisors and servers you already have."""

from os.path import dirname, isdir

__version__ = "0.1.0"

# A checkout keeps providers/ and templates/ beside this package; a wheel ships them inside it.
if not isdir(f"{__path__[0]}/providers"):  # noqa: PTH112 (pathlib is too heavy for the way to `env`)
    __path__.append(dirname(__path__[0]))  # noqa: PTH120
