"""Programs that once showed a false claim or a crash, shrunk; by what they do."""

from __future__ import annotations

from .programs import program

KEPT = {
    "a table read at the signs of units": program(
        {"x0": "2 4 -> 3 4", "p0": "3 4", "p1": "2 3"},
        "v0 = F.linear(x0, p0)",
        "v1 = p1[(v0 > 0).long()]",
        "return v1",
    ),
    "a parameter read by a layer and at signs": program(
        {"x0": "2 2 -> 3 2", "p0": "2 3", "p1": "4 3"},
        "v0 = x0 @ p0",
        "v1 = p0[(v0 > 0).long()]",
        "v2 = F.linear(v1, p1)",
        "return v2",
    ),
    "a table of a buffer read at computed places": program(
        {"x0": "2 4 -> 3 4", "b0": "5 2", "p0": "2 2"},
        "v0 = b0[torch.bucketize(x0, torch.linspace(-1, 1, 4))]",
        "v1 = v0 @ p0",
        "return v1",
    ),
    "a table of a buffer read at the signs of inputs": program(
        {"x0": "2 3 -> 3 3", "b0": "2 3", "b1": "4 3", "p0": "4"},
        "v0 = b0[(x0 > 0).long()]",
        "v1 = F.linear(v0, b1, p0)",
        "return v1",
    ),
    "a table read at argmax along another dimension": program(
        {"x0": "2 5 4 -> 3 5 4", "p0": "4 5 3", "p1": "4 3"},
        "v0 = F.conv1d(x0, p0, padding=1)",
        "v1 = p1[v0.argmax(-1)]",
        "return v1",
    ),
    "rows selected at argmax of a parameter": program(
        {"x0": "2 3 -> 3 3", "p0": "3 2", "p1": "2 3"},
        "v0 = p0.t()",
        "v1 = p1.index_select(0, v0.argmax(0).flatten())",
        "return v1, x0",
    ),
    "rows selected at argmax, groups in one": program(
        {"x0": "2 5 2 4 -> 3 5 2 4", "p0": "3 4", "p1": "3 2"},
        "v0 = F.linear(x0, p0)",
        "v1 = p1.index_select(0, v0.argmax(3).flatten())",
        "return v1",
    ),
    "a number looked up": program(
        {"x0": "2 2 -> 3 2", "p0": "5 2"},
        "v0 = (x0 * x0).sum()",
        "v1 = p0[torch.bucketize(v0, torch.linspace(-1, 1, 4))]",
        "return v1",
    ),
    "two units multiplied": program(
        {"x0": "2 4 -> 3 4", "p0": "4 4"},
        "v0 = F.linear(x0, p0)",
        "v1 = v0.unbind(1)[0] * v0.unbind(1)[2]",
        "return v1",
    ),
    "channels of a convolution multiplied": program(
        {"x0": "2 5 2 -> 3 5 2", "p0": "2 5 3"},
        "v0 = F.conv1d(x0, p0, padding=1)",
        "v1 = v0.unbind(1)[0] * v0.unbind(1)[0]",
        "return v1",
    ),
    "a bilinear form of one value": program(
        {"x0": "2 2 -> 3 2", "p0": "2 4", "p1": "3 4 4"},
        "v0 = x0 @ p0",
        "v1 = F.bilinear(v0, v0, p1)",
        "return v1",
    ),
    "units mixed by the softmax of a Gram product": program(
        {"x0": "2 1 2 -> 3 4 2", "p0": "2 3", "p1": "3 2", "p2": "2 3"},
        "v0 = x0 @ p0",
        "v1 = v0 @ (p1 @ p1.t()).softmax(1)",
        "v2 = F.linear(v1, p2)",
        "return v2",
    ),
    "units mixed by a Gram product": program(
        {"x0": "2 5 3 -> 3 5 3", "p0": "3 2", "p1": "2 4", "p2": "2 2"},
        "v0 = x0 @ p0",
        "v1 = v0 @ (p1 @ p1.t())",
        "v2 = F.linear(v1, p2)",
        "return v2",
    ),
    "a Gram product of a gain": program(
        {"x0": "2 5 -> 3 5", "p0": "5"},
        "v0 = torch.tanh(F.rms_norm(x0, (5,), p0))",
        "v1 = v0.mT @ v0",
        "return v1",
    ),
    "a sign through cosine and a convolution": program(
        {"x0": "2 3 3 2 -> 3 3 3 2", "p0": "4", "b0": "4 2", "p1": "3 3 3 3"},
        "v0 = F.linear(x0, b0, p0)",
        "v1 = torch.cos(v0)",
        "v2 = F.conv2d(v1, p1, padding=1)",
        "return v2",
    ),
    "a weight before a norm that is an output": program(
        {"x0": "2 3 -> 3 3", "b0": "2 3", "p0": "2 4", "p1": "4"},
        "v0 = F.linear(x0, b0) @ p0",
        "v1 = F.layer_norm(v0, (4,), p1, p1)",
        "return v1, p0",
    ),
    "a number added to a chunk": program(
        {"x0": "2 4 -> 3 4", "p0": ""},
        "v0 = x0.movedim(-1, 0)",
        "v1 = v0.contiguous().view(v0.shape[0], -1)",
        "v1.chunk(2, 0)[1].add_(p0)",
        "return v1",
    ),
    "a number added through a transposed view": program(
        {"x0": "2 3 -> 3 3", "p0": "3 2", "p1": ""},
        "v0 = x0 @ p0",
        "v0.transpose(0, 1).add_(p1)",
        "return v0",
    ),
    "a number added to a flat view": program(
        {"x0": "2 4 -> 3 4", "p0": "4 4", "p1": ""},
        "v0 = torch.mm(x0, p0)",
        "v0.view(-1).add_(p1)",
        "return v0",
    ),
    "units set to a number": program(
        {"x0": "2 5 2 -> 3 5 2", "p0": "4 2", "p1": ""},
        "v0 = F.linear(x0, p0)",
        "v0.narrow(-1, 0, 3)[...] = p1",
        "return v0",
    ),
    "values attended to that are buffers": program(
        {"x0": "2 3 3 -> 3 3 3", "p0": "4", "p1": "4 3", "b0": "1 3 4", "b1": "4 2"},
        "v0 = F.linear(x0, p1, p0)",
        "v1 = F.scaled_dot_product_attention(v0, b0, b0)",
        "v2 = v1 @ b1",
        "return v2",
    ),
    "a cosine with a number": program(
        {"x0": "2 3 -> 3 3", "p0": "", "p1": "2 3"},
        "v0 = F.cosine_similarity(x0.var(1), p0, dim=-1)",
        "v1 = p1[(v0 > 0).long()]",
        "return v1",
    ),
    "a query's weight where the example has one token": program(
        {"x0": "2 1 5 -> 3 3 5", "p0": "5 5"},
        "v0 = (x0 @ p0 @ x0.mT).softmax(-1) @ x0",
        "return v0",
    ),
    "causal attention where the example has one token": program(
        {"x0": "2 1 2 -> 3 3 2", "b0": "2 3", "p0": "3 3"},
        "v0 = x0 @ b0",
        "v1 = F.scaled_dot_product_attention(v0 @ p0, v0, v0, is_causal=True)",
        "return v1",
    ),
    "all units set to a number": program(
        {"x0": "2 3 -> 3 3", "p0": "4 3", "p1": ""},
        "v0 = F.linear(x0, p0)",
        "v0.view(-1)[...] = p1",
        "return v0",
    ),
    "a dropout in evaluation shares memory": program(
        {"x0": "2 5 4 -> 3 5 4", "p0": "4 4", "p1": "4 3"},
        "v0 = x0 @ p0",
        "v1 = F.dropout(v0, 0.5, False)",
        "v0.select(2, 1).neg_()",
        "v2 = v1 @ p1",
        "return v2",
    ),
    "a parameter times a buffer is the weight": program(
        {"x0": "2 3 -> 3 3", "b0": "2 1", "p0": "4 2"},
        "v0 = (x0.var(-1, keepdim=True) + 0.1).sqrt()",
        "v1 = F.linear(v0, p0 @ b0)",
        "return v1",
    ),
}
