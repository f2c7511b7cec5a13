// The text as a piano roll, where its tokens are events of music; a note chooses its token.

import { fill, h, s } from "../core/dom.js";
import { number } from "../core/text.js";

const STEPS = 4; // of a quarter note
const WIDTHS = [4, 14]; // of a step, in pixels: the least, and the most
const ROOM = 270;
const HEIGHT = 6; // of a semitone
const FULL = 8; // nats of surprise with the full color
const EDGE = 30; // room for the names of octaves
const BLACK = [1, 3, 6, 8, 10];

// The notes of tokens: where each begins and ends, in steps, its pitch, and the token it begins at.
export function notes(tokens) {
  const found = [],
    sounding = {};
  let now = 0;
  tokens.forEach(({ text }, token) => {
    const [kind, value = ""] = text.trim().split("_");
    const [beats, part, whole] = value.split(".").map(Number);
    if (kind === "TimeShift") now += beats * STEPS + (part * STEPS) / whole;
    if (kind === "NoteOn") {
      const note = { start: now, pitch: beats, token };
      found.push(note);
      (sounding[beats] ??= []).push(note);
    }
    if (kind === "NoteOff" && sounding[beats]?.length) sounding[beats].shift().stop = now;
  });
  for (const note of found) note.stop ??= now; // what is held still sounds
  return found;
}

export function mount(root, app) {
  const picture = h("div.scroll-x", { tabindex: 0, role: "region", named: "music.title" });
  root.append(h("p.quiet", { t: "music.text" }), picture);

  function draw() {
    const tokens = app.tokens();
    const found = notes(tokens),
      stop = Math.max(1, ...found.map((note) => note.stop));
    const step = Math.min(WIDTHS[1], Math.max(WIDTHS[0], ROOM / stop));
    const pitches = found.map(({ pitch }) => pitch);
    const low = Math.min(...pitches) - 1,
      high = Math.max(...pitches) + 1;
    const size = { width: stop * step + EDGE, height: (high - low + 1) * HEIGHT };
    const rect = (name, x, y, width, more = {}) =>
      s("rect", { class: name, x, y: (high - y) * HEIGHT, width, height: HEIGHT - 1, ...more });
    const lines = Array.from({ length: high - low + 1 }, (_, i) => low + i);
    const keys = lines
      .filter((pitch) => BLACK.includes(pitch % 12))
      .map((pitch) => rect("key", EDGE, pitch, stop * step));
    const octaves = lines
      .filter((pitch) => pitch % 12 === 0)
      .map((pitch) =>
        s("text", { class: "tick", x: 0, y: (high - pitch + 1) * HEIGHT }, `C${pitch / 12 - 1}`),
      );
    const shown = found.map(({ start, stop, pitch, token }) => {
      const surprise = -(tokens[token].logprob ?? 0);
      const name = token === app.query() ? "note now" : "note";
      const width = Math.max((stop - start) * step - 1, 1);
      const shade = { "fill-opacity": 0.25 + 0.75 * Math.min(1, surprise / FULL) };
      const pick = { ...shade, onclick: () => app.set({ query: token }) };
      const drawn = rect(name, EDGE + start * step, pitch, width, pick);
      drawn.append(s("title", `${tokens[token].text.trim()} (${token}), ${number(surprise, 3)}`));
      return drawn;
    });
    const label = app.t("music.label", { count: found.length, beats: number(stop / STEPS) });
    const about = { class: "work", role: "img", "aria-label": label };
    return s("svg", { ...size, ...about }, keys, octaves, shown);
  }

  function update() {
    fill(picture, notes(app.tokens()).length ? draw() : h("p", app.t("music.none")));
  }
  return { update };
}
