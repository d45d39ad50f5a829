"""AA (arXiv 1904.09925): a convolution of which a share of the channels comes from self-attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import AA, Site
from harness.networks.attention.core import Core
from harness.networks.attention.relative import axis_products, check_grid


class MultiHead(nn.Module):
    """Softmax attention over all positions of a grid with relative positions (section 3), from queries, keys and values
    side by side, (batch, 2 dk + dv, height, width) to (batch, dv, height, width).

    Logits are q.k + q.r_rows[dy] + q.r_columns[dx]. The last two terms are appended to q, and the coordinates of a position,
    as ones among zeros, to k: one product then gives the exact sum, without a tensor of biases. `Core` does so on a CPU, the
    methods here on a GPU and for a compiler or an export.
    """

    def __init__(self, slot: AA, site: Site) -> None:
        super().__init__()
        self.heads, self.keys = slot.heads, slot.keys(site.channels)
        self.grid, self.pooled = slot.attended(site), slot.pools(site)
        self.rows: nn.Parameter | None = None
        self.columns: nn.Parameter | None = None
        if slot.position == "relative":
            height, width = site.grid
            self.rows = nn.Parameter(torch.empty(2 * height - 1, self.keys))
            self.columns = nn.Parameter(torch.empty(2 * width - 1, self.keys))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in self.parameters():
            nn.init.normal_(table, std=self.keys**-0.5)

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of q.k, of q.r for each row and column, and of the weights times the values; `channels` is dv."""
        reach = height + width if self.rows is not None else 0
        return height * width * (height * width * (self.heads * self.keys + channels) + reach * self.heads * self.keys)

    def forward(self, qkv: Tensor) -> Tensor:
        batch, _, height, width = qkv.shape
        if self.rows is not None:
            check_grid("AA", self.grid, qkv.shape[2:], "position='none'")
        if qkv.device.type == "cpu" and not qkv.is_meta and not torch.compiler.is_compiling():
            return self._by_hand(qkv)
        inner = self.heads * self.keys
        parts = torch.split(qkv.permute(0, 2, 3, 1), [inner, inner, qkv.shape[1] - 2 * inner], -1)
        query, key, value = (torch.unflatten(part, -1, (self.heads, -1)) for part in parts)
        query = query * self.keys**-0.5
        relative = self._relative(query)
        query, key, value = (part.permute(0, 3, 1, 2, 4) for part in (query, key, value))
        out = self._attended(query, key, value, relative)
        return out.view(batch, self.heads, height, width, -1).permute(0, 1, 4, 2, 3).flatten(1, 2)

    def _by_hand(self, qkv: Tensor) -> Tensor:
        """The core with a backward pass of its own, which keeps the maps for it where there will be one."""
        table = None
        if self.rows is not None and self.columns is not None:
            table = torch.cat((self._table(self.rows), self._table(self.columns))).to(qkv.dtype)
        keep = torch.is_grad_enabled() and (qkv.requires_grad or (table is not None and table.requires_grad))
        attended: Tensor = Core.apply(qkv, table, self.heads, self.keys, keep)
        return attended

    def _relative(self, query: Tensor) -> tuple[Tensor, Tensor] | None:
        """q.r for each row and for each column of the grid, (batch, heads, H, W, H) and (batch, heads, H, W, W)."""
        if self.rows is None or self.columns is None:
            return None
        batch, height, width, heads, _ = query.shape
        by_row, by_column = query.transpose(0, 1).flatten(1, 3), query.permute(2, 0, 1, 3, 4).flatten(1, 3)
        rows = axis_products(by_row, self._table(self.rows)).view(height, batch, width, heads, height)
        columns = axis_products(by_column, self._table(self.columns)).view(width, batch, height, heads, width)
        return rows.permute(1, 3, 0, 2, 4), columns.permute(1, 3, 2, 0, 4)

    def _table(self, table: Tensor) -> Tensor:
        """The table of the attended grid: where the map is pooled, its rows are, alike."""
        if not self.pooled:
            return table
        odd = (len(table) + 1) // 2 % 2  # of an odd side the last offset stays, of an even side the last but one
        return F.avg_pool1d(table.mT[None], 3, 2, padding=odd, count_include_pad=False)[0].mT

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, relative: tuple[Tensor, Tensor] | None) -> Tensor:
        """(batch * heads, positions, features) from queries, keys and values of (batch, heads, H, W, features)."""
        if relative is not None and query.is_meta:
            return written_out(*(part.flatten(0, 1) for part in (query, key, value, *relative)))
        if relative is not None:
            query, key = torch.cat((query, *relative), -1), torch.cat((key, coordinates(key)), -1)
        return softmax_attention(*(part.flatten(0, 1).flatten(1, 2) for part in (query, key, value)))


