"""Record what the package does, and compare two recordings.

python -m tests.reference.recording take before.npz      # on the tree before a change
python -m tests.reference.recording compare before.npz after.npz
python -m tests.reference.recording keep before.npz      # the small part that the tests compare with
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from tests.reference.recording.behaviour import VERSIONS, checkpoint_of, everything
from tests.reference.recording.kept import CHECKPOINT, KEPT, differences, part_of, read, write, write_part


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("action", choices=["take", "compare", "keep"])
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.action == "take":
        with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write({**everything(Path(root)), **VERSIONS}, arguments.files[0])
        return 0
    if arguments.action == "keep":
        write_part(part_of(read(arguments.files[0])), KEPT)
        with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CHECKPOINT.write_bytes(checkpoint_of("flat", Path(root)).read_bytes())
        return 0
    found = differences(read(arguments.files[0]), read(arguments.files[1]))
    print("\n".join(found) or "No difference.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
