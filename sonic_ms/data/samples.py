"""The samples of a built folder, as training takes them."""

from collections import OrderedDict
from pathlib import Path

import numpy as np

from sonic_ms.data.index import Index
from sonic_ms.data.shards import ENCODED, LATENT_FPS, read_rows, unpack
from sonic_ms.errors import UsageError

KEPT = 32  # samples in memory


class Shards:
    """The samples of a built folder as the trainer takes them (train/clips.py): a sequence, read when it is asked for.

    Raises UsageError for a folder without finished clips or without networks' outputs, WeightsError for a shard that
    is not as long as the index says.
    """

    def __init__(self, folder):
        index = Index.open(folder)
        self.places = []
        for entry in index.shards():
            path = Path(folder) / entry["shard"]
            index.check_shard(entry)
            self.places += [(path, number) for number in range(len(entry["clips"]))]
        if not self.places:
            raise UsageError(f"{folder} holds no clip; see {index.path} for the reasons")
        if not index.header["model"]:
            raise UsageError(f"{folder} was built without --model: it holds pictures and sound, no latents to train on")
        self._samples = OrderedDict()

    def __len__(self):
        return len(self.places)

    def __getitem__(self, number):
        if number not in self._samples:
            path, row = self.places[number]
            names = ["id", "meta", "buckets", "audio", "mask", *ENCODED]
            sample = unpack(read_rows(path, [row], names)[0])
            sample["box"] = sample["meta"]["box"]
            sample["mask"] = sample["mask"].astype(np.float32) / 255
            sample["fps"] = LATENT_FPS
            self._samples[number] = sample
            if len(self._samples) > KEPT:
                self._samples.popitem(last=False)
        return self._samples[number]
