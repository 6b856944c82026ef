"""transformers' Auto classes know this package from `import dsvlfs` on, which imports neither transformers nor torch.

`configuration.py`, `modeling.py` and `processing.py` register their classes where they are defined; here the Auto
classes are made to import them when one is first asked. Sooner cannot be: while transformers is being imported, the
parts of it that these modules need may not be there yet.
"""

import sys
from collections.abc import Sequence
from functools import wraps
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_AUTO = "transformers.models.auto."
_HOMES = {
    f"{_AUTO}configuration_auto": ("AutoConfig", "configuration"),
    f"{_AUTO}modeling_auto": ("AutoModel", "modeling"),
    f"{_AUTO}processing_auto": ("AutoProcessor", "processing"),
}
_ASKED_BY = ("from_pretrained", "from_config", "for_model")


class _Finder(MetaPathFinder):
    """Finds the Auto classes' modules as Python does, and prepares them once they are imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _HOMES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_prepare(module: ModuleType) -> None:
                execute(module)
                _prepare(module)

            setattr(spec.loader, "exec_module", execute_and_prepare)  # noqa: B010 (a type checker's)
        return spec


def _prepare(module: ModuleType) -> None:
    """Makes a module's Auto class import ours before it answers for the first time."""
    name, home = _HOMES[module.__name__]
    auto = getattr(module, name)
    own = {method: vars(auto).get(method) for method in _ASKED_BY if hasattr(auto, method)}

    def introduced(method: str) -> Any:
        @wraps(getattr(auto, method))
        def ask(*arguments: Any, **options: Any) -> Any:
            for each, original in own.items():  # from now on as it was
                if original is None:
                    if each in vars(auto):
                        delattr(auto, each)
                else:
                    setattr(auto, each, original)
            import_module(f"{__package__}.{home}")
            return getattr(auto, method)(*arguments, **options)

        return staticmethod(ask)

    for method in own:
        setattr(auto, method, introduced(method))


def introduce() -> None:
    """Makes the Auto classes know this package's when they are asked."""
    sys.meta_path.insert(0, _Finder())
    for name in _HOMES:
        if name in sys.modules:
            _prepare(sys.modules[name])
