"""What a training loop of the user's own learns from, where that is none of our data sets."""

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.errors import ConfigError
from harness.parts.part import Part

Side = Annotated[int, Field(ge=1)]


class OwnData(Part):
    """Data that a loop of the user's own reads or makes by itself: a name, and what the network sees of it.

        Study(trial="shapes_loop:run", data=OwnData(name="shapes", shape=(3, 48, 48), classes=4), ...)

    Costs are counted for one input of `shape`. What changes the data has to change this value, for it is in every key:
    data made by the loop's own module need nothing more (its source is in the key), data in files name them by `files`.
    """

    name: str
    shape: tuple[Side, Side, Side]
    """Channels, height and width of one input."""
    classes: Annotated[int, Field(ge=0)] = 0
    """What the network tells apart, for each input or for each point of it; 0: something else, for which a model of one's
    own is made without `classes` and may give whatever the loop can use."""
    train: Annotated[int, Field(ge=0)] = 0
    """Inputs to train and validate on, as the report says it; 0: it does not say."""
    files: str = ""
    """A pattern under the data folder (`scans/**/*.png`): what these files hold is in the key."""
    revision: str = ""
    """Anything else that tells these data from earlier ones of the name."""

    @model_validator(mode="after")
    def _well_named(self) -> Self:
        if not re.fullmatch(r"[A-Za-z0-9][\w .+-]{0,59}", self.name):
            raise ConfigError(f"OwnData.name = {self.name!r}: use letters, digits, spaces and . _ - (60 at most)")
        if self.files.startswith(("/", "~")) or ".." in self.files.split("/"):
            raise ConfigError(f"OwnData.files = {self.files!r}: write a pattern under the data folder, as in 'scans/*.png'")
        return self
