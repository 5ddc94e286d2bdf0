"""The last step of fastText's losses other than softmax: hierarchical softmax, and the sigmoid of the others."""

from __future__ import annotations

import numpy as np

from filters.arrays import Float32, Float64, Int64


def huffman_tree(counts: Int64) -> Int64:
    """int64[K - 1, 2]: children of the inner nodes K, K+1, ..., built as `HierarchicalSoftmaxLoss::buildTree` does."""
    labels = len(counts)
    total = np.full(2 * labels - 1, 10**15, np.int64)
    total[:labels] = counts
    children = np.zeros((labels - 1, 2), np.int64)
    leaf, node = labels - 1, labels
    for inner in range(labels, 2 * labels - 1):
        for side in range(2):
            if leaf >= 0 and total[leaf] < total[node]:
                children[inner - labels, side] = leaf
                leaf -= 1
            else:
                children[inner - labels, side] = node
                node += 1
        total[inner] = total[children[inner - labels]].sum()
    return children


def descend(tree: Int64, sums: Float32) -> Float32:
    """Probabilities of the leaves from the scores of the inner nodes (float32[n, K - 1])."""
    labels = len(tree) + 1
    with np.errstate(over="ignore"):
        right: Float64 = 1 / (1 + np.exp(-sums.T.astype(np.float64)))
    reach = np.ones((2 * labels - 1, len(sums)))
    for inner in range(len(tree) - 1, -1, -1):
        reach[tree[inner, 0]] = reach[labels + inner] * (1 - right[inner] + 1e-5)
        reach[tree[inner, 1]] = reach[labels + inner] * (right[inner] + 1e-5)
    return np.ascontiguousarray(reach[:labels].T, np.float32)


def tabulated_sigmoid(x: Float32) -> Float32:
    """fastText's sigmoid: 513 values from -8 to 8, 0 and 1 beyond."""
    steps = np.arange(513) * 16 / 512 - 8
    values = (1 / (1 + np.exp(-steps))).astype(np.float32)
    index = ((np.clip(x, -8, 8) + np.float32(8)) * np.float32(512) / np.float32(8) / np.float32(2)).astype(np.int64)
    sigmoid = values[index]
    sigmoid[x < -8] = 0
    sigmoid[x > 8] = 1
    return sigmoid
