"""What an installation of CANN says of itself."""


def cann_version(opp):
    """What the installation says of itself, or "unknown": the Version line of a version.info at or above opp."""
    for folder in (opp, opp.parent):
        path = folder / "version.info"
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.lower().startswith("version="):
                    return line.partition("=")[2].strip()
    return "unknown"
