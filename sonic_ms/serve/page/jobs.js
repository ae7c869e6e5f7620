// The list of videos. The service's own list is what is shown, so it is the same after a reload, in another tab and on
// another machine; the events of the job that runs make its bar move.

import { contentAddress, ENDED, follow, json, request } from "./api.js";
import { language, say, showProblem, stamp, text } from "./texts.js";

const PAGE = 20; // videos that are shown at first, and more by every "older"
const BUSY = 2000; // milliseconds between two looks at the list while something waits or runs
const IDLE = 15000;
const STAGES = new Set(["preparing", "compile", "denoise", "frames"]);
const find = (id) => document.getElementById(id);
const mine = new Set(); // ids of the jobs that this tab asked for
const cards = new Map(); // id -> {card, job}
const tabs = new BroadcastChannel("sonic-ms.jobs"); // says to other tabs that the list has changed
let shown = PAGE;
let timer = null;
let turn = 0;
let followed = { id: null, stop: new AbortController() };

export function startJobs() {
  tabs.addEventListener("message", refresh);
  document.addEventListener("visibilitychange", refresh);
  window.addEventListener("online", refresh);
  window.addEventListener("offline", refresh);
  find("older").addEventListener("click", () => {
    shown += PAGE;
    refresh();
  });
  refresh();
}

/** Something changed here: look, and let other tabs look. asked: the job that this tab has just made, if any. */
export function changed(asked) {
  if (asked) mine.add(asked.id);
  tabs.postMessage("changed");
  return refresh();
}

/** Times and numbers are written anew for another language; the words change by themselves. */
export function rewriteJobs() {
  for (const { card, job } of cards.values()) draw(card, job);
}

/** Look at the list now, and again later. A tab that nobody sees does not look. */
export async function refresh() {
  clearTimeout(timer);
  const now = ++turn;
  if (document.hidden) {
    watch([]);
    return;
  }
  let jobs = null;
  try {
    jobs = await list();
    document.dispatchEvent(new CustomEvent("reached", { detail: true }));
  } catch (problem) {
    document.dispatchEvent(new CustomEvent("reached", { detail: problem.code !== "offline" }));
  }
  if (now !== turn) return; // another look has begun
  if (jobs) show(jobs);
  const busy = !jobs || jobs.some((job) => !ENDED.has(job.state));
  timer = setTimeout(refresh, busy ? BUSY : IDLE);
}

async function list() {
  const jobs = [];
  for (let more = true; more && jobs.length < shown; ) {
    const after = jobs.length ? `&after=${jobs.at(-1).id}` : "";
    const page = await json("GET", `v1/videos?limit=${Math.min(100, shown - jobs.length)}${after}`);
    jobs.push(...page.data);
    more = page.has_more;
    find("older").hidden = !more;
  }
  return jobs;
}

function show(jobs) {
  const there = new Set(jobs.map((job) => job.id));
  for (const [id, { card }] of cards) {
    if (there.has(id)) continue;
    card.remove();
    cards.delete(id);
  }
  jobs.forEach((job, place) => {
    const known = cards.get(job.id);
    const card = known?.card ?? make(job);
    if (find("jobs").children[place] !== card) find("jobs").insertBefore(card, find("jobs").children[place] ?? null);
    update(card, job);
  });
  find("no-jobs").hidden = jobs.length > 0;
  watch(jobs);
}

/** Follow the job that runs, or else the next one, and only that: a browser has six connections for all tabs. */
function watch(jobs) {
  const open = jobs.filter((job) => !ENDED.has(job.state)).reverse();
  const next = open.find((job) => job.state === "in_progress") ?? open[0];
  if (next?.id === followed.id) return;
  followed.stop.abort();
  followed = { id: next?.id ?? null, stop: new AbortController() };
  const { id, stop } = followed;
  if (!id) return;
  follow(id, (news) => {
    const known = cards.get(id);
    if (!known || stop.signal.aborted) return;
    update(known.card, { ...known.job, ...news });
    if (ENDED.has(news.state)) changed();
  }, stop.signal).catch(() => {});
}

