// The chosen face speaks while one speaks: a microphone or the chosen voice goes to the service by WebRTC, face and voice
// come back. The WebSocket carries what has to be agreed, and its end is the session's end.

import { knownKey, Problem } from "./api.js";
import { chosenOptions } from "./options.js";
import { chosenPhoto, complainPhoto } from "./photo.js";
import { say, showProblem } from "./texts.js";
import { chosenVoice } from "./voice.js";

const OF_RECORDINGS = ["duration", "lip_sync_correction", "align_offset"]; // options that need a whole one
const GATHERING = 2000; // milliseconds for the addresses of this computer
const find = (id) => document.getElementById(id);
let now = null; // {socket, connection, stream, context} of the session
let agreed = async () => false;

/** ask: promises whether the user agrees to a text. */
export function startLive(ask) {
  agreed = ask;
  find("live-open").hidden = !window.RTCPeerConnection;
  find("live-open").addEventListener("click", open);
  find("live-close").addEventListener("click", () => find("live").close());
  find("live").addEventListener("close", () => stop());
  find("live-microphone").addEventListener("click", listen);
  find("live-voice").addEventListener("click", play);
  find("live-interrupt").addEventListener("click", () => now?.socket.send(JSON.stringify({ type: "interrupt" })));
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

async function listen() {
  try {
    begin(await navigator.mediaDevices.getUserMedia({ audio: true }));
  } catch {
    showProblem(find("live-error"), new Problem(0, { code: "no_microphone" }));
  }
}

/** The chosen voice, as if it were spoken now. */
async function play() {
  const context = new AudioContext();
  try {
    const buffer = await context.decodeAudioData(await chosenVoice().arrayBuffer());
    const source = new AudioBufferSourceNode(context, { buffer });
    const target = context.createMediaStreamDestination();
    source.connect(target);
    begin(target.stream, context, () => source.start());
  } catch {
    context.close();
    showProblem(find("live-error"), new Problem(0, { code: "audio_error" }));
  }
}

function running(yes) {
  find("live-interrupt").disabled = find("live-stop").disabled = !yes;
  find("live-microphone").disabled = find("live-voice").disabled = yes;
}

function stop(key = "live.stopped") {
  if (!now) return;
  const { socket, connection, stream, context } = now;
  now = null;
  stream.getTracks().forEach((track) => track.stop());
  connection.close();
  socket.close();
  context?.close();
  running(false);
  say(find("live-status"), key);
}

/** Open a session for a stream of sound. connected: called once it goes. */
async function begin(stream, context = null, connected = () => {}, consent = false) {
  const photo = await chosenPhoto();
  const options = chosenOptions();
  for (const name of OF_RECORDINGS) delete options[name];
  if (!options.face_box && photo.face !== null) options.face = photo.face;
  showProblem(find("live-error"), null);
  say(find("live-status"), "live.connecting");
  running(true);
  const connection = new RTCPeerConnection();
  const socket = new WebSocket(new URL("v1/live", location.href.replace(/^http/, "ws")));
  const mine = (now = { socket, connection, stream, context });
  const shown = new MediaStream();
  find("live-face").srcObject = shown;
  connection.ontrack = (event) => shown.addTrack(event.track);
  connection.onconnectionstatechange = () => {
    if (connection.connectionState === "connected") connected();
    if (connection.connectionState === "failed") failed(new Problem(0, { code: "no_connection" }));
  };
  for (const track of stream.getAudioTracks()) {
    connection.addTransceiver(track, { direction: "sendrecv", streams: [stream] });
  }
  connection.addTransceiver("video", { direction: "recvonly" });
  socket.onopen = () => socket.send(JSON.stringify({ way: "call", image: photo.upload, key: knownKey(), options, consent }));
  socket.onclose = () => now === mine && stop();
  socket.onmessage = async (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "hello") {
      await connection.setLocalDescription(await connection.createOffer());
      await gathered(connection);
      socket.send(JSON.stringify({ type: "offer", sdp: connection.localDescription.sdp }));
    } else if (message.type === "answer") {
      await connection.setRemoteDescription({ type: "answer", sdp: message.sdp });
      say(find("live-status"), "live.speaking");
    } else if (message.kind === "needs_consent") {
      now = null; // the sound goes on with the next socket
      connection.close();
      running(false);
      if (await agreed(message.policy_text)) begin(stream, context, connected, true);
    } else if (message.type === "error") {
      failed(new Problem(0, { code: message.kind, detail: message.message }));
    }
  };
}

function failed(problem) {
  stop("");
  showProblem(find("live-error"), problem);
}

/** Wait for the addresses at which this computer can be reached, but not for ever. */
function gathered(connection) {
  if (connection.iceGatheringState === "complete") return null;
  return new Promise((done) => {
    connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && done());
    setTimeout(done, GATHERING);
  });
}
