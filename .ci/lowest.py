"""Print the lowest version of every dependency that a wheel allows, as constraints for pip: lowest.py WHEEL

A dependency without a lower bound is an error: what is not tried is not promised.
"""

import re
import sys
import zipfile
from email import message_from_bytes


def main(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        requires = message_from_bytes(archive.read(name)).get_all("Requires-Dist")
    for line in requires:
        if "extra ==" in line:
            continue
        package, bound = re.match(r"[\w.-]+", line)[0], re.search(r">=\s*([\w.]+)", line)
        if not bound:
            sys.exit(f"{line}: no lower bound")
        print(f"{package}=={bound[1]}")


if __name__ == "__main__":
    main(sys.argv[1])
