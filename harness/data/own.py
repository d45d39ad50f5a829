"""Data that a loop of the user's own reads by itself: known here by what the study says, and by what its files hold."""

from pathlib import Path

from harness.config import OwnData
from harness.cost import Shape
from harness.data.cache import Progress, known, name_of
from harness.data.folders import UNREADABLE, digests
from harness.data.pictures import DataInfo
from harness.errors import DataError


def own_info(own: OwnData, root: Path, progress: Progress | None = None) -> DataInfo:
    """What a study says of such data; raises DataError where the files it names are not there."""
    said = own.model_dump(mode="json", exclude={"train"})
    return DataInfo(
        own.name, name_of(said, _content(own, root, progress)), Shape(*own.shape, own.classes), own.train, 0, own=True
    )


def _content(own: OwnData, root: Path, progress: Progress | None) -> str:
    """A hash of the names and contents of the files, remembered as long as names, sizes and times stay."""
    if not own.files:
        return ""
    files = sorted(file for file in root.glob(own.files) if file.is_file())
    if not files:
        raise DataError(f"OwnData.files = {own.files!r}: no file under {root} fits; name the folder by --data")
    names = [str(file.relative_to(root)) for file in files]
    looks = [(name, (found := file.stat()).st_size, found.st_mtime_ns) for name, file in zip(names, files)]

    def content() -> str:
        hashes = digests(files, progress)
        if UNREADABLE in hashes:
            raise DataError(f"{files[hashes.index(UNREADABLE)]}: cannot be read; mend or remove it, or narrow OwnData.files")
        return name_of(names, hashes)

    return known(looks, content)
