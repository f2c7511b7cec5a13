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

// Returns the state of a fragment; null if it has none that can be read.
export async function unpack(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (fields.get("v") !== "1") return null;
  try {
    const text = atob(fields.get("s").replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = await piped(
      Uint8Array.from(text, (c) => c.charCodeAt(0)),
      new DecompressionStream("deflate"),
    );
    const state = JSON.parse(new TextDecoder().decode(bytes));
    return state && typeof state === "object" ? state : null;
  } catch {
    return null;
  }
}
