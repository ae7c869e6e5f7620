"""Import every module of the package, and fail if one needs more than the minimal dependencies.

    python -m bench.check_imports

Run it in an environment without extras (no torch, onnx, matplotlib). Also checks that `import sonic_ms` stays light.
"""

import importlib
import pkgutil
import subprocess
import sys

EXTRA = {  # folders that need an extra
    "sonic_ms.live": {"fastapi", "aiortc"},
    "sonic_ms.serve": {"fastapi", "starlette", "anyio", "uvicorn", "prometheus_client", "limits", "python_multipart"},
}
HEAVY = ("mindspore", "torch", "cv2", "librosa", "numpy")


def main():
    names = []
    for package_name in ("sonic_ms", "sonic_ms.convert"):
        package = importlib.import_module(package_name)
        names += [module.name for module in pkgutil.walk_packages(package.__path__, package_name + ".")]
    failed = []
    for name in names:
        if name.endswith("__main__"):
            continue
        try:
            importlib.import_module(name)
        except ImportError as error:
            if any(name.startswith(f"{folder}.") and error.name in needs for folder, needs in EXTRA.items()):
                continue
            failed.append(f"{name}: {error}")
    code = f"import sys, sonic_ms.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    if loaded != "[]":
        failed.append(f"sonic_ms.cli imports {loaded} before it is needed")
    print("\n".join(failed) or f"{len(names)} modules import with the minimal dependencies")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
