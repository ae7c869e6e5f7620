// Starts the page: language, key, readiness, what is dropped, and the form that asks for a video.

import { json, onMissingKey, pause, Problem, request, wishNumber } from "./api.js";
import { changed, rewriteJobs, startJobs } from "./jobs.js";
import { startLive } from "./live.js";
import { chosenOptions, startOptions } from "./options.js";
import { chosenPhoto, complainPhoto, startPhoto, takePhoto } from "./photo.js";
import { language, preferred, say, showProblem, speak } from "./texts.js";
import { chosenVoice, complainVoice, startVoice, takeVoice } from "./voice.js";

const TRIES = [1000, 3000, 10000]; // milliseconds before a wish that did not arrive is sent again
const find = (id) => document.getElementById(id);

async function start() {
  await speak(preferred());
  find("language").value = language();
  find("language").addEventListener("change", async (event) => {
    await speak(event.target.value, true);
    rewriteJobs();
  });
  find("key").addEventListener("cancel", (event) => event.preventDefault()); // nothing goes on without one
  let asked = null; // several requests may miss the key at once
  onMissingKey(() => (asked ??= dialog("key").then(readKey).finally(() => (asked = null))));
  startPhoto();
  startVoice();
  startDrop();
  startLive(agreed);
  startJobs();
  find("make").addEventListener("submit", (event) => {
    event.preventDefault();
    make();
  });
  document.addEventListener("reached", (event) => ready(event.detail));
  await startOptions();
}

/** Show a dialog; what it was closed with. */
function dialog(id) {
  find(id).showModal();
  return new Promise((resolve) => find(id).addEventListener("close", () => resolve(find(id).returnValue), { once: true }));
}

function readKey() {
  const given = { key: find("key-value").value.trim(), keep: find("key-keep").checked };
  find("key-value").value = "";
  return given;
}

let model = "unknown";

/** Say whether the service can be reached and has its model; ask again until it has. */
async function ready(reached) {
  if (!reached) {
    model = "unknown";
    return say(find("ready"), "ready.offline");
  }
  if (model === "ready" || model === "asking") return;
  model = "asking";
  try {
    await request("GET", "readyz");
    model = "ready";
    say(find("ready"), "ready.ready");
  } catch (problem) {
    const status = problem.body?.status ?? "loading";
    model = "unknown";
    say(find("ready"), `ready.${status}`);
    await pause(1000);
    ready(problem.code !== "offline");
  }
}

function startDrop() {
  const zones = document.querySelectorAll(".zone");
  const over = (event, on) => {
    event.preventDefault();
    for (const zone of zones) zone.classList.toggle("over", on);
  };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => event.relatedTarget || over(event, false));
  document.addEventListener("drop", (event) => {
    over(event, false);
    for (const file of event.dataTransfer.files) {
      const voice = /^(audio|video)\//.test(file.type) || event.target.closest?.("#voice");
      voice ? takeVoice(file) : takePhoto(file);
    }
  });
}

/** Ask for a video of what is chosen; say what is missing, where it is missing. */
async function make(consent = false) {
  const photo = await chosenPhoto();
  const voice = chosenVoice();
  showProblem(find("make-error"), null);
  if (!voice) complainVoice(new Problem(0, { code: "voice_missing" }));
  if (!photo.upload) complainPhoto(new Problem(0, { code: "photo_missing" }));
  if (!photo.upload || !voice) return find(photo.upload ? "voice-choose" : "photo-choose").focus();
  let options;
  try {
    options = chosenOptions();
  } catch (field) {
    find("options").open = true;
    showProblem(find("make-error"), { code: "usage_error", message: field.validationMessage });
    return field.focus();
  }
  if (!options.face_box && photo.face !== null) options.face = photo.face;
  const form = new FormData();
  form.append("input_reference", photo.upload);
  form.append("audio_reference", voice);
  form.append("metadata[photo]", photo.name.slice(0, 200));
  form.append("metadata[voice]", voice.name.slice(0, 200));
  if (consent) form.append("consent", "true");
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  find("submit").disabled = true;
  say(find("submit"), "making");
  try {
    const job = await send(form);
    find("videos").scrollIntoView();
    find("videos").focus({ preventScroll: true });
    await changed(job);
    say(find("news"), "news.accepted");
  } catch (problem) {
    if (problem.code === "needs_consent") {
      if (await agreed(problem.body.policy_text)) await make(true);
      return;
    }
    place(problem);
  } finally {
    find("submit").disabled = false;
    say(find("submit"), "make");
  }
}

/** Send a wish until it has arrived; its number keeps it from being made twice. */
async function send(form) {
  const headers = { "Idempotency-Key": wishNumber() };
  for (const wait of [...TRIES, null]) {
    try {
      return await json("POST", "v1/videos", { body: form, headers });
    } catch (problem) {
      if (problem.code !== "offline" || wait === null) throw problem;
      await pause(wait);
    }
  }
}

/** Show a problem next to what it is about. */
function place(problem) {
  const voice = problem.code === "audio_error" || problem.body?.param === "audio_reference";
  const photo = ["image_error", "face_error"].includes(problem.code) || problem.body?.param === "input_reference";
  if (voice) complainVoice(problem);
  else if (photo) complainPhoto(problem);
  else showProblem(find("make-error"), problem);
}

/** Whether the user agrees to what the service asks for. */
async function agreed(policy) {
  find("consent-text").textContent = policy;
  return (await dialog("consent")) === "yes";
}

start();
