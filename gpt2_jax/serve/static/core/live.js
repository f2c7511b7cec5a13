// Speaks to screen readers, and shows one small note beside the pointer.

const region = () => document.getElementById("live");
const tip = () => document.getElementById("tip");

export function say(text) {
  if (region()) region().textContent = text;
}

// Shows a note near a point of the window; hides it without a text.
export function note(text, x = 0, y = 0) {
  const node = tip();
  node.hidden = !text;
  if (!text) return;
  node.textContent = text;
  const width = document.documentElement.clientWidth;
  node.style.left = `${Math.max(4, Math.min(x + 12, width - node.offsetWidth - 4))}px`;
  const above = y + 16 + node.offsetHeight > innerHeight;
  node.style.top = `${above ? y - node.offsetHeight - 8 : y + 16}px`;
}
