"""What Torch's archives hold."""

import zipfile
from pathlib import Path


def records(path: Path) -> dict[str, bytes]:
    """What an archive holds, but for the names that depend on the file's own."""
    with zipfile.ZipFile(path) as archive:
        return {
            name.partition("/")[2]: archive.read(name)
            for name in archive.namelist()
            if not name.endswith((".debug_pkl", "serialization_id"))
        }
