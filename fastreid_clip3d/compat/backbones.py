"""fast-reid's RegNet and EfficientNet open their packaged yaml files by a path relative to the working directory."""

from __future__ import annotations

import os
from typing import Any


class _ConfigFoundAnywhere:
    """Stands for a family's config node; a path that does not exist here is looked up beside the package fastreid."""

    def __init__(self, node: Any, package_parent: str) -> None:
        self._node = node
        self._package_parent = package_parent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def merge_from_file(self, cfg_filename: str) -> None:
        packaged = os.path.join(self._package_parent, cfg_filename)
        use_packaged = not os.path.exists(cfg_filename) and os.path.exists(packaged)
        self._node.merge_from_file(packaged if use_packaged else cfg_filename)


def apply() -> None:
    """Puts the stand-in where both families look their config up."""
    import fastreid
    from fastreid.modeling.backbones.regnet import effnet, regnet

    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(fastreid.__file__)))
    for module, name in ((effnet, "effnet_cfg"), (regnet, "regnet_cfg")):
        node = getattr(module, name)
        if not isinstance(node, _ConfigFoundAnywhere):
            setattr(module, name, _ConfigFoundAnywhere(node, package_parent))
