import torch
from torch import nn

from iadbe.layers.blocks.perceptron import perceptron


def test_hidden_layers_have_batch_norm_relu_and_dropout():
    network = perceptron([6, 5, 4], 3, dropout=0.25)
    kinds = [type(layer) for layer in network]
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
    assert kinds == [*hidden, *hidden, nn.Linear]
    assert {layer.p for layer in network if isinstance(layer, nn.Dropout)} == {0.25}
    assert network.eval()(torch.zeros(2, 6)).shape == (2, 3)
