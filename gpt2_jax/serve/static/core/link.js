// Packs the state into the address behind "#", which browsers do not send:
// #v=1&s=base64url(deflate(JSON)).

async function piped(bytes, stream) {
  return new Uint8Array(
    await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer(),
  );
}

export async function pack(state) {
  const bytes = await piped(
    new TextEncoder().encode(JSON.stringify(state)),
    new CompressionStream("deflate"),
  );
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return `v=1&s=${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

const isWhole = (x) => x === null || (Number.isInteger(x) && x >= 0);
const sane = {
  text: (x) => typeof x === "string",
  model: (x) => x === null || typeof x === "string",
  tokens: (x) => x === null || (Array.isArray(x) && x.every(Number.isInteger)),
  pins: (x) =>
    Array.isArray(x) && x.every((pair) => pair?.length === 2 && pair.every(Number.isInteger)),
  sampling: (x) => x && Object.values(x).every(Number.isFinite),
  interventions: (x) => x && Object.values(x).every(Array.isArray),
  language: (x) => ["en", "zh"].includes(x),
  theme: (x) => ["light", "dark"].includes(x),
  fingerprint: (x) => typeof x === "string",
  step: isWhole,
  layer: isWhole,
  head: isWhole,
  query: isWhole,
  key: isWhole,
  tour: isWhole,
};
const fieldsOf = (fragment) => new URLSearchParams(fragment.replace(/^#/, ""));

// Whether a fragment is to hold a state, and not the name of a section.
export const isLink = (fragment) => fieldsOf(fragment).has("v");

// Returns the state of a link, and a fingerprint; null if it cannot be read, or makes no sense.
export async function unpack(fragment) {
  const fields = fieldsOf(fragment);
  if (fields.get("v") !== "1") return null;
  try {
    const text = atob(fields.get("s").replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = await piped(
      Uint8Array.from(text, (c) => c.charCodeAt(0)),
      new DecompressionStream("deflate"),
    );
    const state = JSON.parse(new TextDecoder().decode(bytes));
    const all = Object.entries(state ?? []);
    const good = all.every(([name, value]) => Object.hasOwn(sane, name) && sane[name](value));
    return all.length && good ? state : null;
  } catch {
    return null;
  }
}
