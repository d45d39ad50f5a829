"""Lambda layer (Bello, arXiv 2102.08602): a linear map for each position, from content and from nearby positions.

timm's own gives as many channels as it takes, and multiplies the queries with both lambdas apart; here they are added first.
"""

from torch import Tensor, nn

from harness.config import LambdaLayer, Site
from harness.networks.attention.pooling import strided


class Lambdas(nn.Module):
    """Queries applied to lambdas: content (batch, keys, values) of all positions plus `near` of each position's own.

    Takes queries (batch, heads * keys, H, W), keys (batch, keys, H, W), values (batch, values, H, W) and near
    (batch * values, keys, H, W), gives (batch, heads * values, H, W).
    """

    def __init__(self, slot: LambdaLayer) -> None:
        super().__init__()
        self.heads, self.keys = slot.heads, slot.keys

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of the content lambda and of applying each position's lambda to its queries."""
        return height * width * self.keys * (channels // self.heads + channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, near: Tensor) -> Tensor:
        batch, _, height, width = queries.shape
        content = keys.flatten(2).softmax(-1) @ values.flatten(2).mT
        lambdas = near.view(batch, -1, self.keys, height * width).permute(0, 3, 2, 1) + content[:, None]
        of_heads = queries.reshape(batch, self.heads, self.keys, -1).permute(0, 3, 1, 2)
        return (of_heads @ lambdas).permute(0, 2, 3, 1).reshape(batch, -1, height, width)


class LambdaConv2d(nn.Module):
    """(batch, inputs, H, W) to (batch, channels, ceil(H / stride), ceil(W / stride)) in place of a 3x3 convolution."""

    def __init__(self, slot: LambdaLayer, site: Site) -> None:
        super().__init__()
        queries, values = slot.heads * slot.keys, site.channels // slot.heads
        self.sizes = queries, slot.keys, values
        self.project = nn.Conv2d(site.inputs, sum(self.sizes), 1, bias=False)
        self.norm_queries, self.norm_values = nn.BatchNorm2d(queries), nn.BatchNorm2d(values)
        self.near = nn.Conv2d(1, slot.keys, slot.reach, padding=slot.reach // 2)
        self.apply_lambdas = Lambdas(slot)
        self.pool = strided(site.stride)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.project(x).split(self.sizes, dim=1)
        queries, values = self.norm_queries(queries), self.norm_values(values)
        near = self.near(values.reshape(-1, 1, *values.shape[2:]))
        out: Tensor = self.pool(self.apply_lambdas(queries, keys, values, near))
        return out
