"""From an attention slot to its module: every kind that stands behind a convolution, in one place."""

from torch import nn

from harness.config import CBAM, ECA, Attention, Custom, SqueezeExcite
from harness.errors import ConfigError
from harness.networks.attention.adopted import cbam, eca, squeeze_excite
from harness.networks.custom import custom


def attention(slot: Attention, channels: int) -> nn.Module:
    """The module of a slot of `channels` channels, (batch, channels, height, width) to the same, initialised by itself."""
    match slot:
        case SqueezeExcite():
            return squeeze_excite(slot, channels)
        case ECA():
            return eca(slot, channels)
        case CBAM():
            return cbam(slot, channels)
        case Custom():
            return custom(slot, channels)
    raise ConfigError(f"{type(slot).__name__}: no module stands behind a convolution under this name")
