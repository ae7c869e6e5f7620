// The photo: a file, dropped or chosen, or a picture of the camera. It is sent at once, and the service says where its
// faces are; with several one is chosen.

import { json, pause, Problem, request } from "./api.js";
import { rewrite, say, showProblem } from "./texts.js";

const find = (id) => document.getElementById(id);
const state = { name: "", upload: null, face: null, turn: 0, address: null, sending: null };

/** {upload, face, name} of what was chosen, once it is sent. upload is null without a photo that can be used, face while
 * nobody has looked yet: then the service takes the largest. */
export async function chosenPhoto() {
  await state.sending?.catch(() => {});
  return { upload: state.upload, face: state.face, name: state.name };
}

export function complainPhoto(problem) {
  showProblem(find("photo-error"), problem);
}

export function startPhoto() {
  find("photo-choose").addEventListener("click", () => find("photo-file").click());
  find("photo-file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file may be chosen again
    if (file) takePhoto(file);
  });
  const able = Boolean(navigator.mediaDevices?.getUserMedia);
  find("camera-open").hidden = !able;
  find("camera-open").addEventListener("click", openCamera);
  find("camera-take").addEventListener("click", snap);
  find("camera-close").addEventListener("click", () => find("camera").close());
  find("camera").addEventListener("close", closeCamera);
}

/** Show a photo, send it, and mark its faces. */
export async function takePhoto(file) {
  const turn = ++state.turn;
  forget();
  state.name = file.name;
  state.address = URL.createObjectURL(file);
  find("photo-image").hidden = false;
  find("photo-image").onerror = () => (find("photo-image").hidden = true); // a format that only the service reads
  find("photo-image").src = state.address;
  find("faces").hidden = false;
  complainPhoto(null);
  say(find("photo-status"), "photo.sending", { name: file.name });
  const form = new FormData();
  form.append("kind", "image");
  form.append("file", file);
  state.sending = json("POST", "v1/uploads", { body: form }).then((upload) => {
    if (turn === state.turn) state.upload = upload.id;
    else drop(upload.id);
  });
  try {
    await state.sending;
    if (turn !== state.turn) return;
    say(find("photo-status"), "photo.looking");
    const found = await lookForFaces(state.upload, turn);
    if (turn !== state.turn) return;
    if (!found.faces.length) throw new Problem(422, { code: "face_error" });
    mark(found);
  } catch (problem) {
    if (turn !== state.turn) return;
    if (state.upload) drop(state.upload);
    state.upload = null;
    say(find("photo-status"), "");
    complainPhoto(problem);
  }
}

/** The faces; while the model loads nobody can look yet. */
async function lookForFaces(upload, turn) {
  for (;;) {
    try {
      return await json("GET", `v1/uploads/${upload}/faces`);
    } catch (problem) {
      if (problem.code !== "not_ready" || turn !== state.turn) throw problem;
      say(find("photo-status"), "photo.waiting");
      await pause(1000);
    }
  }
}

function mark({ width, height, faces }) {
  faces.forEach(([x, y, w, h], index) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    const number = document.createElement("span");
    label.className = "face";
    label.style.left = `${(100 * x) / width}%`;
    label.style.top = `${(100 * y) / height}%`;
    label.style.width = `${(100 * w) / width}%`;
    label.style.height = `${(100 * h) / height}%`;
    radio.type = "radio";
    radio.name = "face-choice";
    radio.checked = index === 0;
    radio.dataset.tLabel = "photo.face";
    radio.dataset.args = JSON.stringify({ number: index + 1, count: faces.length });
    number.textContent = faces.length > 1 ? index + 1 : "";
    radio.addEventListener("change", () => choose(index, faces.length));
    label.append(radio, number);
    find("face-boxes").append(label);
  });
  rewrite(find("face-boxes"));
  choose(0, faces.length);
}

function choose(index, count) {
  state.face = index;
  say(find("photo-status"), count > 1 ? "photo.chosen" : "photo.one", { number: index + 1, count, name: state.name });
}

function forget() {
  if (state.upload) drop(state.upload);
  if (state.address) URL.revokeObjectURL(state.address);
  state.upload = state.face = state.address = null;
  find("face-boxes").replaceChildren();
}

function drop(upload) {
  request("DELETE", `v1/uploads/${upload}`).catch(() => {}); // a job may still need it; it goes by itself later
}

async function openCamera() {
  complainPhoto(null);
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    find("camera-view").srcObject = stream;
    await find("camera-view").play();
    find("camera").showModal();
  } catch {
    complainPhoto(new Problem(0, { code: "no_camera" }));
  }
}

function snap() {
  const view = find("camera-view");
  const canvas = document.createElement("canvas");
  canvas.width = view.videoWidth;
  canvas.height = view.videoHeight;
  canvas.getContext("2d").drawImage(view, 0, 0);
  canvas.toBlob((blob) => takePhoto(new File([blob], "snapshot.jpg", { type: "image/jpeg" })), "image/jpeg", 0.95);
  find("camera").close();
}

function closeCamera() {
  for (const track of find("camera-view").srcObject?.getTracks() ?? []) track.stop();
  find("camera-view").srcObject = null;
}
