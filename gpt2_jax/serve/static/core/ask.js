// Asks for the server's API key, which is kept for this window's session.

import { h, fill } from "./dom.js";

// Returns a promise of the key; null if it is not given.
export function ask(app, wrong) {
  const dialog = document.getElementById("ask");
  const input = h("input", { type: "password", id: "key", autocomplete: "off", required: true });
  const form = h(
    "form",
    { method: "dialog" },
    h("label", { for: "key" }, app.t(wrong ? "key.wrong" : "key.needed")),
    input,
    h("button", { type: "submit", value: "ok" }, app.t("key.use")),
  );
  fill(dialog, form);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "ok" ? input.value : null),
      { once: true },
    );
  });
}
