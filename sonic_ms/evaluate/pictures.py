"""The figures that need the pictures alone: face, borders, sharpness, drift, eyes."""

import numpy as np

from sonic_ms.evaluate.figures import figure
from sonic_ms.evaluate.frames import DRIFT_FROM, DRIFT_TO
from sonic_ms.media.audio import FPS

BLINK_WINDOW = 1.5  # seconds: running median that the eye is compared with
BLINK_DROP = 0.12  # of correlation; still eyes stay within 0.06 while the head sways
BLINK_NOISE = 6.0  # times the clip's own noise (median absolute deviation)
BLINK_EDGE = 0.2  # of a blink's depth: between these two moments it lasts
MIN_BLINK_CLIP = 20.0  # seconds; in less a rate says nothing
MIN_DRIFT_CLIP = 5.0  # seconds


def face_figures(clip):
    """Whether there is a face in every frame, and how far it moves. clip: frames.Clip."""
    n = len(clip.opening)
    return {
        "face_found": figure("frames with a face", n - clip.missing, f"= {n}", clip.missing == 0),
        "head_motion": figure("head off its place, px", np.median(clip.head), note="median, at a short side of 512"),
    }


def picture_figures(clip, photo, voiced, still_head):
    """What should stay as in the photo. clip: frames.Clip; photo: frames.Photo; voiced: bool (n,) a frame."""
    figures = {}
    only_still = "" if still_head else "for motion_scale 0; here the head moves"
    outside, upper = clip.ssim.T
    at = int(np.argmin(outside))
    figures["ssim_min"] = figure(
        "outside the lower face, SSIM, worst frame", outside.min(), ">= 0.98",
        outside.min() >= 0.98 if still_head else None, only_still or f"frame {at}",
    )  # fmt: skip
    figures["ssim_mean"] = figure("outside the lower face, SSIM, mean", outside.mean())
    figures["ssim_upper_face"] = figure(
        "eyes, brows and nose, SSIM, worst frame", upper.min(), note=f"mean {upper.mean():.3f}"
    )
    ratio, step, note = photo.seam.result()
    figures["seam"] = figure("paste border against 20 px further in", ratio, "<= 1.2", ratio and ratio <= 1.2, note)
    figures["seam_step"] = figure("step across the paste border, grey levels", step)
    n = min(len(voiced), len(clip.mouth_sharpness))
    speaking = clip.mouth_sharpness[:n][voiced[:n]]
    speaking = speaking if len(speaking) else clip.mouth_sharpness
    value = speaking.mean() / max(photo.mouth_sharpness, 1e-6)
    figures["mouth_sharpness"] = figure(
        "sharpness of the mouth, of the photo's", value, ">= 0.7", value >= 0.7, f"{len(speaking)} frames of speech"
    )
    figures |= _drift_figures(clip, still_head)
    return figures


def _drift_figures(clip, still_head):
    """A head between two pixels is softer than one on them, so that sway alone changes the sharpness by 6 %: its bar is
    for a head held still."""
    seconds = len(clip.opening) / FPS
    if seconds < MIN_DRIFT_CLIP or not len(clip.early) or not len(clip.late):
        sharp = delta = None
        note = f"needs {MIN_DRIFT_CLIP:g} s"
    else:
        early, late = clip.early.mean(0), clip.late.mean(0)
        sharp, delta = late[0] / max(early[0], 1e-6), float(np.linalg.norm(late[1:] - early[1:]))
        note = f"at {min(DRIFT_TO, seconds - 0.5):.1f} s against {DRIFT_FROM:g} s, skin"
    lasting = sharp is not None and sharp >= 0.97 if still_head else None
    only_still = "" if still_head else ", bar for motion_scale 0"
    return {
        "drift_sharpness": figure("drift: sharpness", sharp, ">= 0.97", lasting, note + only_still),
        "drift_colour": figure("drift: colour, delta E", delta, "<= 1", delta is not None and delta <= 1, note),
    }


def find_blinks(eyes):
    """(start, end) in frames, fractional, of every blink in a series of eye correlations (n,), 1 = as in the photo.

    A blink is a dip below the running median of BLINK_WINDOW seconds by more than BLINK_DROP and BLINK_NOISE times the
    clip's noise; it lasts while the dip is deeper than BLINK_EDGE of its depth. Dips cut off by an end do not count,
    and neither do longer ones than half of the window, as the median follows them. Half-closed eyes still correlate
    well, so the first and the last 20 to 40 ms of a blink are not seen.
    """
    half = round(BLINK_WINDOW * FPS / 2)
    if len(eyes) < 2 * half:
        return []
    padded = np.pad(eyes, half, mode="reflect")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    dip = usual - eyes
    noise = 1.4826 * np.median(np.abs(dip - np.median(dip)))
    limit = max(BLINK_DROP, BLINK_NOISE * noise)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], dip > limit, [False]]).astype(np.int8)))
    blinks = []
    for first, last in zip(edges[::2], edges[1::2]):
        depth = BLINK_EDGE * dip[first:last].max()
        start, end = first, last - 1
        while start > 0 and dip[start] > depth:
            start -= 1
        while end < len(dip) - 1 and dip[end] > depth:
            end += 1
        if dip[start] > depth or dip[end] > depth or (blinks and start < blinks[-1][1]):
            continue
        start += (depth - dip[start]) / (dip[start + 1] - dip[start])
        end -= (depth - dip[end]) / (dip[end - 1] - dip[end])
        blinks.append((float(start), float(end)))
    return blinks


def eye_figures(clip, seconds, still_head):
    """Jitter of the eyes, and blinks of a clip `seconds` long."""
    jitter = steady = None
    if len(clip.eye_corners) > 2:
        jitter = np.linalg.norm(np.diff(clip.eye_corners, n=2, axis=0), axis=2).mean()
        steady = jitter <= 0.5 if still_head else None
    blinks = find_blinks(clip.eyes)
    rate = 60 * len(blinks) / seconds
    lengths = [(end - start) / FPS for start, end in blinks]
    in_range = float(np.mean([0.1 <= length <= 0.4 for length in lengths])) if lengths else None
    long_enough = seconds >= MIN_BLINK_CLIP and not still_head
    note = f"{len(blinks)} in {seconds:.1f} s" + (", head held still" if still_head else "")
    note += "" if seconds >= MIN_BLINK_CLIP else f"; a rate needs {MIN_BLINK_CLIP:g} s"
    lasting = f"{min(lengths):.2f} to {max(lengths):.2f} s" if lengths else "none"
    only_still = "" if still_head else "for motion_scale 0; here the head moves"
    return {
        "jitter": figure(
            "jitter of the eye corners, px", jitter, "<= 0.5", steady,
            only_still or "mean second difference at a short side of 512",
        ),
        "blinks": figure("blinks a minute", rate, "10 to 25", 10 <= rate <= 25 if long_enough else None, note),
        "blink_lengths": figure(
            "blinks of 0.1 to 0.4 s, share", in_range, "all", None if still_head else in_range == 1, lasting, lengths
        ),
    }  # fmt: skip
