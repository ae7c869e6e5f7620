"""`sonic-ms data build`: talking-head videos -> checked clips in MindRecord shards, ready for training.

sources.py finds the videos, decode.py reads them at 25 fps and 16 kHz, tracking.py measures every frame, filters.py
cuts and judges clips, clips.py makes their records, shards.py stores them, build.py does it all and keeps the index.
"""
