"""What a viewer would check, measured on a finished video: length, sync, lip closures, seams, sharpness, blinks, drift.

Everything is found on the decoded frames, the recording and the photo; nothing comes from inside a generator. The video
is read as a stream: what is kept of a frame is about forty numbers.

Landmarks are MediaPipe's mesh (face.py), and its limits are the limits of these figures:
- Closed lips do not measure 0. The inner lip contours of closed mouths lie -0.3 to 2.1 % of the face height apart,
  different for every person, so each clip's opening is counted from a zero of its own: what the photo measures when
  its mouth is closed (at most CLOSED_AT_MOST), otherwise the clip's 2nd percentile, but never more than CLOSED_AT_MOST.
  A mouth from an open photo that always stays open further than CLOSED_AT_MOST is therefore still seen to do so, a
  smaller gap is not. The zero and the reading of the photo are among the figures.
- The mesh hardly sees closed eyes: its eye aspect ratio falls by 3 to 7 % when the lids meet. Blinks are measured on
  the pixels instead: how little each eye, turned upright and scaled, correlates with the same eye of the photo.
"""

import numpy as np

from sonic_ms.evaluate.figures import figure, format_table
from sonic_ms.evaluate.frames import Photo, fit_photo, lip_gap, measure_frames
from sonic_ms.evaluate.pictures import eye_figures, face_figures, picture_figures
from sonic_ms.evaluate.sound import best_lag, mouth_figures, read_phonemes
from sonic_ms.face import detect
from sonic_ms.media.audio import FPS, SAMPLE_RATE, frame_count, load_audio, speech_envelope, voice_activity
from sonic_ms.media.ffmpeg import read_header
from sonic_ms.media.image import load_image
from sonic_ms.media.video import probe

__all__ = ["best_lag", "evaluate", "format_table", "lip_gap", "read_phonemes"]

AAC_FRAME = 1024  # samples
STILL_HEAD = 0.3  # pixels the head is off its place in the photo, median, below which it counts as held still


def evaluate(video, audio, source, phonemes=None, still_head=None, analyzer=None):
    """Measure a talking video.

    Args:
        video: path of the mp4.
        audio: the recording it was made from; path or array as for audio.load_audio.
        source: the photo it was made from; path or array as for image.load_image.
        phonemes: path of a JSON list of {"ipa": str, "start": seconds, "end": seconds}, or that list; "" is silence.
        still_head: whether motion_scale was 0, which some bars are for; None finds out by measuring.
        analyzer: a detect.FaceAnalyzer to use again.
    Returns:
        {name: figure}; a figure is a dict with `label`, `value` (number or None), `bar` (text), `passed` (True, False,
        or None where the bar does not apply), `note`, and for figures that are shares of something `items`: the list of
        single values, so that several clips can be put together.
    Raises:
        InputMissingError, AudioError, ImageError: unreadable inputs. UsageError: phonemes malformed, or a photo of
        other proportions than the video. FaceError: no face in the photo or in any frame.
    """
    samples = load_audio(audio)
    phones = None if phonemes is None else read_phonemes(phonemes)
    info = probe(video)
    analyzer = analyzer or detect.FaceAnalyzer()
    photo = Photo(fit_photo(load_image(source), (info.width, info.height)), analyzer)
    clip = measure_frames(video, info.frames, photo, analyzer)
    voiced = voice_activity(samples)
    if still_head is None:
        still_head = bool(np.median(clip.head) < STILL_HEAD)
    figures = {}
    figures |= _length_figures(video, info, samples)
    figures |= face_figures(clip)
    figures |= mouth_figures(clip.opening, photo.opening, speech_envelope(samples), voiced, phones)
    figures |= picture_figures(clip, photo, voiced, still_head)
    figures |= eye_figures(clip, info.frames / FPS, still_head)
    return figures


def _length_figures(video, info, samples):
    seconds = len(samples) / SAMPLE_RATE
    expected = frame_count(len(samples))
    off = abs(info.audio_seconds - seconds)
    header = read_header(video)
    tolerance = AAC_FRAME / ((header and header.sample_rate) or SAMPLE_RATE)
    rate = f"{seconds:.3f} s of audio, {info.fps:g} frames a second"
    return {
        "frames": figure(
            "frames", info.frames, f"= {expected}", info.frames == expected and abs(info.fps - FPS) < 0.01, rate
        ),
        "audio_length": figure(
            "audio stream, seconds off", off, f"<= {tolerance:.3f}", off <= tolerance + 1e-6, "one AAC frame"
        ),
    }