function make(job) {
  const card = stamp("job");
  const title = card.querySelector("h3");
  title.id = `title-${job.id}`;
  const act = (name, done) => {
    const button = card.querySelector(`.${name}`);
    button.setAttribute("aria-describedby", title.id);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await done(job.id, card);
      } catch (problem) {
        showProblem(card.querySelector(".error"), problem);
      }
      button.disabled = false;
    });
  };
  act("cancel", (id) => request("POST", `v1/videos/${id}/cancel`).then(changed));
  act("play", (id) => play(id, card));
  act("download", download);
  act("delete", async (id) => {
    if (!confirm(text("jobs.sure"))) return;
    await request("DELETE", `v1/videos/${id}`);
    find("videos").focus();
    await changed();
  });
  return card;
}

function update(card, job) {
  const before = cards.get(job.id)?.job;
  cards.set(job.id, { card, job });
  if (before?.state !== job.state || !before) showProblem(card.querySelector(".error"), trouble(job));
  draw(card, job);
  if (before && before.state !== job.state) say(find("news"), `news.${job.state}`, { name: name(job) });
  const news = before ? before.state !== "completed" : mine.has(job.id); // it may be done before it is first seen
  if (news && job.state === "completed") play(job.id, card, false);
}

/** What a failed job says; for one that was cancelled its state says all. */
function trouble(job) {
  return job.error && job.state === "failed" ? { code: job.error.code, message: job.error.message } : null;
}

function draw(card, job) {
  const open = !ENDED.has(job.state);
  const percent = job.frames_total ? Math.floor((100 * job.frames_done) / job.frames_total) : 0;
  const bar = card.querySelector("progress");
  card.dataset.state = job.state;
  card.querySelector("h3").textContent = name(job);
  say(card.querySelector(".state"), `state.${job.state}`);
  bar.hidden = !open;
  bar.value = percent;
  bar.setAttribute("aria-label", text("jobs.progress", { name: name(job) }));
  const [key, args] = detail(job, percent);
  say(card.querySelector(".detail"), key, args);
  for (const [button, there] of Object.entries({
    cancel: open, play: job.state === "completed" && card.querySelector("figure").hidden,
    download: job.state === "completed", delete: !open,
  })) card.querySelector(`.${button}`).hidden = !there;
  if (job.state !== "completed") card.querySelector("figure").hidden = true;
}

function detail(job, percent) {
  if (job.state === "queued") return ["detail.queued", { place: job.queue_position ?? "" }];
  if (job.state === "in_progress") {
    const stage = text(STAGES.has(job.stage) ? `stage.${job.stage}` : "stage.other");
    if (!job.frames_total) return ["detail.stage", { stage }];
    const args = { stage, percent, done: job.frames_done, total: job.frames_total, left: Math.ceil(job.eta_seconds ?? 0) };
    return [args.left ? "detail.frames_left" : "detail.frames", args];
  }
  const when = new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" });
  const made = when.format(new Date(1000 * (job.completed_at ?? job.created_at)));
  if (job.state !== "completed") return ["detail.ended", { made }];
  const until = when.format(new Date(1000 * job.expires_at));
  return ["detail.completed", { made, until, size: job.size, seconds: Number(job.seconds).toFixed(1) }];
}

/** What the job is called: after its files. */
function name(job) {
  const { photo, voice } = job.metadata ?? {};
  return photo && voice ? `${photo} + ${voice}` : job.id;
}

async function play(id, card, start = true) {
  const video = card.querySelector("video");
  if (!video.src) {
    video.preload = "metadata";
    video.src = await contentAddress(id);
  }
  card.querySelector("figure").hidden = false;
  card.querySelector(".play").hidden = true;
  if (!start) return;
  video.focus();
  await video.play().catch(() => {}); // the browser may want another touch; the controls are there
}

async function download(id) {
  const link = document.createElement("a");
  link.href = await contentAddress(id, true);
  link.download = `${id}.mp4`;
  link.click();
  if (link.href.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
