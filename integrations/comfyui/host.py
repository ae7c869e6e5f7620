"""All that the nodes want of ComfyUI, in one place; its modules are imported when they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .process import NodeError


class Call:
    """One run of a node. node: its id in the workflow; prompt: the workflow in API format, {id: {"inputs", ...}}."""

    def __init__(self, node: str | None, prompt: dict[str, Any] | None) -> None:
        self.node, self.prompt = node, prompt or {}
        self._bar: Any = None

    def given(self) -> set[str]:
        """Names of the inputs that the workflow gives this node."""
        return set(self.prompt.get(self.node or "", {}).get("inputs", {}))

    def progress(self, done: int, total: int) -> None:
        from comfy.utils import ProgressBar

        if self._bar is None:
            self._bar = ProgressBar(total)
        self._bar.update_absolute(done, total)

    def check(self) -> None:
        """Raise what ends the prompt when the user interrupted it."""
        from comfy.model_management import throw_exception_if_processing_interrupted

        throw_exception_if_processing_interrupted()

    def note(self, text: str) -> None:
        import logging

        logging.getLogger("sonic_ms").warning("sonic_ms: %s", text)

    def temporary(self) -> Path:
        """Folder that ComfyUI empties when it starts."""
        import folder_paths

        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def output(self, prefix: str, size: tuple[int, int]) -> tuple[Path, str, int, str]:
        """(folder, name, counter, folder below the output folder) for a prefix, as all nodes that save do it."""
        import folder_paths

        root = folder_paths.get_output_directory()
        folder, name, counter, below, _ = folder_paths.get_save_image_path(prefix, root, *size)
        return Path(folder), name, counter, below

    def video(self, path: Path) -> Any:
        """VIDEO of a file."""
        try:
            from comfy_api.latest import InputImpl

            return InputImpl.VideoFromFile(str(path))
        except ImportError:  # before there was a second interface for nodes
            from comfy_api.input_impl import VideoFromFile

            return VideoFromFile(str(path))

    def metadata(self, path: str) -> dict[str, str]:
        """What an mp4 says of itself; {} for another kind of video. Raises NodeError."""
        import av

        try:
            with av.open(path) as container:
                return dict(container.metadata) if "mp4" in container.format.name else {}
        except Exception as error:  # PyAV's errors are OSErrors, ValueErrors and others
            raise NodeError(f"the video {path} cannot be read ({' '.join(str(error).split())})") from None

    def free_memory(self) -> int:
        """Bytes."""
        import psutil

        return psutil.virtual_memory().available


def model_folders() -> list[str]:
    """Folders in models/sonic_ms, of models and of bundles."""
    import folder_paths

    roots = folder_paths.folder_names_and_paths.get(FOLDER, ([],))[0]
    return sorted(path.name for root in roots if Path(root).is_dir() for path in Path(root).iterdir() if path.is_dir())


def model_path(name: str) -> str | None:
    """Path of one of `model_folders`."""
    import folder_paths

    roots = folder_paths.folder_names_and_paths.get(FOLDER, ([],))[0]
    return next((str(Path(root, name)) for root in roots if Path(root, name).is_dir()), None)


def has_node(name: str) -> bool:
    """Whether another extension has registered a node of this name already."""
    import sys

    nodes = sys.modules.get("nodes")
    return name in getattr(nodes, "NODE_CLASS_MAPPINGS", {})


def announce_models() -> None:
    """Tell ComfyUI of the folder models/sonic_ms."""
    try:
        import folder_paths
    except ImportError:  # outside ComfyUI
        return
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


FOLDER = "sonic_ms"
