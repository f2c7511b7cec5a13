// Holds what the page shows, asks for runs and arrays, and calls who is to draw.

import { pack, unpack } from "./link.js";
import { say } from "./live.js";
import * as source from "./source.js";
import { textOf } from "./text.js";

const FIRST = {
  text: "",
  tokens: null,
  model: null,
  step: null,
  layer: 0,
  head: 0,
  query: null,
  key: null,
  pins: [],
  sampling: { temperature: 1, top_k: 0, top_p: 1, seed: 0 },
  interventions: {},
  language: null,
  theme: null,
  tour: null,
};
const OF_RUN = ["text", "tokens", "model", "step", "interventions"];
const MOST_BYTES = 64 * 2 ** 20;

export function makeStore(onchange) {
  let texts = {},
    asked = null,
    abort = null,
    waiting = false,
    kept = new Map(),
    bytes = 0;
  const app = {
    state: structuredClone(FIRST),
    run: null,
    models: [],
    epoch: 0,
    error: "",
    busy: false,
    past: [],
    notice: "",
    lesson: source.lesson,
  };
  Object.defineProperty(app, "summary", { get: () => app.run });

  // The tokens, and the chosen query and key as indices that the run has.
  app.tokens = () => app.run?.tokens ?? [];
  app.query = () => Math.min(app.state.query ?? Infinity, app.tokens().length - 1);
  app.key = () => Math.min(app.state.key ?? 0, app.query());
  app.layer = () => Math.min(app.state.layer, app.run.config.num_layers - 1);
  app.head = () => Math.min(app.state.head, app.run.config.num_heads - 1);
  app.model = () => app.models.find((model) => model.id === app.state.model) ?? app.models[0];

  app.t = (key, params = {}) =>
    (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => params[name] ?? "");
  app.say = say;

  app.changed = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      app.epoch++;
      onchange(app);
    });
  };

  app.set = (patch) => {
    const before = app.state;
    app.state = { ...before, ...patch };
    if (OF_RUN.some((name) => JSON.stringify(before[name]) !== JSON.stringify(app.state[name])))
      app.start();
    if (before.language !== app.state.language) app.translate();
    app.changed();
    remember();
  };

  app.translate = async () => {
    const { language } = app.state,
      found = await source.getFile(`i18n/${language}.json`);
    if (language !== app.state.language) return;
    texts = found;
    app.language = language; // of the texts that are there
    app.changed();
  };

  // What a run is asked for with.
  app.request = (patch = {}) => {
    const { text, tokens, model, step, interventions } = { ...app.state, ...patch };
    const request = tokens ? { tokens } : { text };
    if (model) request.model = model;
    if (step !== null) request.step = step;
    if (Object.values(interventions ?? {}).some((list) => list.length))
      request.interventions = interventions;
    return request;
  };

  // Asks for the run of the state; what is shown stays until the answer is there.
  app.start = async () => {
    abort?.abort();
    abort = new AbortController();
    const mine = (asked = {});
    app.busy = true;
    app.changed();
    try {
      const run = await source.postJson("run", app.request(), abort.signal);
      if (mine !== asked) return;
      if (run.run !== app.run?.run) forget();
      Object.assign(app, { run, error: "", busy: false });
      if (app.state.tokens) app.state = { ...app.state, text: written(run.tokens) };
    } catch (error) {
      if (mine !== asked || error.name === "AbortError") return;
      app.error = app.sentence(error);
      app.busy = false;
      say(app.error);
    }
    app.changed();
  };

  const written = (tokens) =>
    app.model()?.takes_text === false ? tokens.map((token) => token.id).join(" ") : textOf(tokens);

  // An error as a sentence.
  app.sentence = (error) => {
    if (error.param === "lesson") return app.t("error.lesson");
    if (error.status === 0) return app.t("error.offline");
    const said = String(error.message || error);
    return `${said[0]?.toUpperCase() ?? ""}${said.slice(1)}${/[.!?]$/.test(said) ? "" : "."}`;
  };

  function forget() {
    kept = new Map();
    bytes = 0;
  }

  // Returns {shape, data, address} of the run that is shown; each is asked for once.
  app.get = (address) => {
    const found = kept.get(address);
    if (found) {
      kept.delete(address);
      kept.set(address, found);
      return found;
    }
    const cache = kept;
    const promise = load(address, app.run.run).then((array) => {
      bytes += array.data.byteLength;
      for (const old of kept.keys()) {
        if (bytes <= MOST_BYTES || old === address || kept !== cache) break;
        const gone = kept.get(old);
        kept.delete(old);
        gone.then(
          (array) => (bytes -= array.data.byteLength),
          () => {},
        );
      }
      return array;
    });
    promise.catch(() => cache.delete(address));
    kept.set(address, promise);
    return promise;
  };

  // The same, or null where a lesson does not hold it.
  app.held = (address) =>
    app.get(address).catch((error) => {
      if (error.param === "lesson") return null;
      throw error;
    });

  async function load(address, run) {
    try {
      return await source.getArray(run, address);
    } catch (error) {
      if (error.status !== 410 || run !== app.run.run) throw error;
      await source.postJson("run", app.request()); // it was evicted; it has the same name again
      return source.getArray(run, address);
    }
  }

  app.post = (path, body, signal) => source.postJson(path, body, signal);
  app.lines = source.postLines;
  app.fetch = source.getJson;
  app.file = source.getFile;
  app.blob = source.getBlob;
  app.arrays = async () =>
    (await Promise.allSettled(kept.values())).flatMap(({ value }) => value ?? []);

  // Appends a token; undo takes it back.
  app.extend = (id) => {
    remembered();
    app.set({ tokens: [...app.tokens().map((token) => token.id), id], query: null, key: null });
  };
  let wrote = 0;
  app.write = (text) => {
    if (Date.now() - wrote > 2000) remembered();
    wrote = Date.now();
    // A model without a tokenizer takes ids.
    const tokens =
      app.model()?.takes_text === false ? (text.match(/\d+/g) ?? []).map(Number) : null;
    app.set({ text, tokens, query: null, key: null });
  };
  app.undo = () => {
    const last = app.past.pop();
    if (last) app.set({ ...last, query: null, key: null });
  };
  function remembered() {
    app.past = [...app.past.slice(-99), { text: app.state.text, tokens: app.state.tokens }];
  }

  // The state as a link, and back.
  app.link = async () => {
    const state = { ...app.state, fingerprint: app.run?.fingerprint };
    if (state.tokens) delete state.text;
    for (const [name, value] of Object.entries(FIRST)) {
      if (JSON.stringify(state[name]) === JSON.stringify(value)) delete state[name];
    }
    return `${location.href.split("#")[0]}#${await pack(state)}`;
  };
  let timer = null;
  function remember() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const address = await app.link();
      try {
        history.replaceState(null, "", address);
      } catch {
        /* a file:// page may not */
      }
    }, 300);
  }

  app.open = app.explain = () => {}; // main.js sets them
  app.restore = async (fragment) => {
    const state = await unpack(fragment);
    const known = Object.entries(state ?? {}).filter(
      ([name, value]) => name in FIRST && sane(name, value),
    );
    app.expected = state?.fingerprint ?? null;
    app.state = { ...app.state, ...Object.fromEntries(known) };
    return known.length > 0;
  };
  return app;
}

function sane(name, value) {
  const kinds = {
    text: (x) => typeof x === "string",
    model: (x) => x === null || typeof x === "string",
    tokens: (x) => x === null || (Array.isArray(x) && x.every(Number.isInteger)),
    pins: Array.isArray,
    sampling: (x) => x && typeof x === "object",
    interventions: (x) => x && typeof x === "object",
    language: (x) => ["en", "zh"].includes(x),
    theme: (x) => ["light", "dark"].includes(x),
  };
  const whole = (x) => x === null || (Number.isInteger(x) && x >= 0);
  return (kinds[name] ?? whole)(value);
}
