"""sonic_ms: one portrait and one speech recording become a talking video, on Huawei Ascend and on any CPU.

model = sonic_ms.load_model("sonic-edge")
video = model.generate(image="portrait.jpg", audio="speech.wav")
sonic_ms.save_video(video, "talk.mp4")
curves = sonic_ms.articulate("speech.wav")  # of the mouth alone: {"open": (n,), ...}, 25 a second
"""

__version__ = "0.1.0"
__all__ = ["articulate", "load_model", "save_video"]


def __getattr__(name: str) -> object:
    """Import on first use: `import sonic_ms` must neither load MindSpore nor OpenCV."""
    if name == "load_model":
        from sonic_ms.pipeline import load_model

        return load_model
    if name == "articulate":
        from sonic_ms.edge.articulate import articulate

        return articulate
    if name == "save_video":
        from sonic_ms.labels.save import save_video

        return save_video
    raise AttributeError(f"module 'sonic_ms' has no attribute {name!r}")
