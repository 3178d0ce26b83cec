"""Find the replaceable parts of a model: its block, item head, training objectives, token makers and kinds of signals.

A preset names each part. A part of this project is one module in the folder of its kind, called by the module's name:
`block="hstu"` is `lrm/model/blocks/hstu.py`. A part of another package is an entry point of that package, in the group
with the folder's name:

    [project.entry-points."lrm.model.blocks"]
    my_block = "my_package.my_block"

A model folder holds the names alone. To load one never installs or fetches code: a part that is not installed is
refused in words.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from lrm.errors import ConfigError


def part(package: str, name: str) -> ModuleType:
    """Import the module of a part.

    Args:
        package: the folder of its kind, `lrm.model.blocks` for example; also the group of entry points.
        name: as a preset gives it.

    Raises:
        ConfigError: neither this project nor an installed package has a part of that name.
    """
    check_part(package, name)
    if name in own_parts(package):
        return importlib.import_module(f"{package}.{name}")
    module: ModuleType = next(point for point in _outside(package) if point.name == name).load()
    return module


def check_part(package: str, name: str) -> None:
    """Check that a part is installed, without importing it.

    Raises:
        ConfigError: neither this project nor an installed package has a part of that name.
    """
    if name not in part_names(package):
        raise ConfigError(
            f"{package} has no part called {name!r}; it has {', '.join(part_names(package))}. A part of another "
            f"package must be installed here and name itself as an entry point of the group {package!r}"
        )


def part_names(package: str) -> list[str]:
    """Names of all parts of a kind: this project's, then those of installed packages."""
    own = own_parts(package)
    return own + sorted({point.name for point in _outside(package)} - set(own))


def own_parts(package: str) -> list[str]:
    """Names of this project's parts of a kind."""
    folder = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_"))


def _outside(package: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=package))


def check_options(what: str, make: Callable[..., object], options: Mapping[str, object]) -> None:
    """Refuse an option that a part does not have.

    Args:
        what: the part, in words.
        make: its function or class; its keyword-only arguments are the options.
        options: as the configuration gives them.

    Raises:
        ConfigError: an option is not one of them.
    """
    parameters = inspect.signature(make).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"{what} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
