// The service as the page uses it: requests with the key, problems as errors, the events of a job.

const KEY = "sonic-ms.key";
const AGAIN = 2000; // milliseconds before a stream that broke is opened again
export const ENDED = new Set(["completed", "failed", "canceled", "expired"]);

/** An answer other than success, or none at all (code "offline"). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? "");
    this.status = status;
    this.code = body.code ?? "other";
    this.body = body;
  }
}

let askKey = async () => null;

/** How to get a key from the user: a function that promises {key, keep}. */
export function onMissingKey(ask) {
  askKey = ask;
}

export function knownKey() {
  return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
}

/** A Response of success. Throws Problem. */
export async function request(method, path, { body, headers = {}, signal } = {}) {
  for (;;) {
    const key = knownKey();
    const sent = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
    let answer;
    try {
      answer = await fetch(path, { method, body, headers: sent, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, { code: "offline" });
    }
    if (answer.ok) return answer;
    const problem = new Problem(answer.status, await answer.json().catch(() => ({})));
    if (answer.status !== 401) throw problem;
    const given = await askKey();
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    (given.keep ? localStorage : sessionStorage).setItem(KEY, given.key);
  }
}

export async function json(method, path, more) {
  return (await request(method, path, more)).json();
}

/** Tell `heard` of every event of a job, until it has ended or the signal aborts. A broken stream is taken up where
 * it broke. fetch and not EventSource: it sends the key, and one stream is all that a tab needs. */
export async function follow(id, heard, signal) {
  let last = "0";
  while (!signal.aborted) {
    try {
      const answer = await request("GET", `v1/videos/${id}/events`, { headers: { "Last-Event-ID": last }, signal });
      for await (const event of events(answer.body)) {
        last = event.id ?? last;
        heard(JSON.parse(event.data));
        if (ENDED.has(event.event)) return;
      }
    } catch (error) {
      if (error.status === 404) return;
    }
    await pause(AGAIN);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => line.match(/^(\w+): ?(.*)$/)).filter(Boolean);
      const event = Object.fromEntries(lines.map((line) => [line[1], line[2]]));
      if (event.data) yield event;
    }
  }
}

/** Address of a video for <video> and for saving. With a key the bytes are fetched, since neither sends one. */
export async function contentAddress(id, download) {
  const path = `v1/videos/${id}/content${download ? "?download=true" : ""}`;
  if (!knownKey()) return path;
  return URL.createObjectURL(await (await request("GET", path)).blob());
}

/** A random name for one wish, so that sending it twice makes one video; also without https. */
export function wishNumber() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) => one.toString(16).padStart(2, "0")).join("");
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
