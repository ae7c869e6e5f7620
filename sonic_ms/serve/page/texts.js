// Words of the page: one JSON a language. Elements name theirs in data-t (text) and data-t-label (aria-label), so a
// change of the language rewrites everything that is shown.

export const LANGUAGES = ["en", "zh-CN"];
const STORED = "sonic-ms.language";
let words = {};

export function language() {
  return document.documentElement.lang;
}

/** The language that was chosen before, or the first of the browser's that there is. */
export function preferred() {
  const chosen = localStorage.getItem(STORED);
  if (LANGUAGES.includes(chosen)) return chosen;
  const wanted = navigator.languages.find((one) => /^(en|zh)\b/i.test(one)) ?? "en";
  return wanted.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
}

export async function speak(name, remember = false) {
  const answer = await fetch(`page/${name}.json`);
  words = await answer.json();
  document.documentElement.lang = name;
  if (remember) localStorage.setItem(STORED, name);
  rewrite(document);
}

export function known(key) {
  return key in words;
}

/** The text of a key, {name} replaced by args.name; args.otherwise is taken where this language has none. */
export function text(key, args = {}) {
  return (words[key] ?? args.otherwise ?? key).replace(/\{(\w+)\}/g, (_, name) => args[name] ?? "");
}

/** Give an element its text, for now and for a change of the language. An empty key empties it. */
export function say(element, key, args = {}) {
  const data = JSON.stringify(args);
  if (element.dataset.t === key && element.dataset.args === data) return;
  element.dataset.t = key;
  element.dataset.args = data;
  element.textContent = key ? text(key, args) : "";
}

/** Put the words of this language into everything below an element. */
export function rewrite(root) {
  for (const one of root.querySelectorAll("[data-t]")) {
    one.textContent = one.dataset.t ? text(one.dataset.t, JSON.parse(one.dataset.args ?? "{}")) : "";
  }
  for (const one of root.querySelectorAll("[data-t-label]")) {
    one.setAttribute("aria-label", text(one.dataset.tLabel, JSON.parse(one.dataset.args ?? "{}")));
  }
}

/** A copy of a <template>'s element, with its words. */
export function stamp(id) {
  const made = document.getElementById(id).content.cloneNode(true);
  rewrite(made);
  return made.firstElementChild;
}

/** Show a problem: its kind in the page's language, and the service's own sentence. null takes it away. */
export function showProblem(element, problem) {
  element.replaceChildren();
  if (!problem) return;
  const key = `error.${problem.code}`;
  const kind = document.createElement("span");
  say(kind, known(key) ? key : "error.other");
  element.append(kind);
  if (problem.message) {
    const detail = document.createElement("span");
    detail.className = "detail";
    detail.lang = "en";
    detail.textContent = problem.message;
    element.append(detail);
  }
}
