"""Pictures of one shade."""

from pathlib import Path

from PIL import Image


def picture(path: Path, shade: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode == "L" else (shade,) * len(mode)).save(path)