def coordinates(grid: Tensor) -> Tensor:
    """Each position's row and column as ones among zeros, (batch, heads, H, W, H + W)."""
    batch, heads, height, width, _ = grid.shape
    rows, columns = (torch.eye(side, dtype=grid.dtype, device=grid.device) for side in (height, width))
    one = torch.cat((rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)), -1)
    return one.expand(batch, heads, -1, -1, -1)


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T) v of (batch, positions, features), fused on a GPU."""
    return fused(query, key, value) if query.is_cuda else (query @ key.mT).softmax(-1) @ value


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by torch's fused kernels, whose heads have one width, a multiple of 8, for queries, keys and values."""
    width = -(-max(query.shape[-1], value.shape[-1]) // 8) * 8
    query, key, padded = (F.pad(part, (0, width - part.shape[-1]))[:, None] for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, padded, scale=1.0)[:, 0, :, : value.shape[-1]]


def written_out(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same as the paper writes it: on the meta device, where operations are counted, it has the products of the
    mathematics, while elsewhere ones and zeros are multiplied as well."""
    maps, height, width, _ = query.shape
    logits = (query.flatten(1, 2) @ key.flatten(1, 2).mT).view(maps, height, width, height, width)
    weights = (logits + rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(3, 4).flatten(1, 2).softmax(-1)
    return weights @ value.flatten(1, 2)


class AAConv2d(nn.Module):
    """concat[3x3 convolution, attention] with `slot.values(outputs)` channels of attention, no biases (section 3).

    (batch, inputs, H, W) to (batch, outputs, ceil(H / stride), ceil(W / stride)). A map whose side is beyond `slot.largest`
    is attended at half its size, averaged before or after the projection (`slot.pooled`), and upsampled. Raises ConfigError
    on another grid than it was built for, unless it has no positions.
    """

    def __init__(self, slot: AA, site: Site) -> None:
        super().__init__()
        values, inner = slot.values(site.channels), slot.heads * slot.keys(site.channels)
        self.pooled, self.projects_whole, self.stride = slot.pools(site), slot.projects_whole, site.stride
        kept = site.channels - values
        self.kept = nn.Conv2d(site.inputs, kept, 3, site.stride, padding=1, bias=False) if kept else None
        self.qkv = nn.Conv2d(site.inputs, 2 * inner + values, 1, site.stride, bias=False)
        self.attend = MultiHead(slot, site)
        self.project = nn.Conv2d(values, values, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.project(self.attend(self._qkv(x)))
        if self.pooled:
            size = [-(-side // self.stride) for side in x.shape[2:]]
            attended = F.interpolate(attended, size, mode="bilinear")
        return attended if self.kept is None else torch.cat((self.kept(x), attended), dim=1)

    def _qkv(self, x: Tensor) -> Tensor:
        """Queries, keys and values on the attended grid."""
        if self.pooled and not self.projects_whole:
            x = averaged(x)
        qkv: Tensor = self.qkv(x)
        return averaged(qkv) if self.pooled and self.projects_whole else qkv


def averaged(x: Tensor) -> Tensor:
    """3x3 average pooling with a stride of two, over those of the neighbours that lie in the map."""
    return F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
