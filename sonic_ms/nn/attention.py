"""Attention in portable operators: no matrix of scores exceeds a set size, and none is kept for the backward pass.

q, k, v: (batch, heads, tokens, d); tokens of all heads: (batch, tokens, heads*d).
"""

import math

import mindspore as ms
from mindspore import nn, ops

from sonic_ms.nn.portable import add, columns_to_rows, rows_to_columns, softmax, spread


def split_heads(x, heads):
    """(b, tokens, heads*d) -> (b, heads, tokens, d)"""
    b, tokens, channels = x.shape
    return ops.reshape(columns_to_rows(x, heads), (b, heads, tokens, channels // heads))


def merge_heads(x):
    """(b, heads, tokens, d) -> (b, tokens, heads*d)"""
    b, heads, tokens, width = x.shape
    return rows_to_columns(ops.reshape(x, (b, heads * tokens, width)), heads)


def attention(q, k, v, max_scores):
    """softmax(q k^T / sqrt d) v: q (b, heads, n, d), k and v (b, heads, m, d) -> (b, heads, n, d).

    Queries are taken in blocks, first along b and then along n, so that no matrix of scores has more than
    `max_scores` elements. The scale is applied to q, so that half precision cannot overflow in the product.
    """
    q = _scaled(q, 1.0 / math.sqrt(q.shape[-1]))
    b = q.shape[0]
    rows, block = query_blocks(q.shape, k.shape[2], max_scores)
    if rows == b:
        return _attend(q, k, v, block)
    out = ()
    for i in range(0, b, rows):
        some = q[i : i + rows]
        out = (*out, _attend(ops.depend(some, out[-1]) if out else some, k[i : i + rows], v[i : i + rows], block))
    return ops.concat(out, 0)


def _scaled(x, factor):
    """x times a number, in float32: see `add`."""
    return ops.cast(ops.cast(x, ms.float32) * factor, x.dtype)


@ops.constexpr
def query_blocks(shape, m, max_scores):
    """(batch entries, queries) that are attended to m keys at once; shape (b, heads, n, d) of the queries."""
    b, heads, n, _ = shape
    rows = max(1, min(b, max_scores // (heads * n * m)))
    return rows, max(1, min(n, max_scores // (rows * heads * m)))


def _attend(q, k, v, block):
    """Attention of scaled queries, `block` queries at a time."""
    n = q.shape[2]
    scores, mix = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul()
    if block >= n:
        return mix(softmax(scores(q, k)), v)
    out = ()
    for i in range(0, n, block):
        own = q[:, :, i : i + block]
        own = ops.depend(own, out[-1]) if out else own  # MindSpore would compute the scores of all blocks first
        out = (*out, mix(softmax(scores(own, k)), v))
    return ops.concat(out, 2)


class Attention(nn.Cell):
    """`attention` that keeps no scores for the backward pass, but computes each block of them again.

    At 25 frames of 512x512 the first level alone has 2e9 scores, and would keep them twice.
    """

    def __init__(self, max_scores):
        super().__init__()
        self.max_scores = max_scores

    def construct(self, q, k, v):
        return attention(q, k, v, self.max_scores)

    def bprop(self, q, k, v, out, change):
        scale = 1.0 / math.sqrt(q.shape[-1])
        b = q.shape[0]
        rows, block = query_blocks(q.shape, k.shape[2], self.max_scores)
        q = _scaled(q, scale)
        # of each query, what its row of scores shares: (b, heads, n, 1) in float32
        shared = ops.ReduceSum(keep_dims=True)(ops.cast(out, ms.float32) * ops.cast(change, ms.float32), -1)
        found, done = (), shared
        for i in range(0, b, rows):
            parts = [one if rows >= b else one[i : i + rows] for one in (q, k, v, change, shared)]
            done = _attend_backward(*parts, block, done)
            found = (*found, done)
        to_q, to_k, to_v = [ops.concat(tuple([one[j] for one in found]), 0) for j in range(3)]
        return _scaled(to_q, scale), to_k, to_v


def _attend_backward(q, k, v, change, shared, block, done):
    """Gradients of `_attend` to its scaled queries, keys and values, computed after `done`.

    No more than three matrices of scores are alive at once, because everything waits for what comes before it. Left to
    itself MindSpore computes the scores of all blocks before it uses any; and it takes `weights` for those of the
    forward pass, which it then keeps.
    """
    n = q.shape[2]
    scores, mix, gather = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul(), ops.BatchMatMul(transpose_a=True)
    to_q, to_k, to_v = (), None, None
    for i in range(0, n, block):
        own, push, mean = [x if block >= n else x[:, :, i : i + block] for x in (q, change, shared)]
        push, mean = ops.depend(push, done), ops.depend(mean, done)
        slope = ops.cast(scores(push, v), ms.float32)
        slope = slope - spread(mean, slope.shape)
        own = ops.depend(own, slope)
        weights = softmax(scores(own, k))  # (b, heads, block, m)
        slope = ops.cast(ops.cast(weights, ms.float32) * slope, q.dtype)
        for_q, for_k, for_v = mix(slope, k), gather(slope, own), gather(weights, push)
        to_q = (*to_q, for_q)
        to_k, to_v = (for_k, for_v) if i == 0 else (add(to_k, for_k), add(to_v, for_v))
        done = (for_q, to_k, to_v)
    return to_q[0] if block >= n else ops.concat(to_q, 2), to_k, to_v
