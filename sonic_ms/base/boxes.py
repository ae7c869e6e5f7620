"""From the maps of YOLOv5-face to faces: decoding, thresholds, suppression of doubles. NumPy, no MindSpore."""

import numpy as np

OUTPUTS = 16  # an anchor: box 4, objectness 1, five landmarks 10, class 1
CONFIDENCE, OVERLAP = 0.5, 0.45  # upstream's thresholds: least score, largest intersection over union kept


def decode(maps, config):
    """Raw maps (1, 48, h, w) of each scale -> predictions (1, n, 16) in pixels of the network's input.

    Columns: centre x, y, width, height, objectness, five landmarks x, y, class score.
    """
    predictions = []
    for values, anchors, stride in zip(maps, config.anchors, config.strides):
        _, channels, h, w = values.shape
        count = channels // OUTPUTS
        raw = values.reshape(count, OUTPUTS, h, w).transpose(0, 2, 3, 1).astype(np.float32)  # (anchors, h, w, 16)
        size = np.asarray(anchors, np.float32).reshape(count, 1, 1, 2)
        rows, columns = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
        cell = np.stack([columns, rows], axis=-1).astype(np.float32)  # (h, w, 2)
        score = 1.0 / (1.0 + np.exp(-raw))
        out = np.empty_like(raw)
        out[..., 0:2] = (score[..., 0:2] * 2 - 0.5 + cell) * stride
        out[..., 2:4] = (score[..., 2:4] * 2) ** 2 * size
        out[..., 4] = score[..., 4]
        for column in range(5, 15, 2):
            out[..., column : column + 2] = raw[..., column : column + 2] * size + cell * stride
        out[..., 15] = score[..., 15]
        predictions.append(out.reshape(1, -1, OUTPUTS))
    return np.concatenate(predictions, axis=1)


def input_size(width, height, short=416):
    """Size the detector sees a width x height image at: short side to `short`, each side up to a multiple of 32."""
    scale = short / min(width, height)
    return tuple((int(side * scale) + 31) // 32 * 32 for side in (width, height))


def detect(predictions, scale_x, scale_y, confidence=CONFIDENCE, overlap=OVERLAP):
    """Predictions (1, n, 16) -> faces (m, 15) in pixels of the photo: x1, y1, x2, y2, score, five landmarks x, y.

    scale_x, scale_y: photo size / network input size. Best face first; a box that overlaps a better one is dropped.
    """
    found = predictions[0]
    score = found[:, 4] * found[:, 15]
    found, score = found[score >= confidence], score[score >= confidence]
    half = found[:, 2:4] / 2
    boxes = np.concatenate([found[:, 0:2] - half, found[:, 0:2] + half], axis=1)
    kept = nms(boxes, score, overlap)
    faces = np.concatenate([boxes[kept], score[kept, None], found[kept, 5:15]], axis=1)
    faces[:, [0, 2, *range(5, 15, 2)]] *= scale_x
    faces[:, [1, 3, *range(6, 15, 2)]] *= scale_y
    return faces


def nms(boxes, score, overlap):
    """Indices of the boxes (n, 4) to keep, best score first: greedy suppression by intersection over union."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-score, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        order = order[shared <= overlap * (area[best] + area[order] - shared)]
    return np.array(kept, int)
