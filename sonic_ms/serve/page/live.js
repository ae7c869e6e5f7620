// The chosen face speaks while one speaks into the microphone, or while the chosen voice is played.

import { knownKey, Problem } from "./api.js";
import { call, played } from "./call.js";
import { chosenOptions } from "./options.js";
import { chosenPhoto, complainPhoto } from "./photo.js";
import { say, showProblem } from "./texts.js";
import { chosenVoice } from "./voice.js";

const OF_RECORDINGS = ["duration", "lip_sync_correction", "align_offset"]; // options that need a whole one
const find = (id) => document.getElementById(id);
let now = null; // {call, sound} of the session
let agreed = async () => false;

/** ask: promises whether the user agrees to a text. */
export function startLive(ask) {
  agreed = ask;
  find("live-open").hidden = !window.RTCPeerConnection;
  find("live-open").addEventListener("click", open);
  find("live-close").addEventListener("click", () => find("live").close());
  find("live").addEventListener("close", () => stop());
  find("live-microphone").addEventListener("click", () => listen());
  find("live-voice").addEventListener("click", () => play());
  find("live-interrupt").addEventListener("click", () => now?.call.interrupt());
  find("live-stop").addEventListener("click", () => stop());
}

async function open() {
  const photo = await chosenPhoto();
  if (!photo.upload) {
    complainPhoto(new Problem(0, { code: "photo_missing" }));
    return find("photo-choose").focus();
  }
  find("live-voice").hidden = !chosenVoice();
  showProblem(find("live-error"), null);
  say(find("live-status"), "");
  find("live").showModal();
}

async function listen(consent = false) {
  try {
    begin(await navigator.mediaDevices.getUserMedia({ audio: true }), null, consent);
  } catch {
    showProblem(find("live-error"), new Problem(0, { code: "no_microphone" }));
  }
}

/** The chosen voice, as if it were spoken now. */
async function play(consent = false) {
  try {
    const sound = await played(chosenVoice());
    begin(sound.stream, sound, consent);
  } catch {
    showProblem(find("live-error"), new Problem(0, { code: "audio_error" }));
  }
}

function running(yes) {
  find("live-interrupt").disabled = find("live-stop").disabled = !yes;
  find("live-microphone").disabled = find("live-voice").disabled = yes;
}

function stop(key = "live.stopped") {
  if (!now) return;
  now.call.close();
  now.sound?.close();
  now = null;
  running(false);
  say(find("live-status"), key);
}

/** Open a session for a stream of sound; sound: the voice it comes from, when it is no microphone. */
async function begin(stream, sound = null, consent = false) {
  const photo = await chosenPhoto();
  const options = chosenOptions();
  for (const name of OF_RECORDINGS) delete options[name];
  if (!options.face_box && photo.face !== null) options.face = photo.face;
  showProblem(find("live-error"), null);
  say(find("live-status"), "live.connecting");
  running(true);
  const address = new URL("v1/live", location.href.replace(/^http/, "ws"));
  now = {
    sound,
    call: call(address, stream, find("live-face"), {
      first: { way: "call", image: photo.upload, key: knownKey(), options, consent },
      speaking: () => say(find("live-status"), "live.speaking"),
      connected: () => sound?.play(),
      refused: async (message) => {
        stop("");
        if (message.kind !== "needs_consent") {
          showProblem(find("live-error"), new Problem(0, { code: message.kind, detail: message.message }));
        } else if (await agreed(message.policy_text)) {
          sound ? play(true) : listen(true);
        }
      },
      ended: () => stop(),
    }),
  };
}
