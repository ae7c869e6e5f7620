// The voice: a file, dropped or chosen, or a recording by the microphone.

import { Problem } from "./api.js";
import { say, showProblem } from "./texts.js";

// mp4 first: Safari says that it can record webm, and fails.
const FORMATS = [["audio/mp4", "m4a"], ["audio/webm;codecs=opus", "webm"], ["audio/ogg;codecs=opus", "ogg"]];
const LONGEST = 600; // seconds of a recording
const find = (id) => document.getElementById(id);
const state = { file: null, address: null, recorder: null };

/** The File of the voice, or null. */
export function chosenVoice() {
  return state.file;
}

export function complainVoice(problem) {
  showProblem(find("voice-error"), problem);
}

export function startVoice() {
  find("voice-choose").addEventListener("click", () => find("voice-file").click());
  find("voice-file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) takeVoice(file);
  });
  const able = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
  find("record").hidden = !able;
  if (!able) say(find("voice-status"), "voice.unable");
  find("record").addEventListener("click", () => (state.recorder ? state.recorder.stop() : record()));
}

/** Keep a recording and let it be heard. */
export function takeVoice(file) {
  if (state.address) URL.revokeObjectURL(state.address);
  state.file = file;
  state.address = URL.createObjectURL(file);
  find("voice-sound").src = state.address;
  find("voice-sound").hidden = false;
  complainVoice(null);
  say(find("voice-status"), "voice.have", { name: file.name });
}

async function record() {
  complainVoice(null);
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch {
    return complainVoice(new Problem(0, { code: "no_microphone" }));
  }
  const [type, ending] = FORMATS.find(([one]) => MediaRecorder.isTypeSupported(one)) ?? ["", "bin"];
  const recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
  const parts = [];
  const stopMeter = meter(stream);
  const started = performance.now();
  const clock = setInterval(() => {
    const seconds = Math.floor((performance.now() - started) / 1000);
    find("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (seconds >= LONGEST) recorder.stop();
  }, 250);
  state.recorder = recorder;
  say(find("record"), "voice.stop");
  say(find("voice-status"), "voice.recording");
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    clearInterval(clock);
    stopMeter();
    for (const track of stream.getTracks()) track.stop();
    state.recorder = null;
    find("clock").textContent = "";
    say(find("record"), "voice.record");
    takeVoice(new File(parts, `recording.${ending}`, { type: recorder.mimeType }));
  });
  recorder.start();
}

/** Show how loud it is while a stream runs; returns the function that ends it. */
function meter(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  find("level").hidden = false;
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    find("level").value = Math.min(1, 4 * Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length));
  }, 100);
  return () => {
    clearInterval(timer);
    context.close();
    find("level").hidden = true;
  };
}
