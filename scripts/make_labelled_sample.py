"""Cut the labelled images of the tests out of EuroSAT: 40 train and 20 val images of each class.

python scripts/make_labelled_sample.py eurosat_subset_4000.tar.xz tests/data/eurosat_600.zip
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path

PER_CLASS = {"train": 40, "val": 20}


def main(source: Path, target: Path) -> None:
    """Write the archive, with the same bytes each time."""
    content = {}
    with tarfile.open(source, "r|xz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                content[member.name] = file.read()
    rows = list(csv.DictReader(io.StringIO(content["index.csv"].decode())))
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["path"]):
        groups[row["class"], row["split"]].append(row)
    chosen = [
        group[i * len(group) // PER_CLASS[split]]
        for (_, split), group in sorted(groups.items())
        for i in range(PER_CLASS[split])
    ]
    index = io.StringIO()
    writer = csv.DictWriter(index, ["path", "class", "split"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(chosen)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as made:
        made.writestr(zipfile.ZipInfo("index.csv"), index.getvalue())
        for row in chosen:
            made.writestr(zipfile.ZipInfo(row["path"]), content[row["path"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
