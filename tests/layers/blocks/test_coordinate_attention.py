import torch

from iadbe.layers.blocks.coordinate_attention import CoordinateAttention


def test_it_is_the_formula_of_the_paper():
    """Equations 4 to 8, position by position, in evaluation mode."""
    torch.manual_seed(0)
    layer = CoordinateAttention(5).eval()
    norm = layer.shared[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 5, 4, 3)
    found = layer(x)

    def hidden(pooled):  # (5,)
        z = layer.shared[0].weight[:, :, 0, 0] @ pooled + layer.shared[0].bias
        z = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        return z * (z + 3).clamp(0, 6) / 6

    def weight(convolution, pooled):
        return torch.sigmoid(convolution.weight[:, :, 0, 0] @ hidden(pooled) + convolution.bias)

    for b in range(2):
        for i in range(4):
            for j in range(3):
                row, column = x[b, :, i].mean(1), x[b, :, :, j].mean(1)
                expected = x[b, :, i, j] * weight(layer.rows, row) * weight(layer.columns, column)
                torch.testing.assert_close(found[b, :, i, j], expected)


def test_the_hidden_layer_has_at_least_eight_channels():
    assert CoordinateAttention(64).shared[0].out_channels == 8
    assert CoordinateAttention(512).shared[0].out_channels == 16
