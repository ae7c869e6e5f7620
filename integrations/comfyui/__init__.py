"""Nodes for ComfyUI that make talking videos with sonic_ms; see docs/comfyui.md.

A ComfyUI with the second interface for nodes gets `comfy_entrypoint`, an older one NODE_CLASS_MAPPINGS: where both are
it would look at the latter alone. Nothing heavy is imported here, and nothing of sonic_ms.
"""

import importlib.util

from .host import announce_models
from .nodes import declared

announce_models()


def _has_second_interface():
    try:
        return importlib.util.find_spec("comfy_api.latest") is not None
    except ImportError:
        return False


if _has_second_interface():

    async def comfy_entrypoint():
        from .v3 import Extension

        return Extension(declared())

else:
    from .classic import classes

    NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = classes(declared())
