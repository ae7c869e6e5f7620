// Fields of the options, from the schema that the service gives: kind, limits, default and help of each.

import { json } from "./api.js";
import { language, say } from "./texts.js";

// face has its place in the photo; the longest recording is the operator's to say
const ELSEWHERE = new Set(["face", "max_audio_seconds"]);
const find = (id) => document.getElementById(id);
const fields = new Map(); // name -> {input, schema}

export async function startOptions() {
  const schema = await json("GET", "v1/options");
  for (const [name, one] of Object.entries(schema.properties)) {
    if (!ELSEWHERE.has(name)) find("option-fields").append(field(name, one));
  }
}

/** {name: text} of the options that differ from their defaults. Throws the first field that is wrong. */
export function chosenOptions() {
  const chosen = {};
  for (const [name, { input, schema }] of fields) {
    const wrong = !input.checkValidity();
    input.setAttribute("aria-invalid", wrong);
    if (wrong) throw input;
    const value = input.type === "checkbox" ? String(input.checked) : input.value.trim();
    if (value !== "" && value !== String(schema.default)) chosen[name] = value;
  }
  // who reads Chinese gets the label in Chinese
  chosen.visible_label ??= language() === "zh-CN" ? "zh" : "en";
  return chosen;
}

function field(name, schema) {
  const box = document.createElement("div");
  const label = document.createElement("label");
  const help = document.createElement("p");
  const plain = { ...schema, ...(schema.anyOf?.find((one) => one.type !== "null") ?? {}) };
  const input = plain.enum ? choice(name, plain) : entry(plain);
  input.id = `option-${name}`;
  input.name = name;
  label.htmlFor = input.id;
  help.id = `help-${name}`;
  input.setAttribute("aria-describedby", help.id);
  box.className = "option";
  say(label, `option.${name}`, { otherwise: schema.title });
  say(help, `help.${name}`, { otherwise: schema.description }); // in English the declaration's own words
  const limits = document.createElement("p");
  limits.id = `limits-${name}`;
  if (plain.maximum !== undefined) {
    say(limits, "options.limits", { least: plain.minimum, most: plain.maximum, unit: plain.unit ?? "", usual: plain.default });
    input.setAttribute("aria-describedby", `${help.id} ${limits.id}`);
  }
  box.append(label, input, help, limits);
  fields.set(name, { input, schema: plain });
  return box;
}

function choice(name, schema) {
  const select = document.createElement("select");
  const words = schema.anyOf ? ["", ...schema.enum, "none"] : schema.enum;
  for (const word of words) {
    const option = document.createElement("option");
    option.value = word;
    say(option, `choice.${name}.${word || "usual"}`);
    select.append(option);
  }
  select.value = schema.default ?? "";
  return select;
}

function entry(schema) {
  const input = document.createElement("input");
  if (schema.type === "boolean") {
    input.type = "checkbox";
    input.checked = schema.default;
  } else if (schema.type === "array") {
    input.type = "text";
    input.pattern = `\\s*-?[\\d.]+(\\s*,\\s*-?[\\d.]+){${schema.maxItems - 1}}\\s*`;
    input.placeholder = schema.default?.join(",") ?? "x,y,width,height";
  } else {
    input.type = "number";
    input.step = schema.type === "integer" ? 1 : "any";
    input.value = schema.default ?? "";
    const least = schema.minimum ?? schema.exclusiveMinimum;
    if (least !== undefined) input.min = least;
    if (schema.maximum !== undefined) input.max = schema.maximum;
  }
  return input;
}
