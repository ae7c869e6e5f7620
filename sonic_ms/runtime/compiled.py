"""What MindSpore's front end makes of a Cell, kept in the cache folder: the next start loads it instead of compiling.

MindSpore names the graphs of a cache by the order in which a process compiles them, and gives a unit the graph of
another one when the order differs. So every unit has a folder of its own. The weights are not in it. A damaged file
MindSpore finds by itself, says so, and compiles anew.
"""

import contextlib
import hashlib
import importlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from sonic_ms import __version__
from sonic_ms.errors import AssetError
from sonic_ms.files.assets import cache_dir

KEPT = 24  # folders, the last used ones; a model has one for each unit, version and setting
SOURCES = Path(__file__).parents[1]


class CompiledGraphs:
    """Folders for the units of one table. about: whatever decides how they are compiled besides their shapes and the
    source: configs of the networks, precision."""

    def __init__(self, ms, about):
        self._ms, self._about = ms, f"{ms.__version__} {ms.get_context('device_target')} {__version__} {about}"
        self._source = None

    @contextlib.contextmanager
    def kept(self, unit):
        """While this lasts, MindSpore loads the graph of a Unit from its folder, or puts it there."""
        folder = self._folder(unit)
        if folder is None:
            yield
            return
        # MindSpore would read the program that was started and import what that imports, to know whether its sources
        # changed: it fails under `python -c`, and the sources are in the folder's name already.
        api = importlib.import_module("mindspore.common.api")
        program, api.entry_script_path = api.entry_script_path, None
        self._ms.set_context(enable_compile_cache=True, compile_cache_path=str(folder))
        try:
            yield
        finally:
            self._ms.set_context(enable_compile_cache=False)
            api.entry_script_path = program

    def _folder(self, unit):
        """Path, or None where nothing can be kept, which is said once."""
        digest = hashlib.sha256(f"{self._about} {unit.name} {unit.inputs} {unit.outputs} {self._sources()}".encode())
        try:
            root = cache_dir() / "compiled"
            folder = root / f"{unit.name}-{digest.hexdigest()[:16]}"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                raise OSError(0, "it belongs to another user")  # whose graphs would be run
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)
            forget(root)
        except (OSError, AssetError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            warnings.warn(f"no compiled graphs are kept ({reason}); MindSpore compiles at each start", stacklevel=2)
            return None
        return folder

    def _sources(self):
        """Digest of the package's own code: MindSpore looks at some of the files only."""
        if self._source is None:
            total = hashlib.sha256()
            for path in sorted(SOURCES.rglob("*.py")):
                total.update(path.read_bytes())
            self._source = total.hexdigest()
        return self._source


def forget(root):
    """Remove all but the KEPT folders that were used last."""
    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in folders[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
