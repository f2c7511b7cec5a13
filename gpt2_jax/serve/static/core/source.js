// Gets numbers and texts: from the server, or in a lesson from the page itself.
//
// A lesson is one file. Its element <script type="application/json" id="lesson"> holds
//   {"state": {...}, "summary": {...}, "models": [...], "views": [...], "left_out": how many arrays
//    had no room, "arrays": {address: base64 of the gzip of its .npy, or "=" and the address of the
//    same array}, "json": {"i18n/en.json": {...}, ...}}

import { parse } from "./npy.js";

const API = "explore/v1/";
const embedded = document.getElementById("lesson");
export const lesson = embedded ? JSON.parse(embedded.textContent) : null;

export class Refused extends Error {
  constructor(status, message, param, counts) {
    super(message);
    Object.assign(this, { status, param, counts });
  }
}

// Asks for an API key once; main.js sets what asks.
export const keys = { ask: async () => null };

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(API + path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    const given = await keys.ask(Boolean(key));
    if (given) {
      sessionStorage.setItem("key", given);
      return ask(path, options);
    }
  }
  const body = await response.json().catch(() => null);
  const error = body?.error ?? {};
  const { message = response.statusText, param, counts } = error;
  throw new Refused(response.status, message, param, counts);
}

export async function getJson(path) {
  if (lesson) return lesson[path] ?? null;
  return (await ask(path)).json();
}

export const getBlob = async (path) => (await ask(path)).blob();

const posted = (body, signal) => ({
  method: "POST",
  body: JSON.stringify(body),
  headers: { "content-type": "application/json" },
  signal,
});

export async function postJson(path, body, signal) {
  if (lesson) {
    const same = path === "run" && String(body.tokens) === String(lesson.state.tokens);
    if (!same) throw new Refused(404, "", "lesson");
    return lesson.summary;
  }
  return (await ask(path, posted(body, signal))).json();
}

// Calls `online` with each line of an answer in NDJSON, as it arrives.
export async function postLines(path, body, online, signal) {
  if (lesson) throw new Refused(404, "", "lesson");
  const reader = (await ask(path, posted(body, signal))).body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ? decoder.decode(value, { stream: true }) : "")).split("\n");
    rest = lines.pop();
    lines.filter(Boolean).forEach((line) => online(JSON.parse(line)));
    if (done) break;
  }
}

// Returns {shape, data, address} of one array of a run.
export async function getArray(run, address) {
  if (!lesson) {
    const response = await ask(`run/${run}/${address}.npy`);
    return { ...parse(await response.arrayBuffer()), address };
  }
  const found = lesson.arrays[address];
  const text = found?.[0] === "=" ? lesson.arrays[found.slice(1)] : found;
  if (text === undefined) throw new Refused(404, "", "lesson");
  return { ...parse(await unpacked(text)), address };
}

function unpacked(text) {
  const packed = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// Returns a JSON file of the page: texts of a language, stops of the tour.
export async function getFile(path) {
  if (lesson) return lesson.json[path];
  const response = await fetch(`static/${path}`);
  if (!response.ok) throw new Refused(response.status, path);
  return response.json();
}
