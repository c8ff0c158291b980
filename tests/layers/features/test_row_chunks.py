"""Chunks of rows."""

import torch

from iadbe.layers.features.row_chunks import row_chunks


def test_rows_come_in_chunks():
    assert [chunk.tolist() for chunk in row_chunks(torch.arange(5), 2)] == [[0, 1], [2, 3], [4]]


def test_a_graph_computes_all_rows_at_once():
    class Doubled(torch.nn.Module):
        def forward(self, rows):
            return torch.cat([2 * chunk for chunk in row_chunks(rows, 2)])

    rows = {"rows": {0: torch.export.Dim("rows", min=2, max=64)}}
    program = torch.export.export(Doubled(), (torch.arange(5),), dynamic_shapes=rows).module()
    assert program(torch.arange(9)).tolist() == (2 * torch.arange(9)).tolist()
